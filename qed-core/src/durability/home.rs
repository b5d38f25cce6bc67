//! Making writes durable: which metadata goes to the file when, and the life of NEED_CHECK and of
//! the marks of single tables.
//!
//! Step names are those of docs/write-ordering.md.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use qed_spec::{Features, HostOffset, L1Index};

use crate::durability::dirty_bits::Marks;
use crate::durability::lock::Turn;
use crate::durability::log::JournalKeeper;
use crate::error::{ImageError, IoAction};
use crate::image::Image;
use crate::map::cache::DirtySlice;
use crate::map::slice::SLICE_ENTRIES;

/// What one flush is to make durable, copied.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) slices: Vec<DirtySlice>,
    /// L1 slots and their values.
    pub(crate) l1: BTreeMap<u64, u64>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.l1.is_empty()
    }
}

/// What a mark that cannot be cleared means to a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unmarking {
    /// Nothing: the caller asks for what it wrote, and a mark costs a check after a crash.
    ByTheWay,
    /// That it failed.
    Due,
}

impl Image {
    /// Makes every write that completed before this call durable.
    ///
    /// Marks that cannot be cleared meanwhile, on a full file system for one, stay, and are no error.
    ///
    /// # Errors
    /// A failed write of a table or of the header can be tried again. After a failed flush of the
    /// storage nothing is known of what is durable: the image takes no more writes, see
    /// [`ImageError::WritesStopped`].
    // spec: QED-RW-07
    pub fn flush(&self) -> Result<(), ImageError> {
        let mut turn = self.writer.turn();
        let Some(journal) = self.journal() else {
            return self.flush_home(&mut turn, Unmarking::ByTheWay);
        };
        let submitted = self.submit(&mut turn, journal)?;
        // Other flushes may submit now, and share the commit.
        drop(turn);
        self.commit(journal, &submitted)
    }

    /// Does what is due at `now` and returns when to call again; none when nothing is waiting, until
    /// the next write.
    ///
    /// Five seconds after it first found tables that are not in the file it flushes; when it found
    /// none written for five seconds it clears the mark that asks for a check, and after five more
    /// those of single tables, or empties the journal. A journal that is half full goes home at
    /// once. Call it from a timer: the library starts no threads.
    ///
    /// # Errors
    /// As [`Image::flush`]; what was due stays due. After the end of writing it is always an error.
    pub fn maintain(&self, now: Instant) -> Result<Option<Instant>, ImageError> {
        if let Some(journal) = self.journal() {
            return self.maintain_journal(journal, now);
        }
        let mut turn = self.writer.turn();
        self.check_writable()?;
        if self.is_settled(&turn) {
            turn.wait_anew();
            return Ok(None);
        }
        let due = turn.due(now);
        if now < due {
            return Ok(Some(due));
        }
        self.flush_home(&mut turn, Unmarking::Due)?;
        turn.wait_anew();
        Ok((!self.is_settled(&turn)).then(|| turn.due(now)))
    }

    /// Writes everything home, clears NEED_CHECK and the marks or the journal, cuts the file to its
    /// used length and flushes.
    pub(crate) fn settle(&self) -> Result<(), ImageError> {
        let turn = &mut *self.writer.turn();
        self.flush_and_place(turn)?;
        let len = self.writer.alloc.trimmed_len();
        match self.journal() {
            Some(journal) => self.quiesce(journal)?,
            None => self.unmark(turn, len)?,
        }
        if self.writer.alloc.grew_past(len) {
            let cut = self.view.tables.storage.set_len(len);
            cut.map_err(ImageError::io(IoAction::Resize, HostOffset::new(len)))?;
            self.writer.alloc.restart(len);
        }
        self.sync(turn)
    }

    /// A flush, then step "place kept" and another: what the guest wrote does not wait for tables
    /// that are read for space that it did not ask for. Nothing is in flight.
    pub(crate) fn flush_and_place(&self, turn: &mut Turn) -> Result<(), ImageError> {
        self.flush_in_turn(turn)?;
        let placed = self.place_kept();
        if !self.has_nothing_pending() {
            self.flush_in_turn(turn)?;
        }
        placed
    }

    /// A flush by the holder of the turn: no other thread writes tables or the header meanwhile.
    pub(crate) fn flush_in_turn(&self, turn: &mut Turn) -> Result<(), ImageError> {
        match self.journal() {
            Some(journal) => {
                let submitted = self.submit(turn, journal)?;
                self.commit(journal, &submitted)
            }
            None => self.flush_home(turn, Unmarking::Due),
        }
    }

    /// Clears NEED_CHECK and the marks of an image that is about to end at `len`.
    fn unmark(&self, turn: &mut Turn, len: u64) -> Result<(), ImageError> {
        let written = self.unmark_image(turn, len)?;
        if turn.marks.is_some() && (written || !turn.is_unmarked()) {
            // What the superblock says of the end is durable before the file is cut to it, and
            // NEED_CHECK is durably clear before the marks are.
            self.sync(turn)?;
            self.unmark_tables(turn)?;
        }
        Ok(())
    }

    /// A flush of a classic image or one in compat mode: everything pending is written home.
    fn flush_home(&self, turn: &mut Turn, unmarking: Unmarking) -> Result<(), ImageError> {
        self.check_writable()?;
        let batch = self.take_pending();
        if batch.is_empty() {
            // Steps "unmark": whatever was written home is durable, or writing would have stopped.
            let unmarked = match self.unmark_image(turn, self.writer.alloc.end_bytes()) {
                Ok(false) => self.unmark_tables(turn),
                written => written.map(drop),
            };
            if unmarked.is_err() && unmarking == Unmarking::ByTheWay {
                // A failed flush of the storage among those steps is one all the same.
                self.check_writable()?;
                // What was half written stays unsettled for the next attempt.
                return self.sync_storage();
            }
            unmarked?;
            return self.sync(turn);
        }
        turn.wait_anew();
        match self.write_batch(turn, &batch) {
            Ok(()) => {
                self.view.tables.cache.written(batch.slices.iter().map(|slice| slice.number));
                self.sync(turn)
            }
            Err(error) => {
                self.view.tables.cache.not_written(&batch.slices);
                let mut pending = self.writer.pending_l1();
                for (slot, value) in batch.l1 {
                    pending.entry(slot).or_insert(value);
                }
                drop(pending);
                // What could be written is durable all the same: the image may be closed now.
                if self.check_writable().is_ok() {
                    drop(self.sync(turn));
                }
                Err(error)
            }
        }
    }

    /// Copies what is pending. Slices first: a table is linked before it gets entries, so the L1
    /// slots taken afterwards cover every slice taken before.
    pub(crate) fn take_pending(&self) -> Pending {
        let slices = self.view.tables.cache.take_dirty();
        let l1 = std::mem::take(&mut *self.writer.pending_l1());
        Pending { slices, l1 }
    }

    /// Whether no entry waits for a flush, or for a commit that failed to be tried again.
    pub(crate) fn has_nothing_pending(&self) -> bool {
        let is_committed = self.writer.keeper.as_ref().is_none_or(JournalKeeper::is_committed);
        is_committed && self.view.tables.cache.is_clean() && self.writer.pending_l1().is_empty()
    }

    /// Writes a batch home in the order that crash safety asks for.
    // spec: QED-RW-06, QED-CONS-02, QED-DIRTY-03, QED-MODE-02
    fn write_batch(&self, turn: &mut Turn, batch: &Pending) -> Result<(), ImageError> {
        let storage = &*self.view.tables.storage;
        // Step "mark": NEED_CHECK and the marks of the tables are durable before a table changes.
        // With a backing file the data flush already orders data, file length and link, so no mark
        // is needed.
        let is_needed = !self.view.is_backed() || self.need_check();
        let wanted_epoch = turn.marks.as_ref().and_then(Marks::wanted_epoch).filter(|_| is_needed);
        if let Some(end) = wanted_epoch {
            self.set_epoch(turn, end)?;
            self.sync(turn)?;
        }
        let mut marked = self.set_need_check(is_needed)?;
        if let Some(marks) = turn.marks.as_mut().filter(|_| is_needed) {
            marked |= marks.set(storage, self.l1_slots_of(batch))?;
        }
        // Step "data first": data and file length are durable before an entry that names them.
        let data_first =
            self.view.is_backed() || batch.slices.iter().any(|slice| slice.copy.data_first);
        if marked || data_first {
            self.sync(turn)?;
        }
        // Step "link". One table that cannot be written keeps no other from its entries.
        let mut linked = Ok(());
        for slice in &batch.slices {
            let home = slice.copy.home;
            let written = storage.write_at(&slice.copy.bytes, home.get());
            linked = linked.and(written.map_err(ImageError::io(IoAction::WriteTable, home)));
        }
        for (slot, value) in &batch.l1 {
            linked = linked.and(self.view.tables.l1.write(storage, *slot, *value));
        }
        linked
    }

    /// Flushes the storage; a failure ends all writing.
    pub(crate) fn sync_storage(&self) -> Result<(), ImageError> {
        self.view.tables.storage.flush().map_err(|error| {
            self.writer.stopped.store(true, Ordering::Release);
            ImageError::io(IoAction::Flush, HostOffset::new(0))(error)
        })
    }

    /// Flushes the storage, and with it what the marks wait for.
    pub(crate) fn sync(&self, turn: &mut Turn) -> Result<(), ImageError> {
        self.sync_storage()?;
        if let Some(marks) = &mut turn.marks {
            marks.settle();
        }
        Ok(())
    }

    /// Step "unmark image": records that the image ends at `end`, if marks are to be cleared or it
    /// ended later, and clears NEED_CHECK. Nothing is pending. Whether anything was written that a
    /// flush must make durable before the marks are cleared.
    fn unmark_image(&self, turn: &mut Turn, end: u64) -> Result<bool, ImageError> {
        let ends_later = |marks: &Marks| marks.epoch_size() > end;
        let is_recorded = turn.is_unmarked() && !turn.marks.as_ref().is_some_and(ends_later);
        let epoch_written = !is_recorded && self.set_epoch(turn, end)?;
        Ok(self.set_need_check(false)? || epoch_written)
    }

    /// Records in the superblock that the image ends at `end`; whether that was written.
    // spec: QED-DIRTY-05
    pub(crate) fn set_epoch(&self, turn: &mut Turn, end: u64) -> Result<bool, ImageError> {
        self.settle_superblock(turn)?;
        match &mut turn.marks {
            Some(marks) => marks.set_epoch(&*self.view.tables.storage, end),
            None => Ok(false),
        }
    }

    /// Flushes if the last write of the superblock is not known to be durable: the next one spoils
    /// the copy before it. Only a step that failed after such a write leaves it so.
    // spec: QED-SB-11
    pub(crate) fn settle_superblock(&self, turn: &mut Turn) -> Result<(), ImageError> {
        if turn.marks.as_ref().is_some_and(Marks::is_unsettled) { self.sync(turn) } else { Ok(()) }
    }

    /// Step "unmark tables": clears the marks of single tables. NEED_CHECK is durably clear, and the
    /// superblock says where the image ends.
    // spec: QED-DIRTY-04
    fn unmark_tables(&self, turn: &mut Turn) -> Result<(), ImageError> {
        match &mut turn.marks {
            Some(marks) if !self.need_check() => marks.clear(&*self.view.tables.storage),
            _ => Ok(()),
        }
    }

    /// The L1 slots whose tables a batch changes.
    fn l1_slots_of(&self, batch: &Pending) -> impl Iterator<Item = L1Index> {
        let slices_per_table = self.view.tables.geometry.table_entries() / SLICE_ENTRIES;
        let of_slices = batch.slices.iter().map(move |slice| slice.number / slices_per_table);
        of_slices.chain(batch.l1.keys().copied()).map(L1Index::new)
    }

    /// Whether the file has all that it will have until the next write.
    fn is_settled(&self, turn: &Turn) -> bool {
        let sector = self.view.sector();
        let is_marked = sector.header().features().contains(Features::NEED_CHECK);
        let is_corrupt = self.view.tables.is_corrupt();
        let is_header_settled = (!is_marked || is_corrupt) && !sector.is_in_doubt();
        drop(sector);
        let is_unmarked = is_marked || turn.is_unmarked();
        is_header_settled && is_unmarked && self.has_nothing_pending()
    }

    /// Whether the file may hold another header than this one.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.view.sector().is_in_doubt()
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
