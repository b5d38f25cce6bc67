//! The in-flight claim: who is allocating which guest clusters right now.
//!
//! Two allocating writes to one cluster meet here; writes to different clusters never wait for each
//! other. A claim is held across the data I/O of its owner, the mutex is not.

use std::ops::{Deref, Range};
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct InFlight {
    claims: Mutex<Claims>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Claims {
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
pub(crate) struct Claim<O: Deref<Target = InFlight>> {
    owner: O,
    range: Range<u64>,
}

impl InFlight {
    /// Claims `range`, which no other claim overlaps; else waits for that, or claims nothing.
    ///
    /// Who waits holds no claim, so waiting cannot form a cycle.
    fn take(&self, range: Range<u64>, wait: Wait) -> bool {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        while claims.ranges.iter().any(|other| other.start < range.end && range.start < other.end) {
            if wait == Wait::No {
                return false;
            }
            claims.waiting += 1;
            claims = self.released.wait(claims).unwrap_or_else(PoisonError::into_inner);
            claims.waiting -= 1;
        }
        claims.ranges.push(range);
        true
    }

    /// Replaces one claimed range, or removes it, and wakes those who wait.
    fn change(&self, from: &Range<u64>, to: Option<Range<u64>>) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = claims.ranges.iter().position(|range| range == from) {
            match to {
                Some(to) => claims.ranges[index] = to,
                None => drop(claims.ranges.swap_remove(index)),
            }
        }
        if claims.waiting > 0 {
            self.released.notify_all();
        }
    }
}

impl<O: Deref<Target = InFlight>> Claim<O> {
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

impl<O: Deref<Target = InFlight>> Drop for Claim<O> {
    fn drop(&mut self) {
        self.owner.change(&self.range, None);
    }
}
