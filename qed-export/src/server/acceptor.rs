//! Where clients come in: listeners, a thread for each client that is let in, and their end. Knows no
//! protocol.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use super::contained::contained;
use super::listen::Listener;
use super::protocol::ServerHandle;
use super::quiet::Quiet;
use super::registry::Registry;
use super::socket::{Socket, Stream};

/// What wakes an acceptor without being a listener.
const WAKER: Token = Token(usize::MAX);
/// How long it waits for descriptors when the system has no more.
const BREATH: Duration = Duration::from_millis(100);

/// What an acceptor allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AcceptLimits {
    /// Connections at a time; more are closed at once.
    pub(crate) connections: usize,
    /// How long a client may take until it says what it wants.
    pub(crate) handshake: Duration,
    /// Whether it ends when the last client has gone, once one was given a disk.
    pub(crate) once: bool,
}

/// Who serves the clients that are let in.
pub(crate) trait Clients: Sync {
    /// The name of the threads.
    const THREAD: &'static str;

    /// Serves one until it leaves.
    fn serve(&self, socket: &Arc<Socket>, number: u64);

    /// One was not let in.
    fn turned_away(&self) {}
}

/// Listens, and lets clients in until it is stopped.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    limits: AcceptLimits,
    poll: Poll,
    stop: Arc<StopAccepting>,
}

/// Ends an acceptor, and the connections that it let in.
#[derive(Debug)]
pub(crate) struct StopAccepting {
    deadline: Mutex<Option<Instant>>,
    waker: Waker,
}

impl StopAccepting {
    fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerHandle for StopAccepting {
    fn stop(&self, deadline: Instant) -> io::Result<()> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.waker.wake()
    }
}

impl Acceptor {
    /// One that begins to accept when it runs.
    ///
    /// # Errors
    /// The system's, if it has no more descriptors.
    pub(crate) fn new(listeners: Vec<Listener>, limits: AcceptLimits) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let stop = Arc::new(StopAccepting { deadline: Mutex::default(), waker });
        Ok(Self { listeners, limits, poll, stop })
    }

    /// What ends it.
    pub(crate) fn handle(&self) -> Arc<StopAccepting> {
        Arc::clone(&self.stop)
    }

    /// Lets clients in until it is stopped, or until the last has gone if that is the limit. When it
    /// returns all have left.
    pub(crate) fn run<C: Clients>(self, registry: &Registry, clients: &C) -> io::Result<()> {
        let Self { mut listeners, limits, mut poll, stop } = self;
        let is_full = Quiet::default();
        let door = Door { registry, clients, limits: &limits, stop: &stop, is_full: &is_full };
        std::thread::scope(|scope| {
            let ended = contained(|| door.open(scope, &mut poll, &mut listeners))
                .unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
            // Nobody else can come while the others finish.
            drop(listeners);
            registry.drain(stop.deadline().unwrap_or_else(Instant::now));
            ended
        })
    }
}

/// An acceptor at work.
struct Door<'s, C> {
    registry: &'s Registry,
    clients: &'s C,
    limits: &'s AcceptLimits,
    stop: &'s StopAccepting,
    /// A client was not let in.
    is_full: &'s Quiet,
}

impl<'s, C: Clients> Door<'s, C> {
    fn open<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        poll: &mut Poll,
        listeners: &mut [Listener],
    ) -> io::Result<()>
    where
        's: 'scope,
    {
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.watch(poll.registry(), Token(index))?;
        }
        let mut events = Events::with_capacity(16);
        while !self.is_stopped() {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                if let Some(listener) = listeners.get(event.token().0) {
                    self.accept_all(scope, listener);
                }
            }
            if self.limits.once {
                // One that leaves may have come again at once.
                listeners.iter().for_each(|listener| self.accept_all(scope, listener));
                if self.registry.is_deserted() {
                    tracing::info!("the last client has gone");
                    break;
                }
            }
        }
        Ok(())
    }

    fn accept_all<'scope>(&self, scope: &'scope Scope<'scope, '_>, listener: &Listener)
    where
        's: 'scope,
    {
        while !self.is_stopped() {
            match listener.accept() {
                Ok(stream) => self.admit(scope, stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: those who are connected may give some back.
                    if self.is_full.may_log() {
                        tracing::warn!(%error, "accepting a client");
                    }
                    std::thread::sleep(BREATH);
                }
            }
        }
    }

    /// Starts the thread of a client.
    fn admit<'scope>(&self, scope: &'scope Scope<'scope, '_>, stream: Stream)
    where
        's: 'scope,
    {
        let socket = match Socket::new(stream, self.limits.handshake) {
            Ok(socket) => Arc::new(socket),
            Err(error) => return tracing::debug!(%error, "a client that is gone already"),
        };
        let Some(registered) = self.registry.register(&socket, self.limits.connections) else {
            self.clients.turned_away();
            if self.is_full.may_log() {
                tracing::warn!(most = self.limits.connections, "too many connections");
            }
            return;
        };
        let clients = self.clients;
        let stop = self.limits.once.then_some(self.stop);
        let client = move || {
            if let Err(panicked) = contained(|| clients.serve(&socket, registered.number)) {
                tracing::error!(%panicked, "a client is gone");
            }
            drop(registered);
            if let Some(Err(error)) = stop.map(|stop| stop.waker.wake()) {
                tracing::error!(%error, "the server is not told that a client has gone");
            }
        };
        let thread = Builder::new().name(C::THREAD.to_owned());
        if let Err(error) = thread.spawn_scoped(scope, client) {
            tracing::warn!(%error, "no thread for a client");
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.deadline().is_some()
    }
}

/// Errors of `accept` that say that one client is gone, and nothing of the next.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
