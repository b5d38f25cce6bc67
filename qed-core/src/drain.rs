//! Waiting for requests to end: every request holds a guard, a change of the image's shape waits.
//!
//! A guard protects no data and is not a lock that two requests could contend for: any number of
//! requests hold one at the same time, across their data I/O. It keeps the clusters that a lookup
//! found from being given up before the I/O on them ends.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug, Default)]
pub(crate) struct Drain(RwLock<()>);

/// Held by one request from its first lookup to the end of its I/O.
#[derive(Debug)]
pub(crate) struct RequestGuard<'a>(
    #[expect(dead_code, reason = "held, never read")] RwLockReadGuard<'a, ()>,
);

/// Held while no request is in flight.
#[derive(Debug)]
pub(crate) struct Drained<'a>(
    #[expect(dead_code, reason = "held, never read")] RwLockWriteGuard<'a, ()>,
);

impl Drain {
    /// Begins a request; waits only while the image changes its shape. Never taken twice by one
    /// request, since a waiting [`Drain::drain`] goes first.
    pub(crate) fn enter(&self) -> RequestGuard<'_> {
        RequestGuard(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds new requests back and waits for those in flight.
    pub(crate) fn drain(&self) -> Drained<'_> {
        Drained(self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}
