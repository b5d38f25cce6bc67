//! The server: the exports over NBD on sockets, with its limits and counters.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Shared, serve};
use super::request::COUNTED;
use super::tls::TlsIdentity;
use crate::server::{
    AcceptLimits, Acceptor, Clients, Counters, Exports, Listener, ProtocolError, ProtocolServer,
    Registry, ServerHandle, Socket,
};

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Threads of one connection: how many of its requests are served at a time.
    pub threads_per_connection: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
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
            once: false,
        }
    }
}

/// An NBD server that listens, and lets nobody in yet.
///
/// It uses a thread for the listeners, and for each client up to as many as the limits say.
#[derive(Debug)]
pub struct Server {
    exports: Exports,
    limits: Limits,
    tls: Option<TlsIdentity>,
    counters: Arc<Counters>,
    acceptor: Acceptor,
}

impl Server {
    /// A server of these disks; with TLS every client has to use it.
    ///
    /// # Errors
    /// The system's, if it has no more descriptors.
    pub fn new(
        exports: Exports,
        listeners: Vec<Listener>,
        limits: Limits,
        tls: Option<TlsIdentity>,
    ) -> io::Result<Self> {
        let Limits { connections, handshake, once, .. } = limits;
        let acceptor = Acceptor::new(listeners, AcceptLimits { connections, handshake, once })?;
        let counters = Arc::new(Counters::new("nbd", &COUNTED));
        Ok(Self { exports, limits, tls, counters, acceptor })
    }
}

impl ProtocolServer for Server {
    fn name(&self) -> &'static str {
        "nbd"
    }

    fn counters(&self) -> Option<Arc<Counters>> {
        Some(Arc::clone(&self.counters))
    }

    fn handle(&self) -> Arc<dyn ServerHandle> {
        self.acceptor.handle()
    }

    fn run(self: Box<Self>) -> Result<(), ProtocolError> {
        let registry = Registry::default();
        let shared = Shared {
            exports: &self.exports,
            tls: self.tls.as_ref(),
            counters: &self.counters,
            registry: &registry,
            max_threads: self.limits.threads_per_connection.max(1),
        };
        Ok(self.acceptor.run(&registry, &shared)?)
    }
}

impl Clients for Shared<'_> {
    const THREAD: &'static str = "nbd-client";

    fn serve(&self, socket: &Arc<Socket>, number: u64) {
        let client = tracing::info_span!("client", number);
        let _inside = client.enter();
        let _connected = self.counters.connect();
        match serve(self, socket) {
            Ok(()) => tracing::info!("left"),
            Err(error) => tracing::info!(%error, "gone"),
        }
    }

    fn turned_away(&self) {
        self.counters.turned_away();
    }
}
