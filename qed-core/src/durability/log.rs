//! Journal mode: what is pending goes to the journal as one commit, and home later.
//!
//! Opening is in `log/open.rs`, what a crash left in `log/recovery.rs`. How a ring is written is
//! qed-journal's. Step names are those of docs/write-ordering.md.

pub(crate) mod judge;
pub(crate) mod open;
pub(crate) mod owner;
pub(crate) mod records;
pub(crate) mod recovery;
pub(crate) mod replayed;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qed_journal::{Journal, JournalAction, JournalError, Owner, Ticket};
use qed_spec::ClusterCount;

use crate::change::{Batch, Logged};
use crate::durability::lock::{Cx, Metadata, MetadataLock};
use crate::durability::log::owner::HeadOwner;
use crate::durability::log::records::batches;
use crate::error::{ImageError, IoAction};
use crate::space::host_set::HostSet;

/// The journal of an open image.
#[derive(Debug)]
pub(crate) struct Log {
    /// The map reads through it, too.
    journal: Arc<Journal>,
    submitted: Mutex<Submitted>,
}

/// What was given to the journal and may not be committed yet.
#[derive(Debug, Default)]
struct Submitted {
    /// How many batches were submitted so far.
    batches: u64,
    /// Those that no commit has returned for.
    pending: VecDeque<Submission>,
}

/// One batch that was given to the journal.
#[derive(Debug)]
struct Submission {
    number: u64,
    /// The slices of which it has entries.
    slices: Vec<u64>,
    /// Clusters that nothing names any more once it is committed.
    let_go: HostSet,
    /// Where it ends in the pending log.
    logged: Logged,
}

/// A flush that has given its entries to the journal.
pub(super) struct SubmittedFlush {
    ticket: Ticket,
    /// The number of its last batch.
    batch: u64,
}

impl Log {
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        Self { journal, submitted: Mutex::default() }
    }

    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Gives what is pending to the journal; cheap, without I/O but for a header in doubt, and on a block
    /// device for an end to record.
    pub(super) fn submit(
        &self,
        metadata: &mut Metadata,
        cx: Cx<'_>,
    ) -> Result<SubmittedFlush, ImageError> {
        cx.head.writing().check()?;
        settle_header(cx)?;
        let pending = cx.pending.take(cx.map, &cx.space.alloc.free);
        if !pending.is_empty() {
            metadata.wait_anew();
        }
        if let Err(error) = record_end(metadata, cx) {
            cx.pending.put_back(pending, cx.map, &cx.space.alloc.free);
            return Err(error);
        }
        // Taken after the entries: it covers all that they name.
        let size = ClusterCount::new(cx.space.alloc.end.clusters());
        let mut submitted = self.submitted();
        let mut last = None;
        let max_records = self.journal.max_records();
        for batch in batches(&pending, cx.map.l1.offset(), cx.map.geometry, size, max_records) {
            let ticket = self.journal.submit(batch);
            last = Some(ticket.expect("batches keep to the most that a commit takes"));
        }
        submitted.batches += 1;
        let batch = submitted.batches;
        let slices = pending.slices.iter().map(|slice| slice.number).collect();
        let Batch { let_go, logged, .. } = pending;
        let submission = Submission { number: batch, slices, let_go, logged };
        submitted.pending.push_back(submission);
        Ok(SubmittedFlush { ticket: last.expect("there is one batch at least"), batch })
    }

    /// Makes a submitted flush durable, together with those that other threads submitted.
    // spec: QED-JRN-18
    pub(super) fn commit(&self, flush: &SubmittedFlush, cx: Cx<'_>) -> Result<(), ImageError> {
        self.work(cx, |journal, owner| journal.commit(&flush.ticket, owner))?;
        let mut submitted = self.submitted();
        let durable = submitted.pending.partition_point(|batch| batch.number <= flush.batch);
        for Submission { slices, let_go, logged, .. } in submitted.pending.drain(..durable) {
            cx.map.cache.written(slices);
            cx.pending.is_durable(logged);
            cx.space.is_durable(let_go);
        }
        Ok(())
    }

    /// Step "empty log": all that was ever flushed is in the tables, durably, and no record is left.
    // spec: QED-JRN-29
    pub(super) fn drain(&self, cx: Cx<'_>) -> Result<(), ImageError> {
        self.work(cx, Journal::checkpoint)
    }

    /// Empties the log and clears JOURNAL_ACTIVE, which the next flush makes durable.
    pub(super) fn mark_clean(&self, cx: Cx<'_>) -> Result<(), ImageError> {
        self.work(cx, Journal::quiesce)
    }

    /// As [`crate::Image::maintain`]: a checkpoint once the ring is half full; after five seconds a
    /// flush of what is pending, after five more without a write the journal is emptied. The metadata
    /// lock is not held meanwhile, so that guest flushes go on.
    pub(super) fn maintain(
        &self,
        lock: &MetadataLock,
        now: Instant,
        cx: Cx<'_>,
    ) -> Result<Option<Instant>, ImageError> {
        cx.head.writing().check()?;
        let usage = self.journal.usage();
        if usage.used_blocks * 2 >= usage.blocks {
            self.drain(cx)?;
        }
        let is_written =
            || self.is_committed() && cx.pending.is_empty(cx.map) && !cx.head.is_in_doubt();
        let is_settled = || is_written() && !self.journal.usage().active;
        let mut metadata = lock.lock(cx.head);
        if is_settled() {
            metadata.wait_anew();
            return Ok(None);
        }
        let due = metadata.due(now);
        if now < due {
            return Ok(Some(due));
        }
        if is_written() {
            drop(metadata);
            self.mark_clean(cx)?;
            cx.head.sync()?;
            metadata = lock.lock(cx.head);
        } else {
            let flush = self.submit(&mut metadata, cx)?;
            drop(metadata);
            self.commit(&flush, cx)?;
            metadata = lock.lock(cx.head);
        }
        metadata.wait_anew();
        Ok((!is_settled()).then(|| metadata.due(now)))
    }

    /// Whether all that was submitted is committed; a commit that failed is tried again.
    pub(super) fn is_committed(&self) -> bool {
        self.submitted().pending.is_empty()
    }

    /// Lets the journal work, with the head as its owner; what ends its writing ends the image's.
    fn work(
        &self,
        cx: Cx<'_>,
        work: impl FnOnce(&Journal, &dyn Owner) -> Result<(), JournalError>,
    ) -> Result<(), ImageError> {
        let _watch = cx.head.writing().watch();
        // Step "look".
        cx.head.still_ours()?;
        work(&self.journal, &HeadOwner(cx.head)).map_err(|error| failed(error, cx))
    }

    fn submitted(&self) -> MutexGuard<'_, Submitted> {
        self.submitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Step "record end", durable before any commit has an entry of what was handed out.
// spec: QED-DEV-01
fn record_end(metadata: &mut Metadata, cx: Cx<'_>) -> Result<(), ImageError> {
    if metadata.record_end(cx)? {
        cx.head.sync()?;
        metadata.end_is_durable(cx)?;
    }
    Ok(())
}

/// Rewrites sector 0 if the file may hold another one since a write of it failed.
fn settle_header(cx: Cx<'_>) -> Result<(), ImageError> {
    if !cx.head.is_in_doubt() {
        return Ok(());
    }
    cx.head.update(|_| ())?;
    cx.head.sync()
}

// spec: QED-JRN-27
fn failed(error: JournalError, cx: Cx<'_>) -> ImageError {
    if let JournalError::Home { at, source } = error {
        return ImageError::io(IoAction::WriteTable, at)(source);
    }
    cx.head.writing().stop();
    if let JournalError::Fatal { action: JournalAction::Flush, .. } = &error {
        cx.head.flush_failed();
    }
    match error {
        JournalError::Failed => ImageError::WritesStopped,
        error => ImageError::Journal(error),
    }
}
