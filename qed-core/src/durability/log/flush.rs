//! Flushes in journal mode: what is pending goes to the journal as one commit, and home later.
//!
//! Step names are those of docs/write-ordering.md.

use std::sync::atomic::Ordering;
use std::time::Instant;

use qed_journal::{Journal, JournalError, Owner, Ticket};
use qed_spec::ClusterCount;

use crate::durability::lock::{PanicWatch, Turn};
use crate::durability::log::records::batches;
use crate::durability::log::{ImageOwner, JournalKeeper};
use crate::error::{ImageError, IoAction};
use crate::image::Image;

/// A flush that has given its entries to the journal.
pub(crate) struct SubmittedFlush {
    ticket: Ticket,
    /// The number of its last batch.
    batch: u64,
}

/// What a writable image in journal mode works with.
#[derive(Clone, Copy)]
pub(crate) struct OpenJournal<'a> {
    journal: &'a Journal,
    keeper: &'a JournalKeeper,
}

impl Image {
    /// The journal of an image in journal mode.
    pub(crate) fn journal(&self) -> Option<OpenJournal<'_>> {
        let journal = self.view.tables.journal()?;
        Some(OpenJournal { journal, keeper: self.writer.keeper.as_ref()? })
    }

    /// Gives what is pending to the journal; cheap, without I/O but for a header in doubt.
    pub(crate) fn submit(
        &self,
        turn: &mut Turn,
        OpenJournal { journal, keeper }: OpenJournal<'_>,
    ) -> Result<SubmittedFlush, ImageError> {
        self.check_writable()?;
        self.settle_header(turn)?;
        let pending = self.take_pending();
        if !pending.is_empty() {
            turn.wait_anew();
        }
        let geometry = self.view.tables.geometry;
        // Taken after the entries: it covers all that they name.
        let end = self.writer.alloc.end_bytes() >> geometry.cluster_bits();
        let l1_offset = self.view.header().fields().l1_table_offset;
        let size = ClusterCount::new(end);
        let mut submitted = keeper.submitted();
        let mut last = None;
        for batch in batches(&pending, l1_offset, geometry, size, journal.max_records()) {
            last =
                Some(journal.submit(batch).expect("batches keep to the most that a commit takes"));
        }
        submitted.batches += 1;
        let batch = submitted.batches;
        let slices = pending.slices.iter().map(|slice| slice.number).collect();
        submitted.slices.push_back((batch, slices));
        Ok(SubmittedFlush { ticket: last.expect("there is one batch at least"), batch })
    }

    /// Makes a submitted flush durable, together with those that other threads submitted.
    // spec: QED-JRN-18
    pub(crate) fn commit(
        &self,
        open: OpenJournal<'_>,
        flush: &SubmittedFlush,
    ) -> Result<(), ImageError> {
        self.with_journal(open, |journal, owner| journal.commit(&flush.ticket, owner))?;
        let mut submitted = open.keeper.submitted();
        let durable = submitted.slices.partition_point(|(batch, _)| *batch <= flush.batch);
        for (_, numbers) in submitted.slices.drain(..durable) {
            self.view.tables.cache.written(numbers);
        }
        Ok(())
    }

    /// Step "empty log": all that was ever flushed is in the tables, durably, and no record is
    /// left. The caller has the turn and has flushed, so none comes before it lets go of it.
    // spec: QED-JRN-29
    pub(crate) fn empty_log(&self) -> Result<(), ImageError> {
        self.journal().map_or(Ok(()), |open| self.with_journal(open, Journal::checkpoint))
    }

    /// Empties the log and clears JOURNAL_ACTIVE, which the next flush makes durable.
    pub(crate) fn quiesce(&self, open: OpenJournal<'_>) -> Result<(), ImageError> {
        self.with_journal(open, Journal::quiesce)
    }

    /// As [`Image::maintain`]: a checkpoint once the ring is half full; after five seconds a flush
    /// of what is pending, after five more without a write the journal is emptied. The turn is not
    /// held meanwhile, so that guest flushes go on.
    pub(crate) fn maintain_journal(
        &self,
        open: OpenJournal<'_>,
        now: Instant,
    ) -> Result<Option<Instant>, ImageError> {
        self.check_writable()?;
        let usage = open.journal.usage();
        if usage.used_blocks * 2 >= usage.blocks {
            self.with_journal(open, Journal::checkpoint)?;
        }
        let is_settled =
            || self.has_nothing_pending() && !open.journal.usage().active && !self.is_in_doubt();
        let mut turn = self.writer.turn();
        if is_settled() {
            turn.wait_anew();
            return Ok(None);
        }
        let due = turn.due(now);
        if now < due {
            return Ok(Some(due));
        }
        if self.has_nothing_pending() && !self.is_in_doubt() {
            drop(turn);
            self.quiesce(open)?;
            self.sync_storage()?;
            turn = self.writer.turn();
        } else {
            let flush = self.submit(&mut turn, open)?;
            drop(turn);
            self.commit(open, &flush)?;
            turn = self.writer.turn();
        }
        turn.wait_anew();
        Ok((!is_settled()).then(|| turn.due(now)))
    }

    /// Rewrites sector 0 if the file may hold another one since a write of it failed.
    fn settle_header(&self, turn: &mut Turn) -> Result<(), ImageError> {
        let mut sector = self.view.sector();
        if !sector.is_in_doubt() {
            return Ok(());
        }
        sector.write_fields(&*self.view.tables.storage, |_| ())?;
        drop(sector);
        self.sync(turn)
    }

    /// Lets the journal work, with the image as its owner; what ends its writing ends the image's.
    fn with_journal(
        &self,
        OpenJournal { journal, keeper }: OpenJournal<'_>,
        work: impl FnOnce(&Journal, &dyn Owner) -> Result<(), JournalError>,
    ) -> Result<(), ImageError> {
        let _watch = PanicWatch::new(&self.writer.stopped);
        let owner = ImageOwner {
            storage: &*self.view.tables.storage,
            sector: &self.view.sector,
            superblock: &keeper.superblock,
        };
        work(journal, &owner).map_err(|error| self.journal_failed(error))
    }

    // spec: QED-JRN-27
    fn journal_failed(&self, error: JournalError) -> ImageError {
        if let JournalError::Home { at, source } = error {
            return ImageError::io(IoAction::WriteTable, at)(source);
        }
        self.writer.stopped.store(true, Ordering::Release);
        match error {
            JournalError::Failed => ImageError::WritesStopped,
            error => ImageError::Journal(error),
        }
    }
}
