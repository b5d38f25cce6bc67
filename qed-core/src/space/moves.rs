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
    /// Numbers of guest clusters; ranges do not overlap.
    marked: Mutex<Vec<Range<u64>>>,
}

impl Moves {
    /// Marks clusters, of which none is.
    pub(crate) fn mark(&self, clusters: Range<u64>) {
        let mut marked = self.marked();
        marked.push(clusters);
        self.any.store(true, Ordering::SeqCst);
    }

    /// Takes the marks away that any of the clusters has. A request does before it looks up where they lie.
    // spec: QED-FREE-08
    #[inline]
    pub(crate) fn turn_away(&self, clusters: impl FnOnce() -> Range<u64>) {
        // A request of before the mark is waited for; one that began after it sees it here.
        if self.any.load(Ordering::Relaxed) {
            self.unmark(&clusters());
        }
    }

    /// Takes the marks away that any of the clusters has.
    #[cold]
    pub(crate) fn unmark(&self, clusters: &Range<u64>) {
        let mut marked = self.marked();
        marked.retain(|other| other.end <= clusters.start || clusters.end <= other.start);
        self.any.store(!marked.is_empty(), Ordering::SeqCst);
    }

    /// Publishes the new place of clusters if they have the mark that they got, which stays.
    pub(crate) fn publish_if_marked<R>(
        &self,
        clusters: &Range<u64>,
        publish: impl FnOnce() -> R,
    ) -> Option<R> {
        let marked = self.marked();
        marked.contains(clusters).then(publish)
    }

    fn marked(&self) -> MutexGuard<'_, Vec<Range<u64>>> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
