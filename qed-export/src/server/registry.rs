//! Which connections there are: how many may be, and how they are ended from outside.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::socket::Socket;

/// The connections of a server, and whether it is closing.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    connections: Mutex<Connections>,
    ended: Condvar,
    is_draining: AtomicBool,
    /// What takes long is to be given up.
    pub(crate) is_cut: AtomicBool,
}

#[derive(Debug, Default)]
struct Connections {
    open: HashMap<u64, Arc<Socket>>,
    next: u64,
    /// A client was given a disk.
    any_served: bool,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Registered<'r> {
    registry: &'r Registry,
    pub(crate) number: u64,
}

impl Registry {
    /// Counts a connection; none if there are `most` already.
    pub(crate) fn register(&self, socket: &Arc<Socket>, most: usize) -> Option<Registered<'_>> {
        let mut connections = self.connections();
        if connections.open.len() >= most {
            return None;
        }
        let number = connections.next;
        connections.next += 1;
        connections.open.insert(number, Arc::clone(socket));
        Some(Registered { registry: self, number })
    }

    /// A client is given a disk.
    pub(crate) fn serves(&self) {
        self.connections().any_served = true;
    }

    /// Whether a client was given a disk, and now there is none, nor one that may want one.
    pub(crate) fn is_deserted(&self) -> bool {
        let connections = self.connections();
        connections.any_served && connections.open.is_empty()
    }

    /// Whether new requests are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Ends all connections: what was sent is answered until `deadline`, then they are cut.
    pub(crate) fn drain(&self, deadline: Instant) {
        self.is_draining.store(true, Ordering::Relaxed);
        let mut connections = self.connections();
        // A client that is silent is gone at once: there is nothing to read any more.
        connections.open.values().for_each(|socket| socket.shut_down(Shutdown::Read));
        while !connections.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(connections = connections.open.len(), "cut after the time to drain");
                self.is_cut.store(true, Ordering::Relaxed);
                connections.open.values().for_each(|socket| socket.shut_down(Shutdown::Both));
                return;
            }
            let waited = self.ended.wait_timeout(connections, left);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.registry.connections().open.remove(&self.number);
        self.registry.ended.notify_all();
    }
}
