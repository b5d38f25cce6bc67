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
/// A lane has one counter for even epochs and one for odd ones.
const COUNTERS: usize = 2 * LANES;

#[derive(Debug, Default)]
pub(crate) struct Drain {
    counters: [Counter; COUNTERS],
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

/// Requests in flight, on a cache line that holds nothing else. The two of a lane lie side by side, as
/// processors fetch lines.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

/// Held by one request from its first lookup to the end of its I/O; `D` is a reference to the drain
/// or keeps it alive.
#[derive(Debug)]
pub(crate) struct RequestGuard<D: Deref<Target = Drain>> {
    drain: D,
    /// The counter that it is counted in.
    counter: usize,
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
    #[inline]
    pub(crate) fn enter(&self) -> RequestGuard<&Self> {
        RequestGuard::enter(self)
    }

    /// Whether more than one request is in flight, or was a moment ago.
    pub(crate) fn is_shared(&self) -> bool {
        self.counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum::<usize>() > 1
    }

    /// Whether a request is in flight, or was a moment ago.
    pub(crate) fn any(&self) -> bool {
        self.counters.iter().any(|counter| counter.0.load(Ordering::SeqCst) > 0)
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

    /// Wakes a change that waits for requests to end.
    #[cold]
    fn wake(&self) {
        // With the lock: a change that counted this request before sleeps by now, and wakes.
        let _leaving = locked(&self.leaving);
        self.left.notify_all();
    }

    /// Begins an epoch, if all requests of the one before this have ended.
    fn turn(&self) -> bool {
        let _turning = locked(&self.turning);
        let before = 1 - parity_of(self.state.load(Ordering::SeqCst));
        let mut counters = self.counters.iter().skip(before).step_by(2);
        if counters.any(|counter| counter.0.load(Ordering::SeqCst) > 0) {
            return false;
        }
        self.state.fetch_add(EPOCH, Ordering::SeqCst);
        true
    }
}

impl<D: Deref<Target = Drain> + Clone> RequestGuard<D> {
    /// As [`Drain::enter`].
    #[inline]
    pub(crate) fn enter(drain: D) -> Self {
        match Self::count(drain) {
            Ok(guard) => guard,
            Err(outdated) => outdated.enter_anew(),
        }
    }

    /// As [`Drain::enter`]; none instead of waiting.
    #[inline]
    pub(crate) fn try_enter(drain: D) -> Option<Self> {
        Self::count(drain).map_or_else(Self::count_anew, Some)
    }

    /// Counts a request of the present epoch, and fails with it if that is over by then, or closed.
    #[inline]
    fn count(drain: D) -> Result<Self, Self> {
        // As if open: what it finds after it has counted itself is not that, then.
        let state = drain.state.load(Ordering::SeqCst) & !CLOSED;
        let guard = Self::in_epoch_of(state, drain);
        if guard.drain.state.load(Ordering::SeqCst) == state { Ok(guard) } else { Err(guard) }
    }

    /// Counts itself in the epoch that is now; none while the lanes are closed. One that began meanwhile
    /// may have found nobody counted, so this request is not of the epoch before it.
    #[cold]
    fn count_anew(self) -> Option<Self> {
        let mut outdated = self;
        loop {
            let drain = outdated.drain.clone();
            drop(outdated);
            if drain.state.load(Ordering::SeqCst) & CLOSED != 0 {
                return None;
            }
            match Self::count(drain) {
                Ok(guard) => return Some(guard),
                Err(guard) => outdated = guard,
            }
        }
    }

    /// As [`RequestGuard::count_anew`], waiting for a change that closes the lanes.
    #[cold]
    fn enter_anew(self) -> Self {
        let drain = self.drain.clone();
        let mut entered = self.count_anew();
        loop {
            if let Some(guard) = entered {
                return guard;
            }
            drop(locked(&drain.change));
            entered = Self::try_enter(drain.clone());
        }
    }

    #[inline]
    fn in_epoch_of(state: usize, drain: D) -> Self {
        let counter = 2 * (thread_number() % LANES) + parity_of(state);
        drain.counters[counter % COUNTERS].0.fetch_add(1, Ordering::SeqCst);
        Self { drain, counter }
    }

    /// One guard more for the same request, for a part of it that may end later. Does not wait: a
    /// change that waits for the one waits for both. In the same counter, since a change that looks at
    /// them one after the other could miss a request that moves between them.
    pub(crate) fn again(&self) -> Self {
        self.drain.counters[self.counter % COUNTERS].0.fetch_add(1, Ordering::SeqCst);
        Self { drain: self.drain.clone(), counter: self.counter }
    }
}

impl<D: Deref<Target = Drain>> Drop for RequestGuard<D> {
    fn drop(&mut self) {
        self.drain.counters[self.counter % COUNTERS].0.fetch_sub(1, Ordering::SeqCst);
        if self.drain.state.load(Ordering::SeqCst) & CLOSED != 0 {
            self.drain.wake();
        }
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        self.drain.state.fetch_and(!CLOSED, Ordering::SeqCst);
    }
}

/// Of the epoch: 0 or 1.
fn parity_of(state: usize) -> usize {
    (state / EPOCH) & 1
}

fn locked(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
