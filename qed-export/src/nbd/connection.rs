//! One client from hello to goodbye: the handshake on one thread, then requests on a few.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::thread::{Builder, Scope};

use super::converse::{greet, negotiate};
use super::incoming::RequestReader;
use super::negotiation::{Encryption, Session, Step};
use super::perform::{Scratch, perform, refuse};
use super::request::{Incoming, Request};
use super::thread_pool::{Handover, ThreadPool};
use super::tls::TlsIdentity;
use super::transport::Transport;
use super::wire::Errno;
use crate::server::Counters;
use crate::server::Exports;
use crate::server::Registry;
use crate::server::Socket;
use crate::server::contained;

/// What the connections of a server share.
#[derive(Debug)]
pub(super) struct Shared<'s> {
    pub(super) exports: &'s Exports,
    pub(super) tls: Option<&'s TlsIdentity>,
    pub(super) counters: &'s Counters,
    pub(super) registry: &'s Registry,
    pub(super) max_threads: usize,
}

/// Serves one client until it leaves.
pub(super) fn serve(shared: &Shared<'_>, socket: &Arc<Socket>) -> io::Result<()> {
    let Some((transport, session)) = agree(shared, socket)? else { return Ok(()) };
    shared.registry.serves();
    socket.end_negotiation()?;
    let name = session.export.shown_name();
    tracing::info!(export = %name, replies = ?session.replies, "serving");
    let connection = Connection {
        shared,
        socket,
        transport,
        session,
        pool: ThreadPool::new(shared.max_threads),
    };
    std::thread::scope(|scope| connection.work(scope, RequestReader::default()))
}

/// The handshake; none if the client did not want a disk.
fn agree<'s>(
    shared: &Shared<'s>,
    socket: &Arc<Socket>,
) -> io::Result<Option<(Transport, Session<'s>)>> {
    let mut transport = Transport::plain(Arc::clone(socket));
    let encryption = if shared.tls.is_some() { Encryption::Required } else { Encryption::None };
    let mut options = greet(shared.exports, encryption, &mut &transport, &mut &transport)?;
    loop {
        match negotiate(options, &mut &transport, &mut &transport)? {
            Step::Transmit(session) => return Ok(Some((transport, session))),
            Step::StartTls(plain) => {
                let identity = shared.tls.ok_or(io::ErrorKind::Unsupported)?;
                transport = transport.encrypt(identity)?;
                options = plain.established();
            }
            Step::Again(again) => options = again,
            Step::HangUp => return Ok(None),
        }
    }
}

/// A client that has its disk.
struct Connection<'s> {
    shared: &'s Shared<'s>,
    socket: &'s Socket,
    transport: Transport,
    session: Session<'s>,
    pool: ThreadPool<RequestReader>,
}

impl Connection<'_> {
    /// Reads and serves, beginning as the reader. A panic ends the connection for all its
    /// threads, also for those that wait for the reader.
    fn work<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        reader: RequestReader,
    ) -> io::Result<()> {
        contained(|| self.take_turns(scope, reader)).unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "serving a request");
            self.hang_up();
            Err(io::Error::other(panicked))
        })
    }

    fn take_turns<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        reader: RequestReader,
    ) -> io::Result<()> {
        let mut batch = Batch::default();
        let mut in_hand = Some(reader);
        while let Some(mut reader) = in_hand.take().or_else(|| self.pool.take_over()) {
            match batch.read(&mut reader, &self.transport, &self.session) {
                Ok(true) => {}
                ended => {
                    self.pool.end();
                    return ended.map(drop);
                }
            }
            if reader.has_more() || batch.may_take_long() {
                self.pass_on(scope, reader);
            } else {
                in_hand = Some(reader);
            }
            // A client that takes no reply may be busy sending: somebody has to read that.
            let stalled = || {
                if let Some(reader) = in_hand.take() {
                    self.pass_on(scope, reader);
                }
            };
            if let Err(error) = self.answer(&mut batch, stalled) {
                self.hang_up();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends the connection: the reader sees the end, and no thread waits for it.
    fn hang_up(&self) {
        self.socket.shut_down(Shutdown::Both);
        self.pool.end();
    }

    /// Lets another thread read while this one serves.
    fn pass_on<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, reader: RequestReader) {
        if self.pool.hand_over(reader) == Handover::Taken {
            return;
        }
        let work = move || {
            // The thread that reads reports how the connection ended.
            if let Some(reader) = self.pool.take_over()
                && let Err(error) = self.work(scope, reader)
            {
                tracing::debug!(%error, "connection");
            }
        };
        if let Err(error) = Builder::new().name("nbd-request".to_owned()).spawn_scoped(scope, work)
        {
            tracing::warn!(%error, "no thread for more requests");
            self.pool.thread_is_missing();
        }
    }

    /// Serves the requests one after the other and sends the replies together; calls `stalled` if
    /// that has to wait.
    fn answer(&self, batch: &mut Batch, stalled: impl FnOnce()) -> io::Result<()> {
        let registry = self.shared.registry;
        for (incoming, scratch) in batch.requests() {
            let outcome = if registry.is_draining() {
                refuse(&self.session, incoming, scratch, Errno::Shutdown);
                Err(Errno::Shutdown)
            } else {
                perform(&self.session, incoming, scratch, &registry.is_cut)
            };
            incoming.count(outcome.is_ok(), self.shared.counters);
        }
        let scratches = &mut batch.scratches[..batch.incoming.len()];
        let replies = scratches.iter().flat_map(|scratch| scratch.reply.parts(scratch.bytes()));
        let sent = self.transport.send(replies, stalled);
        scratches.iter_mut().for_each(Scratch::give_back);
        sent
    }
}

/// Requests that one thread takes at once: what a hand-over of the reader and a system call for the
/// replies cost is shared. Few, so that a queue is still served by several threads where reads wait
/// for a disk.
#[derive(Default)]
struct Batch {
    incoming: Vec<Incoming>,
    scratches: [Scratch; MAX_BATCH],
}

const MAX_BATCH: usize = 4;
/// A longer request is a batch of its own.
const SHORT_BYTES: usize = 16 << 10;

impl Batch {
    /// Reads one request, and takes short ones with it that are here already; false when the client
    /// has left.
    fn read(
        &mut self,
        reader: &mut RequestReader,
        mut transport: &Transport,
        session: &Session<'_>,
    ) -> io::Result<bool> {
        self.incoming.clear();
        let [first, others @ ..] = &mut self.scratches;
        let incoming = match reader.next(&mut transport, session, first)? {
            Some(incoming) if incoming.request != Ok(Request::Disconnect) => incoming,
            _ => return Ok(false),
        };
        let is_short = incoming.is_short(SHORT_BYTES);
        self.incoming.push(incoming);
        if !is_short {
            return Ok(true);
        }
        for scratch in others {
            match reader.next_short(session, scratch, SHORT_BYTES) {
                Some(incoming) => self.incoming.push(incoming),
                None => break,
            }
        }
        Ok(true)
    }

    fn requests(&mut self) -> impl Iterator<Item = (&Incoming, &mut Scratch)> {
        self.incoming.iter().zip(&mut self.scratches)
    }

    fn may_take_long(&self) -> bool {
        self.incoming.iter().any(Incoming::may_take_long)
    }
}
