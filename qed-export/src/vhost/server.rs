//! The server: frontends that connect, one after the other, and what they say.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use super::channel::{self, Incoming};
use super::config::VhostOptions;
use super::event::{Event, wait};
use super::message::{Message, reply};
use super::queue::Disk;
use super::session::{Answer, Session};
use crate::device::chain;
use crate::server::{
    AcceptLimits, Acceptor, Clients, Counters, Export, Listener, ProtocolError, ProtocolServer,
    Registry, ServerHandle, Socket,
};

/// One frontend is served, and some may wait for it to go: one that comes again, for one, before it is
/// noticed that it went.
const CONNECTIONS: usize = 8;
/// How long a message that has begun may take to come, and a reply to be taken.
const STALL: Duration = Duration::from_secs(10);

/// A vhost-user-blk server that listens, and lets nobody in yet.
///
/// It serves one disk to one virtual machine at a time, with a thread for each queue that the guest uses.
#[derive(Debug)]
pub struct Server {
    acceptor: Acceptor,
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

/// What all threads of a server have.
#[derive(Debug)]
struct Shared {
    disk: Arc<Disk>,
    options: VhostOptions,
    /// Held by the frontend that is served.
    turn: Mutex<()>,
    /// The disk may have another size.
    changed: Event,
}

#[derive(Debug)]
struct Handle {
    acceptor: Arc<dyn ServerHandle>,
    shared: Arc<Shared>,
}

impl Server {
    /// A server of one disk.
    ///
    /// # Errors
    /// The system's, if it has no more descriptors; [`io::ErrorKind::InvalidInput`] for options out of their
    /// bounds.
    pub fn new(
        export: Arc<Export>,
        listeners: Vec<Listener>,
        options: VhostOptions,
    ) -> io::Result<Self> {
        if !options.are_valid() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let limits = AcceptLimits { connections: CONNECTIONS, handshake: STALL, once: false };
        let acceptor = Acceptor::new(listeners, limits)?;
        let disk = Arc::new(Disk::new(export, &options));
        let (turn, changed) = (Mutex::default(), Event::new()?);
        let shared = Arc::new(Shared { disk, options, turn, changed });
        let handle = Handle { acceptor: acceptor.handle(), shared: Arc::clone(&shared) };
        Ok(Self { acceptor, shared, handle: Arc::new(handle) })
    }
}

impl ProtocolServer for Server {
    fn name(&self) -> &'static str {
        "vhost"
    }

    fn counters(&self) -> Option<Arc<Counters>> {
        Some(Arc::clone(&self.shared.disk.counters))
    }

    fn handle(&self) -> Arc<dyn ServerHandle> {
        Arc::clone(&self.handle) as _
    }

    fn run(self: Box<Self>) -> Result<(), ProtocolError> {
        Ok(self.acceptor.run(&Registry::default(), &*self.shared)?)
    }
}

impl ServerHandle for Handle {
    fn stop(&self, deadline: Instant) -> io::Result<()> {
        self.acceptor.stop(deadline)
    }

    fn resized(&self, export: &Export) {
        if export.name() == self.shared.disk.export.name()
            && let Err(error) = self.shared.changed.set()
        {
            tracing::error!(%error, "the frontend is not told of a new size");
        }
    }
}

impl Clients for Shared {
    const THREAD: &'static str = "vhost-frontend";

    fn serve(&self, socket: &Arc<Socket>, number: u64) {
        let frontend = tracing::info_span!("frontend", number);
        let _inside = frontend.enter();
        let Some(stream) = socket.as_unix() else {
            return tracing::warn!("a frontend cannot share its memory over TCP");
        };
        // One after the other: a disk that two guests write has no sound file system.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _connected = self.disk.counters.connect();
        tracing::info!("a frontend has connected");
        match self.talk(stream) {
            Ok(()) => tracing::info!("left"),
            Err(error) => tracing::warn!(error = %chain(&error), "gone"),
        }
    }

    fn turned_away(&self) {
        self.disk.counters.turned_away();
    }
}

impl Shared {
    /// Talks with a frontend until it goes. What its queues had taken is given back then.
    fn talk(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        let mut session = Session::new(&self.disk, &self.options);
        loop {
            let ready = wait(stream, &self.changed, None, None)?;
            if ready.second {
                self.changed.clear();
                session.disk_changed();
            }
            if !ready.first && !ready.first_is_gone {
                continue;
            }
            let Some(incoming) = channel::receive(stream)? else { return Ok(()) };
            hear(stream, &mut session, incoming)?;
        }
    }
}

/// Obeys one message and answers it.
fn hear(stream: &UnixStream, session: &mut Session<'_>, incoming: Incoming) -> io::Result<()> {
    let Incoming { head, body, descriptors } = incoming;
    let message = Message::parse(head.code, &body).map_err(io::Error::other)?;
    let is_told = head.needs_reply && !message.has_reply();
    let answer = session.obey(message, descriptors);
    let (body, descriptor) = match answer {
        Ok(Answer::Reply(body, descriptor)) => (body, descriptor),
        Ok(Answer::Done) if is_told => (0_u64.to_le_bytes().to_vec(), None),
        Ok(Answer::Done) => return Ok(()),
        // One that is told can do without; another would go on as if it were obeyed.
        Err(error) if is_told => {
            tracing::warn!(code = head.code, error = %chain(&error), "a message is not obeyed");
            (1_u64.to_le_bytes().to_vec(), None)
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    let descriptor = descriptor.as_ref().map(AsFd::as_fd);
    channel::send(stream, &reply(head.code, &body), descriptor, SendFlags::empty())
}
