//! Growing and shrinking the virtual disk. No request is in flight meanwhile.
//!
//! Step names are those of docs/write-ordering.md.

use std::sync::atomic::Ordering;

use qed_io::Growth;
use qed_spec::{DirtyBitmapError, GuestOffset, HostOffset, L1Entry, L1Index, L2Entry};

use crate::durability::lock::Turn;
use crate::error::{ImageError, IoAction, ResizeError};
use crate::head::sector::check_size;
use crate::image::Image;
use crate::image::read_only::storage_len;
use crate::map::slice::SLICE_ENTRIES;
use crate::map::tables::ExtentKind;

/// Whether a resize may delete what lies past a smaller end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shrink {
    /// A smaller size is an error.
    Refuse,
    /// Data past the new end is deleted.
    Allow,
}

impl Image {
    /// Sets the size of the virtual disk to `new_size` bytes, a multiple of 512; durable when it
    /// returns.
    ///
    /// New space reads as zeros, also where a longer backing file could show through. Shrinking
    /// gives the tail of the file back; clusters that were freed in the middle stay in the file
    /// as leaks until a repair. Waits for the requests in flight.
    ///
    /// # Errors
    /// A size that the tables cannot map, a smaller one that is not allowed, or failed I/O. Then
    /// the disk has its old size unless only cutting the file failed, and what a shrink was to
    /// delete may be gone; it can be tried again.
    // spec: QED-SIZE-01, QED-SIZE-02
    pub fn resize(&self, new_size: u64, shrink: Shrink) -> Result<(), ResizeError> {
        let _drained = self.view.drain.drain();
        let turn = &mut *self.writer.turn();
        let old_size = self.view.image_size();
        if new_size < old_size && shrink == Shrink::Refuse {
            return Err(ResizeError::WouldShrink { from: old_size, to: new_size });
        }
        check_size(new_size)?;
        let file_len = storage_len(&*self.view.tables.storage)?;
        let mut fields = *self.view.header().fields();
        fields.image_size = new_size;
        self.view.header().with_fields(fields, file_len)?;
        check_marks(turn, self.view.geometry().l1_entries_for(new_size))?;
        self.flush_and_place(turn)?;
        self.empty_log()?;
        if new_size >= old_size {
            self.grow(turn, old_size, new_size)?;
        } else {
            self.shrink(turn, old_size, new_size)?;
        }
        Ok(())
    }

    fn grow(&self, turn: &mut Turn, old_size: u64, new_size: u64) -> Result<(), ImageError> {
        let tables = &self.view.tables;
        // What an interrupted grow or a foreign writer left past the end must not show up.
        let slots = tables.geometry.l1_entries_for(new_size);
        for l1 in tables.l1.extend(&*tables.storage, slots)? {
            self.unlink(l1);
        }
        let table_end = old_size.next_multiple_of(tables.geometry.l2_coverage_bytes());
        self.unmap(turn, old_size, table_end.min(new_size))?;
        // Step "zero tail".
        let cluster = tables.geometry.cluster_size_bytes();
        let cluster_end = old_size.next_multiple_of(cluster);
        self.zero(turn, old_size, cluster_end.min(new_size), new_size)?;
        // Step "hide backing".
        let backing_len = self.view.backing().map_or(0, |backing| backing.len());
        self.zero(turn, cluster_end, backing_len.min(new_size), new_size)?;
        self.flush_in_turn(turn)?;
        self.empty_log()?;
        self.commit_size(turn, new_size)
    }

    fn shrink(&self, turn: &mut Turn, old_size: u64, new_size: u64) -> Result<(), ImageError> {
        self.wipe_cut_off(new_size)?;
        // Step "unmap".
        let tables = &self.view.tables;
        let coverage = tables.geometry.l2_coverage_bytes();
        let first_gone = tables.geometry.l1_entries_for(new_size);
        let clusters_gone = (first_gone * coverage) >> tables.geometry.cluster_bits();
        self.unmap(turn, new_size, old_size.min(first_gone * coverage))?;
        tables.cache.forget(&(clusters_gone / SLICE_ENTRIES..u64::MAX));
        for l1 in first_gone..tables.l1.len() {
            self.unlink(L1Index::new(l1));
        }
        self.flush_in_turn(turn)?;
        self.empty_log()?;
        self.commit_size(turn, new_size)?;
        tables.l1.truncate(first_gone);
        self.cut_file(turn)
    }

    /// Step "commit size": one sector write, durable before anything relies on it.
    fn commit_size(&self, turn: &mut Turn, new_size: u64) -> Result<(), ImageError> {
        let storage = &*self.view.tables.storage;
        self.view.sector().write_fields(storage, |fields| fields.image_size = new_size)?;
        self.sync(turn)?;
        self.view.image_size.store(new_size, Ordering::Release);
        Ok(())
    }

    /// Step "cut file": gives back what lies past the last cluster in use. A block device keeps
    /// its length and has no new space to hand out.
    fn cut_file(&self, turn: &mut Turn) -> Result<(), ImageError> {
        let tables = &self.view.tables;
        if tables.storage.growth() == Growth::Stale {
            return Ok(());
        }
        let end = tables.end_in_use(&self.view.header(), storage_len(&*tables.storage)?)?;
        if turn.marks.as_ref().is_some_and(|marks| marks.epoch_size() > end) {
            self.set_epoch(turn, end)?;
            self.sync(turn)?;
        }
        let cut = tables.storage.set_len(end);
        cut.map_err(ImageError::io(IoAction::Resize, HostOffset::new(end)))?;
        self.sync(turn)?;
        tables.file_was_cut(end);
        self.writer.alloc.restart(end);
        Ok(())
    }

    /// Makes every cluster that starts in `from..to` unallocated; the tables stay.
    fn unmap(&self, turn: &mut Turn, from: u64, to: u64) -> Result<(), ImageError> {
        let tables = &self.view.tables;
        let cluster = tables.geometry.cluster_size_bytes();
        let mut at = from.next_multiple_of(cluster);
        while at < to {
            let guest = GuestOffset::new(at);
            if tables.table(tables.l1_index(guest))?.is_none() {
                at = (at + 1).next_multiple_of(tables.geometry.l2_coverage_bytes());
                continue;
            }
            let count = tables.clusters_left_in_slice(guest).min((to - at).div_ceil(cluster));
            // A slot that cannot be read as an entry is not unallocated either.
            let unallocated = |entry| entry == L2Entry::Unallocated;
            if !matches!(tables.entries(guest, count, unallocated), Ok(Some(n)) if n == count) {
                let cleared = (0..count).map(|_| L2Entry::Unallocated);
                tables.publish(guest, cleared, false)?;
            }
            if tables.cache.is_crowded() {
                self.flush_in_turn(turn)?;
            }
            at += count * cluster;
        }
        Ok(())
    }

    /// Step "wipe": zeroes what the last cluster will hold past the end of the disk. It means
    /// nothing there, but QEMU shows it when it grows the disk. spec: QED-QEMU-18
    // spec: QED-MAP-04
    fn wipe_cut_off(&self, new_size: u64) -> Result<(), ImageError> {
        let tables = &self.view.tables;
        let at = GuestOffset::new(new_size);
        let within = tables.within_cluster(at);
        if within == 0 {
            return Ok(());
        }
        let len = tables.geometry.cluster_size_bytes() - within;
        if let ExtentKind::Data(host) = tables.run(at, len)?.kind {
            let wiped = tables.storage.write_zeroes(host.get()..host.get() + len);
            wiped.map_err(ImageError::io(IoAction::WriteData, host))?;
        }
        Ok(())
    }

    fn unlink(&self, l1: L1Index) {
        self.writer.pending_l1().insert(l1.get(), 0);
        self.view.tables.l1.set(l1, L1Entry::Unallocated);
    }

    /// Makes `from..to` read as zeros on a disk of `disk_end` bytes.
    fn zero(&self, turn: &mut Turn, from: u64, to: u64, disk_end: u64) -> Result<(), ImageError> {
        let mut at = from;
        while at < to {
            at += self.zero_some(GuestOffset::new(at), to - at, disk_end)?;
            if self.view.tables.cache.is_crowded() {
                self.flush_in_turn(turn)?;
            }
        }
        Ok(())
    }
}

/// Refuses a disk with tables that have no marks.
// spec: QED-DIRTY-02
fn check_marks(turn: &Turn, slots: u64) -> Result<(), DirtyBitmapError> {
    match &turn.marks {
        Some(marks) if marks.slots() < slots => {
            Err(DirtyBitmapError::TooShort { len_bytes: marks.slots() / 8, slots })
        }
        _ => Ok(()),
    }
}
