//! What is committed together, and the queue in which batches wait for a leader.

use std::collections::VecDeque;
use std::mem;

use qed_spec::{ClusterCount, JOURNAL_RECORDS_PER_BLOCK, JournalRecord, JournalRing};

/// Records that apply all or none.
///
/// One without records asks for a flush only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they apply.
    pub records: Vec<JournalRecord>,
    /// Clusters that the image file has, those included that the records name.
    pub physical_size: ClusterCount,
    /// When the data that the records name is made durable.
    pub data: DataOrder,
}

/// When data is durable, as seen from the entry that names it.
// spec: QED-JRN-15
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataOrder {
    /// Before the entry: one more flush.
    First,
    /// With the entry. Only where an entry without its data reads as the guest had it before:
    /// fresh space that reads as zeros, for a guest cluster that read as zeros.
    Together,
}

/// A place in the queue: [`crate::Journal::commit`] waits until it is durable.
#[derive(Debug)]
#[must_use = "a batch is durable when the ticket was committed"]
pub struct Ticket(u64);

/// Batches in the order in which they were submitted.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Batch>,
    /// How many batches were ever submitted.
    submitted: u64,
    /// How many of them are durable.
    committed: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, batch: Batch) -> Ticket {
        self.waiting.push_back(batch);
        self.submitted += 1;
        Ticket(self.submitted)
    }

    pub(crate) fn is_durable(&self, ticket: &Ticket) -> bool {
        ticket.0 <= self.committed
    }

    /// Takes all that wait.
    pub(crate) fn take(&mut self) -> VecDeque<Batch> {
        mem::take(&mut self.waiting)
    }

    /// Puts back what was taken and is not durable, before what came since.
    pub(crate) fn put_back(&mut self, mut batches: VecDeque<Batch>) {
        batches.append(&mut self.waiting);
        self.waiting = batches;
    }

    /// The next `count` batches are durable.
    pub(crate) fn done(&mut self, count: usize) {
        self.committed += count as u64;
    }
}

/// Records that a commit takes.
pub(crate) fn max_records(ring: &JournalRing) -> usize {
    let blocks = usize::try_from(ring.max_commit_blocks()).expect("at most 256");
    blocks * JOURNAL_RECORDS_PER_BLOCK
}

/// How many of the first batches go together into one commit.
///
/// At least one: none is larger than a commit.
pub(crate) fn fitting(batches: &VecDeque<Batch>, max_records: usize) -> usize {
    let mut records = 0;
    let fits = |batch: &&Batch| {
        records += batch.records.len();
        records <= max_records
    };
    batches.iter().take_while(fits).count()
}
