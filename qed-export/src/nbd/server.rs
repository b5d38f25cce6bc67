//! The server: listens, gives each client its threads, keeps the disks in order, and ends well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use thiserror::Error;

use super::connection::{Shared, serve};
use super::contained::{Panicked, contained};
use super::counters::Counters;
use super::exports::{Exports, Quiet};
use super::listen::{Listener, Purpose};
use super::maintenance::{CompactHandle, DiskEvent, Maintenance, Watcher};
use super::metrics;
use super::registry::{Registered, Registry};
use super::socket::{Socket, Stream};
use super::tls::TlsIdentity;
use crate::device::DeviceError;

/// What wakes the server without being a listener.
const WAKER: Token = Token(usize::MAX);
/// How long a server waits for descriptors when the system has no more.
const BREATH: Duration = Duration::from_millis(100);

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Threads of one connection: how many of its requests are served at a time.
    pub threads_per_connection: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long requests may go on when the server ends.
    pub drain: Duration,
    /// Whether the server ends when the last client has gone, once one was given a disk. Who only
    /// asks for the list does not count.
    pub once: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            threads_per_connection: 4,
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            once: false,
        }
    }
}

/// An NBD server that has its disks and does not listen yet.
#[derive(Debug)]
pub struct Server {
    exports: Exports,
    limits: Limits,
    tls: Option<TlsIdentity>,
    counters: Arc<Counters>,
    poll: Poll,
    stop: StopHandle,
    maintenance: Arc<Maintenance>,
    watcher: Watcher,
}

/// Ends a server from another thread.
#[derive(Debug, Clone)]
pub struct StopHandle {
    is_stopped: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

/// Why a server ended before it was told to, or not well.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The system refused to wait for clients.
    #[error("waiting for clients")]
    Poll(#[from] io::Error),
    /// A disk could not be closed well: what was not flushed may be lost.
    #[error("closing the disk '{name}'")]
    Close {
        /// The name of the export, bytes that are not text escaped.
        name: String,
        /// Why.
        #[source]
        source: DeviceError,
    },
}

/// The server has ended, and its disks are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl StopHandle {
    /// Tells the server to end: no new clients, and those that are there get what they asked for.
    ///
    /// # Errors
    /// The system's, if the server could not be woken.
    pub fn stop(&self) -> io::Result<()> {
        self.is_stopped.store(true, Ordering::Release);
        self.waker.wake()
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }
}

impl Server {
    /// A server of these disks; with TLS every client has to use it.
    ///
    /// # Errors
    /// The system's, if it has no more descriptors.
    pub fn new(exports: Exports, limits: Limits, tls: Option<TlsIdentity>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let stop = StopHandle { is_stopped: Arc::new(AtomicBool::new(false)), waker };
        let counters = Arc::default();
        let (maintenance, watcher) = (Arc::default(), Watcher::default());
        Ok(Self { exports, limits, tls, counters, poll, stop, maintenance, watcher })
    }

    /// Tells `watch` what happens to the disks, with their names: from the thread that keeps them in
    /// order, which waits for it.
    #[must_use]
    pub fn watched_by(self, watch: impl FnMut(&[u8], DiskEvent<'_>) + Send + 'static) -> Self {
        Self { watcher: Watcher::new(watch), ..self }
    }

    /// What has its images compacted.
    #[must_use]
    pub fn compact_handle(&self) -> CompactHandle {
        CompactHandle(Arc::clone(&self.maintenance))
    }

    /// What ends it.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves every client that connects to the listeners until it is stopped, or until the last has gone
    /// if that is the limit, then closes the disks.
    ///
    /// Uses the thread that calls, one for the disks, and for each client up to as many as the limits
    /// say.
    ///
    /// # Errors
    /// The system's, and that of the first disk that could not be closed; all are closed in any case.
    pub fn run(mut self, mut listeners: Vec<Listener>) -> Result<Closed, ServerError> {
        let registry = Registry::default();
        let shared = Shared {
            exports: &self.exports,
            tls: self.tls.as_ref(),
            counters: &self.counters,
            registry: &registry,
            max_threads: self.limits.threads_per_connection.max(1),
        };
        let (maintenance, watcher) = (&self.maintenance, self.watcher);
        let served = std::thread::scope(|scope| {
            let keeper = Builder::new().name("nbd-maintain".to_owned());
            keeper.spawn_scoped(scope, move || maintenance.run(shared.exports, watcher))?;
            let (limits, stop) = (&self.limits, &self.stop);
            let door = Door { shared: &shared, limits, stop, is_full: Quiet::default() };
            let served = contained(|| door.open(scope, &mut self.poll, &mut listeners))
                .unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
            // Nobody else can come while the others finish.
            drop(listeners);
            registry.drain(Instant::now() + self.limits.drain);
            maintenance.end();
            served
        });
        let closed = close(self.exports);
        served?;
        closed
    }
}

fn close(exports: Exports) -> Result<Closed, ServerError> {
    let mut outcome = Ok(Closed);
    for (name, device) in exports.into_devices() {
        let closed = contained(|| device.close());
        if let Err(source) = closed.unwrap_or_else(|panicked| Err(failed(panicked))) {
            let name = name.escape_ascii().to_string();
            tracing::error!(export = %name, error = %source, "not closed well");
            outcome = outcome.and(Err(ServerError::Close { name, source }));
        }
    }
    outcome
}

/// Where clients come in.
struct Door<'s> {
    shared: &'s Shared<'s>,
    limits: &'s Limits,
    stop: &'s StopHandle,
    /// A client was not let in.
    is_full: Quiet,
}

impl<'s> Door<'s> {
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
        while !self.stop.is_stopped() {
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
                if self.shared.registry.is_deserted() {
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
        while !self.stop.is_stopped() {
            match listener.accept() {
                Ok(stream) => self.admit(scope, stream, listener.purpose),
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
    fn admit<'scope>(&self, scope: &'scope Scope<'scope, '_>, stream: Stream, purpose: Purpose)
    where
        's: 'scope,
    {
        let shared = self.shared;
        let socket = match Socket::new(stream, self.limits.handshake) {
            Ok(socket) => Arc::new(socket),
            Err(error) => return tracing::debug!(%error, "a client that is gone already"),
        };
        let Some(registered) = shared.registry.register(&socket, self.limits.connections) else {
            shared.counters.turned_away();
            if self.is_full.may_log() {
                tracing::warn!(most = self.limits.connections, "too many connections");
            }
            return;
        };
        let stop = self.limits.once.then_some(self.stop);
        let client = move || {
            match purpose {
                Purpose::Disks => serve_disks(shared, &socket, registered),
                Purpose::Counters => serve_counters(shared, &socket, registered),
            }
            if let Some(Err(error)) = stop.map(|stop| stop.waker.wake()) {
                tracing::error!(%error, "the server is not told that a client has gone");
            }
        };
        let thread = Builder::new().name("nbd-client".to_owned());
        if let Err(error) = thread.spawn_scoped(scope, client) {
            tracing::warn!(%error, "no thread for a client");
        }
    }
}

fn serve_disks(shared: &Shared<'_>, socket: &Arc<Socket>, registered: Registered<'_>) {
    let client = tracing::info_span!("client", number = registered.number);
    let _inside = client.enter();
    shared.counters.opened();
    match contained(|| serve(shared, socket)) {
        Ok(Ok(())) => tracing::info!("left"),
        Ok(Err(error)) => tracing::info!(%error, "gone"),
        Err(panicked) => tracing::error!(%panicked, "gone"),
    }
    // In this order: whoever waits for the last one finds it counted.
    shared.counters.closed();
    drop(registered);
}

fn serve_counters(shared: &Shared<'_>, socket: &Socket, registered: Registered<'_>) {
    match contained(|| metrics::answer(socket, shared.counters, shared.exports)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "counters"),
        Err(panicked) => tracing::error!(%panicked, "counters"),
    }
    drop(registered);
}

/// Errors of `accept` that say that one client is gone, and nothing of the next.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn failed(panicked: Panicked) -> DeviceError {
    DeviceError::Failed(panicked.into())
}
