//! What `qed-export/src/sync.rs` has, of the model checker; no deadline ever passes.

use std::time::Instant;

pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
pub(crate) use std::sync::PoisonError;

/// A number of this thread, from 0 up.
pub(crate) fn thread_number() -> usize {
    shuttle::current::me().into()
}

pub(crate) fn wait_until<'a, T>(
    told: &Condvar,
    guard: MutexGuard<'a, T>,
    _deadline: Instant,
) -> (MutexGuard<'a, T>, bool) {
    (told.wait(guard).unwrap_or_else(PoisonError::into_inner), false)
}
