//! Waiting for requests to end: every request holds a guard, a change of the image's shape waits.
//!
//! A guard protects no data and is not a lock that two requests could contend for: any number of
//! requests hold one at the same time, across their data I/O. It keeps the clusters that a lookup
//! found from being given up before the I/O on them ends. Entering takes no lock and, since each
//! thread counts in a lane of its own, no cache line that another processor wants.
//!
//! A request counts itself, then looks whether a change is closing the lanes; a change closes them,
//! then looks whether anybody is counted. All four are sequentially consistent, so one of the two
//! sees the other. `tests/interleavings` goes through the orders.

use std::ops::Deref;

use crate::sync::{
    AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError, thread_number,
};

/// More than the processors that most machines have; two threads in one lane only share its line.
const LANES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Drain {
    lanes: [Lane; LANES],
    /// A change has begun or waits for requests to end.
    is_closed: AtomicBool,
    /// Held by a change for its whole length.
    change: Mutex<()>,
    /// What a change that waits for requests sleeps on.
    leaving: Mutex<()>,
    left: Condvar,
}

/// Requests in flight, on cache lines that hold nothing else.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(AtomicUsize);

/// Held by one request from its first lookup to the end of its I/O; `D` is a reference to the drain
/// or keeps it alive.
#[derive(Debug)]
pub(crate) struct RequestGuard<D: Deref<Target = Drain>> {
    drain: D,
    lane: usize,
}

/// Held while no request is in flight.
#[derive(Debug)]
pub(crate) struct Drained<'a> {
    drain: &'a Drain,
    #[expect(dead_code, reason = "held, never read")]
    change: MutexGuard<'a, ()>,
}

impl Drain {
    /// Begins a request; waits only while the image changes its shape. Never taken twice by one
    /// request, since a waiting [`Drain::drain`] goes first.
    pub(crate) fn enter(&self) -> RequestGuard<&Self> {
        RequestGuard::enter(self)
    }

    /// Whether more than one request is in flight, or was a moment ago.
    pub(crate) fn is_shared(&self) -> bool {
        self.lanes.iter().map(|lane| lane.0.load(Ordering::Relaxed)).sum::<usize>() > 1
    }

    /// Whether a request is in flight, or was a moment ago.
    pub(crate) fn any(&self) -> bool {
        self.lanes.iter().any(|lane| lane.0.load(Ordering::SeqCst) > 0)
    }

    /// Holds new requests back and waits for those in flight.
    pub(crate) fn drain(&self) -> Drained<'_> {
        let change = locked(&self.change);
        self.is_closed.store(true, Ordering::SeqCst);
        let mut leaving = locked(&self.leaving);
        while self.lanes.iter().any(|lane| lane.0.load(Ordering::SeqCst) > 0) {
            leaving = self.left.wait(leaving).unwrap_or_else(PoisonError::into_inner);
        }
        Drained { drain: self, change }
    }
}

impl<D: Deref<Target = Drain> + Clone> RequestGuard<D> {
    /// As [`Drain::enter`].
    pub(crate) fn enter(drain: D) -> Self {
        loop {
            if let Some(guard) = Self::try_enter(drain.clone()) {
                return guard;
            }
            drop(locked(&drain.change));
        }
    }

    /// As [`Drain::enter`]; none instead of waiting.
    pub(crate) fn try_enter(drain: D) -> Option<Self> {
        let lane = thread_number() % LANES;
        drain.lanes[lane % LANES].0.fetch_add(1, Ordering::SeqCst);
        let guard = Self { drain, lane };
        if guard.drain.is_closed.load(Ordering::SeqCst) { None } else { Some(guard) }
    }

    /// One guard more for the same request, for a part of it that may end later. Does not wait: a
    /// change that waits for the one waits for both. In the same lane, since a change that looks at
    /// the lanes one after the other could miss a request that moves between them.
    pub(crate) fn again(&self) -> Self {
        self.drain.lanes[self.lane % LANES].0.fetch_add(1, Ordering::SeqCst);
        Self { drain: self.drain.clone(), lane: self.lane }
    }
}

impl<D: Deref<Target = Drain>> Drop for RequestGuard<D> {
    fn drop(&mut self) {
        self.drain.lanes[self.lane % LANES].0.fetch_sub(1, Ordering::SeqCst);
        if self.drain.is_closed.load(Ordering::SeqCst) {
            // With the lock: a change that counted this request before sleeps by now, and wakes.
            let _leaving = locked(&self.drain.leaving);
            self.drain.left.notify_all();
        }
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        self.drain.is_closed.store(false, Ordering::SeqCst);
    }
}

fn locked(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
