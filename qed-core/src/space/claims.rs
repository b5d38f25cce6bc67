//! The in-flight claims: which guest clusters are being allocated right now.
//!
//! Two allocating writes to one cluster meet here; writes to different clusters never wait for each
//! other. A claim is held across the data I/O of its owner, the mutex is not.

use std::ops::{Deref, Range};
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<Held>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// Ranges of guest cluster numbers, few at a time: one per allocating write in flight.
    ranges: Vec<Range<u64>>,
    /// Requests that wait for a range; waking nobody would still cost a system call.
    waiting: usize,
}

/// Whether a claim waits for another that has some of its clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// The right to allocate a range of guest clusters, until dropped; `O` is a reference to the owner
/// or keeps it alive.
#[derive(Debug)]
pub(crate) struct Claim<O: Deref<Target = Claims>> {
    owner: O,
    range: Range<u64>,
}

impl Claims {
    /// Claims `range`, which no other claim overlaps; else waits for that, or claims nothing.
    ///
    /// A thread that waits holds no claim, so waiting cannot form a cycle.
    fn take(&self, range: Range<u64>, wait: Wait) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.ranges.iter().any(|other| other.start < range.end && range.start < other.end) {
            if wait == Wait::No {
                return false;
            }
            held.waiting += 1;
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
            held.waiting -= 1;
        }
        held.ranges.push(range);
        true
    }

    /// Replaces one claimed range, or removes it, and wakes the threads that wait.
    fn change(&self, from: &Range<u64>, to: Option<Range<u64>>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = held.ranges.iter().position(|range| range == from) {
            match to {
                Some(to) => held.ranges[index] = to,
                None => drop(held.ranges.swap_remove(index)),
            }
        }
        if held.waiting > 0 {
            self.released.notify_all();
        }
    }
}

impl<O: Deref<Target = Claims>> Claim<O> {
    /// Claims `range`, which no other claim overlaps; else waits for that, or claims nothing.
    pub(crate) fn take(owner: O, range: Range<u64>, wait: Wait) -> Option<Self> {
        owner.take(range.clone(), wait).then(|| Self { owner, range })
    }

    /// Gives back all but the first `clusters` of the claimed range.
    pub(crate) fn shorten(&mut self, clusters: u64) {
        let end = self.range.start.saturating_add(clusters).min(self.range.end);
        let shorter = self.range.start..end;
        self.owner.change(&self.range, Some(shorter.clone()));
        self.range = shorter;
    }
}

impl<O: Deref<Target = Claims>> Drop for Claim<O> {
    fn drop(&mut self) {
        self.owner.change(&self.range, None);
    }
}
