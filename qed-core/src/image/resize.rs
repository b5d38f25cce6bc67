//! Growing and shrinking the virtual disk. No request is in flight meanwhile.
//!
//! Step names are those of docs/write-ordering.md.

use qed_io::Growth;
use qed_spec::{DirtyBitmapError, GuestOffset, L1Index, L2Entry};

use crate::change::Change;
use crate::durability::lock::Metadata;
use crate::error::{ImageError, ResizeError};
use crate::head::sector::{check_size, storage_len};
use crate::image::Image;
use crate::image::io::ZeroMode;
use crate::map::mapping::ExtentKind;
use crate::map::slice::SLICE_ENTRIES;

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
    /// gives the tail of the file back; clusters that were freed in the middle are free space, which
    /// later allocations use. Waits for the requests in flight.
    ///
    /// # Errors
    /// A size that the tables cannot map, a smaller one that is not allowed, or failed I/O. Then
    /// the disk has its old size unless only cutting the file failed, and what a shrink was to
    /// delete may be gone; it can be tried again.
    // spec: QED-SIZE-01, QED-SIZE-02, QED-PEND-11
    pub fn resize(&self, new_size: u64, shrink: Shrink) -> Result<(), ResizeError> {
        let _drained = self.space.guards.drain();
        let metadata = &mut *self.durability.lock(&self.head);
        let old_size = self.head.image_size();
        if new_size < old_size && shrink == Shrink::Refuse {
            return Err(ResizeError::WouldShrink { from: old_size, to: new_size });
        }
        check_size(new_size)?;
        let file_len = storage_len(&**self.head.storage())?;
        let header = self.head.header();
        let mut fields = *header.fields();
        fields.image_size = new_size;
        header.with_fields(fields, file_len)?;
        check_bits(metadata, self.map.geometry.l1_entries_for(new_size))?;
        // Until all is committed the file may name what the tables in memory do not: said before the
        // sweep that runs ends, for the next one.
        self.space.begin_unnaming();
        self.flush_and_place(metadata)?;
        self.durability.drain_log(self.cx())?;
        if new_size >= old_size {
            self.grow(metadata, old_size, new_size)?;
        } else {
            self.shrink(metadata, old_size, new_size)?;
        }
        self.space.unnamings_are_durable(self.space.unnamings());
        Ok(())
    }

    fn grow(
        &self,
        metadata: &mut Metadata,
        old_size: u64,
        new_size: u64,
    ) -> Result<(), ImageError> {
        let map = &self.map;
        // What an interrupted grow or a foreign writer left past the end must not show up.
        let slots = map.geometry.l1_entries_for(new_size);
        for l1 in map.l1.extend(&**self.head.storage(), slots)? {
            self.pending.unlink(l1, map);
        }
        let table_end = old_size.next_multiple_of(map.geometry.l2_coverage_bytes());
        self.unmap(metadata, old_size, table_end.min(new_size))?;
        // Step "zero tail".
        let cluster = map.geometry.cluster_size_bytes();
        let cluster_end = old_size.next_multiple_of(cluster);
        self.zero(metadata, old_size, cluster_end.min(new_size), new_size)?;
        // Step "hide backing".
        let backing_len = self.data.backing().map_or(0, |backing| backing.len());
        self.zero(metadata, cluster_end, backing_len.min(new_size), new_size)?;
        self.durability.commit(metadata, self.cx())?;
        self.durability.drain_log(self.cx())?;
        // Step "commit size": one sector write, durable before anything relies on it.
        self.head.set_image_size(new_size)
    }

    fn shrink(
        &self,
        metadata: &mut Metadata,
        old_size: u64,
        new_size: u64,
    ) -> Result<(), ImageError> {
        self.wipe_cut_off(new_size)?;
        // Step "unmap".
        let map = &self.map;
        let coverage = map.geometry.l2_coverage_bytes();
        let first_gone = map.geometry.l1_entries_for(new_size);
        let clusters_gone = (first_gone * coverage) >> map.geometry.cluster_bits();
        self.unmap(metadata, new_size, old_size.min(first_gone * coverage))?;
        map.cache.forget(&(clusters_gone / SLICE_ENTRIES..u64::MAX));
        for l1 in (first_gone..map.l1.len()).map(L1Index::new) {
            let table = map.table(l1)?;
            self.pending.unlink(l1, map);
            if let Some(table) = table {
                self.space.owner.is_no_table(map.geometry.host_offset(table));
            }
        }
        self.durability.commit(metadata, self.cx())?;
        self.durability.drain_log(self.cx())?;
        // Step "commit size": one sector write, durable before anything relies on it.
        self.head.set_image_size(new_size)?;
        map.l1.truncate(first_gone);
        self.cut_file(metadata)?;
        // What was cut off in the middle of the file.
        self.space.want_new_sweep();
        Ok(())
    }

    /// Step "cut file": gives back what lies past the last cluster in use. A block device keeps
    /// its length and has no new space to hand out.
    fn cut_file(&self, metadata: &mut Metadata) -> Result<(), ImageError> {
        let storage = &**self.head.storage();
        if storage.growth() == Growth::Stale {
            return Ok(());
        }
        let end = self.map.end_in_use(&self.head.header(), storage_len(storage)?)?;
        self.cut_at(metadata, end)
    }

    /// Cuts the file at `end`, behind which nothing lies and no log wants anything, durably: what is
    /// recorded of the end first. A block device keeps its length. No request is in flight.
    // spec: QED-FREE-09
    pub(super) fn cut_at(&self, metadata: &mut Metadata, end: u64) -> Result<(), ImageError> {
        self.durability.lower_recorded_end(metadata, end, self.cx())?;
        self.durability.settle_end(metadata, end, self.cx())?;
        self.space.alloc.end.cut(end)?;
        self.head.sync()?;
        self.space.owner.was_cut(end);
        self.space.restart(end);
        Ok(())
    }

    /// Makes every cluster that starts in `from..to` unallocated; the tables stay.
    fn unmap(&self, metadata: &mut Metadata, from: u64, to: u64) -> Result<(), ImageError> {
        let map = &self.map;
        let cluster = map.geometry.cluster_size_bytes();
        let mut at = from.next_multiple_of(cluster);
        while at < to {
            let guest = GuestOffset::new(at);
            if map.table(map.l1_index(guest))?.is_none() {
                at = (at + 1).next_multiple_of(map.geometry.l2_coverage_bytes());
                continue;
            }
            let count = map.clusters_left_in_slice(guest).min((to - at).div_ceil(cluster));
            // A slot that cannot be read as an entry is not unallocated either.
            let unallocated = |entry| entry == L2Entry::Unallocated;
            if !matches!(map.entries(guest, count, unallocated), Ok(Some(n)) if n == count) {
                Change::unallocated(guest, count).publish(map, &mut self.room(count)?)?;
            }
            if self.cx().is_crowded() {
                self.durability.commit(metadata, self.cx())?;
            }
            at += count * cluster;
        }
        Ok(())
    }

    /// Step "wipe": zeroes what the last cluster will hold past the end of the disk. It means
    /// nothing there, but QEMU shows it when it grows the disk. spec: QED-QEMU-18
    // spec: QED-MAP-04
    fn wipe_cut_off(&self, new_size: u64) -> Result<(), ImageError> {
        let map = &self.map;
        let at = GuestOffset::new(new_size);
        let within = map.within_cluster(at);
        if within == 0 {
            return Ok(());
        }
        let len = map.geometry.cluster_size_bytes() - within;
        if let ExtentKind::Data(host) = map.run(at, len)?.kind {
            self.data.write_zeroes(host.get()..host.get() + len)?;
        }
        Ok(())
    }

    /// Makes `from..to` read as zeros on a disk of `disk_end` bytes.
    fn zero(
        &self,
        metadata: &mut Metadata,
        from: u64,
        to: u64,
        disk_end: u64,
    ) -> Result<(), ImageError> {
        let mut at = from;
        while at < to {
            at += self.zero_some(GuestOffset::new(at), to - at, disk_end, ZeroMode::IfNeeded)?;
            if self.cx().is_crowded() {
                self.durability.commit(metadata, self.cx())?;
            }
        }
        Ok(())
    }
}

/// Refuses a disk with tables that have no dirty bits.
// spec: QED-DIRTY-02
fn check_bits(metadata: &Metadata, slots: u64) -> Result<(), DirtyBitmapError> {
    match &metadata.bits {
        Some(bits) if bits.slots() < slots => {
            Err(DirtyBitmapError::TooShort { len_bytes: bits.slots() / 8, slots })
        }
        _ => Ok(()),
    }
}
