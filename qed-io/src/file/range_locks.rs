//! Exclusive ranges of one file for the threads of this process, first come first served.
//!
//! Owns which transfer waits for which; knows nothing of files. A direct write reads and rewrites whole
//! sectors, so two writers of one sector must not meet there.

use std::ops::{Deref, Range};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The ranges that are held or waited for.
#[derive(Debug, Default)]
pub(super) struct RangeLocks {
    queue: Mutex<Queue>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    next_ticket: u64,
    /// Threads that wait; waking nobody would still cost a system call.
    waiting: usize,
    /// In the order of their tickets: holders and waiters alike.
    entries: Vec<(u64, Range<u64>)>,
}

impl RangeLocks {
    /// As [`RangeGuard::hold`], for as long as the locks are borrowed.
    pub(super) fn hold(&self, range: Range<u64>) -> RangeGuard<&Self> {
        RangeGuard::hold(self, range)
    }

    // The queue is whole whenever its mutex is free, so poison means nothing.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add(&mut self, range: Range<u64>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.entries.push((ticket, range));
        ticket
    }

    fn must_wait(&self, ticket: u64) -> bool {
        let mine = self.entries.iter().position(|entry| entry.0 == ticket);
        let (earlier, rest) = self.entries.split_at(mine.unwrap_or(0));
        rest.first()
            .is_some_and(|(_, range)| earlier.iter().any(|(_, other)| overlap(range, other)))
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A held range; gives it back when dropped. `L` is a reference to the locks or keeps them alive.
#[derive(Debug)]
pub(super) struct RangeGuard<L: Deref<Target = RangeLocks>> {
    locks: L,
    ticket: u64,
}

impl<L: Deref<Target = RangeLocks>> RangeGuard<L> {
    /// Waits until no earlier caller holds or waits for any of `range`, and holds it then.
    pub(super) fn hold(locks: L, range: Range<u64>) -> Self {
        let mut queue = locks.queue();
        let ticket = queue.add(range);
        while queue.must_wait(ticket) {
            queue.waiting += 1;
            queue = locks.left.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
        drop(queue);
        Self { locks, ticket }
    }

    /// As [`RangeGuard::hold`]; none if that would wait.
    #[cfg(feature = "io_uring")]
    pub(super) fn try_hold(locks: L, range: Range<u64>) -> Option<Self> {
        let mut queue = locks.queue();
        if queue.entries.iter().any(|(_, other)| overlap(&range, other)) {
            return None;
        }
        let ticket = queue.add(range);
        drop(queue);
        Some(Self { locks, ticket })
    }
}

impl<L: Deref<Target = RangeLocks>> Drop for RangeGuard<L> {
    fn drop(&mut self) {
        let mut queue = self.locks.queue();
        queue.entries.retain(|entry| entry.0 != self.ticket);
        if queue.waiting > 0 {
            self.locks.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues `ranges` as tickets 0, 1, ..; which of them would have to wait.
    fn waiting(ranges: &[Range<u64>]) -> Vec<bool> {
        let entries: Vec<_> = (0..).zip(ranges.iter().cloned()).collect();
        let queue = Queue { next_ticket: entries.len() as u64, waiting: 0, entries };
        (0..queue.next_ticket).map(|ticket| queue.must_wait(ticket)).collect()
    }

    #[test]
    fn only_those_wait_who_overlap_an_earlier_one() {
        assert_eq!(waiting(&[0..5, 5..9, 9..12]), [false, false, false]);
        assert_eq!(waiting(&[0..6, 5..9]), [false, true]);
        assert_eq!(waiting(&[5..9, 0..6]), [false, true]);
        assert_eq!(waiting(&[0..1, 0..u64::MAX, 7..9]), [false, true, true]);
    }

    #[test]
    fn threads_on_one_range_take_turns() {
        let locks = RangeLocks::default();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for start in 0..200 {
                        let _held = locks.hold(start % 3..10);
                        let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0, "two threads hold overlapping ranges");
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(locks.queue().entries.is_empty());
    }
}
