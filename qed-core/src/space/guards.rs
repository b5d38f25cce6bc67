//! Waiting for requests to end: every request holds a guard, a change of the image's shape waits, and
//! space that a request may still use is not given to another.
//!
//! A guard protects no data and is not a lock that two requests could contend for: any number of
//! requests hold one at the same time, across their data I/O. It keeps the clusters that a lookup
//! found from being given up before the I/O on them ends. Entering takes no lock and, since each
//! thread counts in a lane of its own, no cache line that another processor wants.
//!
//! A request counts itself, then looks whether a change is closing the lanes; a change closes them,
//! then looks whether anybody is counted. All four are sequentially consistent, so one of the two
//! sees the other. Requests are counted by epoch, those of two at a time, and an epoch begins when no
//! request of the one before the last is left: so one that looked a mapping up before a
//! [`Moment`] has ended when two epochs have begun since. `tests/interleavings` goes through the orders.

use std::ops::Deref;

use crate::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError, thread_number};

/// More than the processors that most machines have; two threads in one lane only share its line.
const LANES: usize = 16;

/// In the state of a drain: a change has begun or waits for requests to end.
const CLOSED: usize = 1;
/// One epoch in the state of a drain.
const EPOCH: usize = 2;

#[derive(Debug, Default)]
pub(crate) struct Drain {
    lanes: [Lane; LANES],
    /// The number of the epoch, and whether the lanes are closed: one word, so that a request that
    /// counted itself sees both at once.
    state: AtomicUsize,
    /// Held by a change for its whole length.
    change: Mutex<()>,
    /// Held while the next epoch begins.
    turning: Mutex<()>,
    /// What a change that waits for requests sleeps on.
    leaving: Mutex<()>,
    left: Condvar,
}

/// Requests in flight of even epochs and of odd ones, on cache lines that hold nothing else.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane([AtomicUsize; 2]);

/// Held by one request from its first lookup to the end of its I/O; `D` is a reference to the drain
/// or keeps it alive.
#[derive(Debug)]
pub(crate) struct RequestGuard<D: Deref<Target = Drain>> {
    drain: D,
    lane: usize,
    /// Of its epoch: 0 or 1.
    parity: usize,
}

/// Held while no request is in flight.
#[derive(Debug)]
pub(crate) struct Drained<'a> {
    drain: &'a Drain,
    #[expect(dead_code, reason = "held, never read")]
    change: MutexGuard<'a, ()>,
}

/// A moment in the life of an image; see [`Drain::has_passed`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The state when it was.
    epoch: usize,
}

impl Drain {
    /// Begins a request; waits only while the image changes its shape. Never taken twice by one
    /// request, since a waiting [`Drain::drain`] goes first.
    pub(crate) fn enter(&self) -> RequestGuard<&Self> {
        RequestGuard::enter(self)
    }

    /// Whether more than one request is in flight, or was a moment ago.
    pub(crate) fn is_shared(&self) -> bool {
        self.counts(Ordering::Relaxed).sum::<usize>() > 1
    }

    /// Whether a request is in flight, or was a moment ago.
    pub(crate) fn any(&self) -> bool {
        self.counts(Ordering::SeqCst).any(|count| count > 0)
    }

    /// Holds new requests back and waits for those in flight.
    pub(crate) fn drain(&self) -> Drained<'_> {
        let change = locked(&self.change);
        self.state.fetch_or(CLOSED, Ordering::SeqCst);
        let mut leaving = locked(&self.leaving);
        while self.any() {
            leaving = self.left.wait(leaving).unwrap_or_else(PoisonError::into_inner);
        }
        Drained { drain: self, change }
    }

    /// This moment. Requests that begin from now on see what the caller published before.
    pub(crate) fn moment(&self) -> Moment {
        Moment { epoch: self.state.load(Ordering::SeqCst) & !CLOSED }
    }

    /// Whether all requests have ended that were in flight at a moment. Waits for none: a caller that
    /// hears no asks again.
    // spec: QED-FREE-03
    pub(crate) fn has_passed(&self, moment: Moment) -> bool {
        let begun = || (self.moment().epoch.wrapping_sub(moment.epoch)) / EPOCH;
        while begun() < 2 {
            if !self.turn() {
                return false;
            }
        }
        true
    }

    /// Begins an epoch, if all requests of the one before this have ended.
    fn turn(&self) -> bool {
        let _turning = locked(&self.turning);
        let before = 1 - parity_of(self.state.load(Ordering::SeqCst));
        if self.lanes.iter().any(|lane| lane.0[before].load(Ordering::SeqCst) > 0) {
            return false;
        }
        self.state.fetch_add(EPOCH, Ordering::SeqCst);
        true
    }

    fn counts(&self, ordering: Ordering) -> impl Iterator<Item = usize> {
        self.lanes.iter().flat_map(move |lane| lane.0.iter().map(move |count| count.load(ordering)))
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
        let mut state = drain.state.load(Ordering::SeqCst);
        loop {
            let parity = parity_of(state);
            drain.lanes[lane].0[parity].fetch_add(1, Ordering::SeqCst);
            let guard = Self { drain: drain.clone(), lane, parity };
            let now = guard.drain.state.load(Ordering::SeqCst);
            if now & CLOSED != 0 {
                return None;
            }
            if now == state {
                return Some(guard);
            }
            // An epoch has begun meanwhile, and may have found nobody counted: this one is not of it.
            state = now;
        }
    }

    /// One guard more for the same request, for a part of it that may end later. Does not wait: a
    /// change that waits for the one waits for both. In the same lane, since a change that looks at
    /// the lanes one after the other could miss a request that moves between them.
    pub(crate) fn again(&self) -> Self {
        let Self { lane, parity, .. } = *self;
        self.drain.lanes[lane % LANES].0[parity & 1].fetch_add(1, Ordering::SeqCst);
        Self { drain: self.drain.clone(), lane, parity }
    }
}

impl<D: Deref<Target = Drain>> Drop for RequestGuard<D> {
    fn drop(&mut self) {
        let lane = &self.drain.lanes[self.lane % LANES];
        lane.0[self.parity & 1].fetch_sub(1, Ordering::SeqCst);
        if self.drain.state.load(Ordering::SeqCst) & CLOSED != 0 {
            // With the lock: a change that counted this request before sleeps by now, and wakes.
            let _leaving = locked(&self.drain.leaving);
            self.drain.left.notify_all();
        }
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        self.drain.state.fetch_and(!CLOSED, Ordering::SeqCst);
    }
}

fn parity_of(state: usize) -> usize {
    (state / EPOCH) & 1
}

fn locked(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
