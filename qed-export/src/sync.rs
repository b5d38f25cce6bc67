//! What the gate of a hand-over synchronises with: the types of the standard library here, those of a
//! model checker where `tests/interleavings` compiles the same module.

use std::time::Instant;

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

/// A number of this thread, from 0 up.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is ending has none any more; then any will do.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// Waits until somebody tells, or until `deadline`; whether that has passed.
pub(crate) fn wait_until<'a, T>(
    told: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Instant,
) -> (MutexGuard<'a, T>, bool) {
    let left = deadline.saturating_duration_since(Instant::now());
    let (guard, _) = told.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
    (guard, Instant::now() >= deadline)
}
