//! Making writes durable: which metadata goes to the file when, and the life of NEED_CHECK.
//!
//! Step names are those of docs/write-ordering.md.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qed_spec::{Features, HostOffset};

use crate::error::{ImageError, IoAction};
use crate::image::Image;
use crate::l2_cache::DirtySlice;

/// Metadata that is not in the file stays so no longer than this, if [`Image::maintain`] is called.
const MAINTAIN_AFTER: Duration = Duration::from_secs(5);

/// What is remembered from one turn at writing tables and header to the next.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// When [`Image::maintain`] first found something to do, if no tables were written since.
    waiting_since: Option<Instant>,
}

/// What one flush is about to write.
#[derive(Debug)]
struct Batch {
    slices: Vec<DirtySlice>,
    /// L1 slots and their values.
    l1: BTreeMap<u64, u64>,
}

impl Image {
    /// Makes every write that completed before this call durable.
    ///
    /// # Errors
    /// A failed write of a table or of the header can be tried again. After a failed flush of the
    /// storage nothing is known of what is durable: the image takes no more writes, see
    /// [`ImageError::WritesStopped`].
    // spec: QED-RW-07
    pub fn flush(&self) -> Result<(), ImageError> {
        self.flush_in_turn(&mut self.writer.turn())
    }

    /// Does what is due at `now` and returns when to call again; none when nothing is waiting, until
    /// the next write.
    ///
    /// Five seconds after it first found tables that are not in the file it flushes; when it found
    /// none written for five seconds it clears the mark that asks for a check. Call it from a timer:
    /// the library starts no threads.
    ///
    /// # Errors
    /// As [`Image::flush`]; what was due stays due.
    pub fn maintain(&self, now: Instant) -> Result<Option<Instant>, ImageError> {
        let mut turn = self.writer.turn();
        if self.is_settled() {
            turn.waiting_since = None;
            return Ok(None);
        }
        let due = *turn.waiting_since.get_or_insert(now) + MAINTAIN_AFTER;
        if now < due {
            return Ok(Some(due));
        }
        self.flush_in_turn(&mut turn)?;
        turn.waiting_since = (!self.is_settled()).then_some(now);
        Ok(turn.waiting_since.map(|since| since + MAINTAIN_AFTER))
    }

    /// Writes everything home, clears NEED_CHECK, cuts the file to its used length and flushes.
    pub(crate) fn settle(&self) -> Result<(), ImageError> {
        self.flush_in_turn(&mut self.writer.turn())?;
        self.set_need_check(false)?;
        let len = self.writer.alloc.trimmed_len();
        if self.writer.alloc.grew_past(len) {
            let cut = self.view.tables.storage.set_len(len);
            cut.map_err(ImageError::io(IoAction::Resize, HostOffset::new(len)))?;
            self.writer.alloc.restart(len);
        }
        self.sync()
    }

    /// A flush by the holder of the turn: no other thread writes tables or the header meanwhile.
    pub(crate) fn flush_in_turn(&self, turn: &mut Turn) -> Result<(), ImageError> {
        self.check_writable()?;
        let batch = self.take_batch();
        if batch.slices.is_empty() && batch.l1.is_empty() {
            // Step "unmark": whatever was written home is durable, or writing would have stopped.
            self.set_need_check(false)?;
            return self.sync();
        }
        turn.waiting_since = None;
        match self.write_batch(&batch) {
            Ok(()) => {
                self.view.tables.cache.written(&batch.slices);
                self.sync()
            }
            Err(error) => {
                self.view.tables.cache.not_written(&batch.slices);
                let mut pending = self.writer.pending_l1();
                for (slot, value) in batch.l1 {
                    pending.entry(slot).or_insert(value);
                }
                Err(error)
            }
        }
    }

    /// Copies what is pending. Slices first: a table is linked before it gets entries, so the L1
    /// slots taken afterwards cover every slice taken before.
    fn take_batch(&self) -> Batch {
        let slices = self.view.tables.cache.take_dirty();
        let l1 = std::mem::take(&mut *self.writer.pending_l1());
        Batch { slices, l1 }
    }

    /// Writes a batch home in the order that crash safety asks for.
    // spec: QED-RW-06, QED-CONS-02
    fn write_batch(&self, batch: &Batch) -> Result<(), ImageError> {
        // Step "mark": NEED_CHECK is durable before a table changes. With a backing file the data
        // flush already orders data, file length and link, so no mark is needed.
        let header_written =
            self.set_need_check(self.view.backing().is_none() || self.need_check())?;
        // Step "data first": data and file length are durable before an entry that names them.
        let data_first =
            self.view.backing().is_some() || batch.slices.iter().any(|slice| slice.copy.data_first);
        if header_written || data_first {
            self.sync()?;
        }
        // Step "link".
        let storage = &*self.view.tables.storage;
        for slice in &batch.slices {
            let home = slice.copy.home;
            storage
                .write_at(&slice.copy.bytes, home.get())
                .map_err(ImageError::io(IoAction::WriteTable, home))?;
        }
        for (slot, value) in &batch.l1 {
            self.view.tables.l1.write(storage, *slot, *value)?;
        }
        Ok(())
    }

    /// Flushes the storage; a failure ends all writing.
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        self.view.tables.storage.flush().map_err(|error| {
            self.writer.stopped.store(true, Ordering::Release);
            ImageError::io(IoAction::Flush, HostOffset::new(0))(error)
        })
    }

    /// Whether the file has all that it will have until the next write.
    fn is_settled(&self) -> bool {
        let sector = self.view.sector();
        let tables = &self.view.tables;
        let is_marked = sector.header().features().contains(Features::NEED_CHECK);
        let is_header_settled = (!is_marked || tables.is_corrupt()) && !sector.is_in_doubt();
        drop(sector);
        is_header_settled && tables.cache.is_clean() && self.writer.pending_l1().is_empty()
    }

    fn need_check(&self) -> bool {
        self.view.sector().header().features().contains(Features::NEED_CHECK)
    }

    /// Writes the header if the mark changes, or if the file may hold another header since a write
    /// of it failed; whether it did. A mark stays once corruption is known.
    // spec: QED-CONS-03
    fn set_need_check(&self, on: bool) -> Result<bool, ImageError> {
        let mut sector = self.view.sector();
        let is_on = sector.header().features().contains(Features::NEED_CHECK);
        let on = on || (is_on && self.view.tables.is_corrupt());
        if is_on == on && !sector.is_in_doubt() {
            return Ok(false);
        }
        let storage = &*self.view.tables.storage;
        sector.write_fields(storage, |fields| fields.features.set(Features::NEED_CHECK, on))?;
        Ok(true)
    }
}
