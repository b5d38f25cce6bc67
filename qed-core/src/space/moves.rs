//! Guest clusters whose data is about to get another place.
//!
//! A request that is about to change one in place takes its mark away before it looks the place up, and
//! the move gives up: no request waits for a move. A mark that was set when all requests in flight had
//! ended since keeps the data as it is, until the move has published the new place in one step with the
//! look at the mark. Knows no data and no tables.

use std::ops::Range;

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// Whether anything is marked: what each write asks.
    any: AtomicBool,
    marks: Mutex<Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    /// Numbers of guest clusters, each range with the number of its mark.
    ranges: Vec<(Mark, Range<u64>)>,
    next: u64,
}

/// One mark: another move may mark the same clusters later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Moves {
    /// Marks clusters.
    pub(crate) fn mark(&self, clusters: Range<u64>) -> Mark {
        let mut marks = self.marks();
        let mark = Mark(marks.next);
        marks.next += 1;
        marks.ranges.push((mark, clusters));
        self.any.store(true, Ordering::SeqCst);
        mark
    }

    /// Takes the marks away that any of the clusters has. A request does before it looks up where they lie.
    // spec: QED-FREE-08
    #[inline]
    pub(crate) fn turn_away(&self, clusters: impl FnOnce() -> Range<u64>) {
        // A request of before the mark is waited for; one that began after it sees it here.
        if self.any.load(Ordering::SeqCst) {
            let clusters = clusters();
            let clear =
                |other: &Range<u64>| other.end <= clusters.start || clusters.end <= other.start;
            self.keep(|(_, other)| clear(other));
        }
    }

    /// Takes a mark away, if it is there.
    pub(crate) fn unmark(&self, mark: Mark) {
        self.keep(|(other, _)| *other != mark);
    }

    /// Publishes the new place of clusters if they have their mark yet, which stays.
    pub(crate) fn publish_if_marked<R>(
        &self,
        mark: Mark,
        publish: impl FnOnce() -> R,
    ) -> Option<R> {
        let marks = self.marks();
        marks.ranges.iter().any(|(other, _)| *other == mark).then(publish)
    }

    #[cold]
    fn keep(&self, stays: impl FnMut(&(Mark, Range<u64>)) -> bool) {
        let mut marks = self.marks();
        marks.ranges.retain(stays);
        self.any.store(!marks.ranges.is_empty(), Ordering::SeqCst);
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
