//! The tail of the file: tables that lie there move down, and what is free is cut off. No request is in
//! flight meanwhile.
//!
//! Step names are those of docs/write-ordering.md.

use qed_spec::{HostOffset, L1Index};

use crate::durability::lock::Metadata;
use crate::error::{ImageError, IoAction};
use crate::image::Image;
use crate::map::slice::SLICE_ENTRIES;
use crate::space::free::HostRun;

/// What became of the last table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableMoved {
    Yes,
    /// No free clusters below it follow each other.
    NoRoom,
    /// It lies below the end of what is used.
    NoNeed,
}

impl Image {
    /// Moves the table that lies last, if it lies behind as many clusters as are used.
    pub(super) fn move_last_table(&self) -> Result<TableMoved, ImageError> {
        let free = &self.space.alloc.free;
        let used = self.space.alloc.end.clusters().saturating_sub(free.count());
        let Some(last) = self.space.owner.last_table() else { return Ok(TableMoved::NoNeed) };
        let geometry = self.map.geometry;
        if last + geometry.table_size_bytes() <= used << geometry.cluster_bits() {
            return Ok(TableMoved::NoNeed);
        }
        let _drained = self.space.guards.drain();
        let metadata = &mut *self.durability.lock(&self.head);
        self.durability.commit(metadata, self.cx())?;
        // Step "empty log": no record sets a slot of the table, nor names what was let go of.
        self.durability.drain_log(self.cx())?;
        free.log_is_empty();
        let Some(target) = free.take_table(geometry.table_size_clusters()) else {
            return Ok(TableMoved::NoRoom);
        };
        let to = geometry.host_offset(target.first);
        let l1 = self.map.l1.slot_of(last);
        let (Some(l1), true) = (l1, to.get() < last) else {
            free.give_back(target);
            return Ok(TableMoved::NoRoom);
        };
        self.move_table(metadata, l1, HostOffset::new(last), target)
    }

    /// Copies a table, of which nothing is pending, and links the copy.
    // spec: QED-JRN-25
    fn move_table(
        &self,
        metadata: &mut Metadata,
        l1: L1Index,
        from: HostOffset,
        target: HostRun,
    ) -> Result<TableMoved, ImageError> {
        let geometry = self.map.geometry;
        let to = geometry.host_offset(target.first);
        // Step "copy table".
        let copied = self.copy_table(from.get(), to.get()).and_then(|()| self.head.sync());
        copied.inspect_err(|_| self.space.alloc.free.give_back(target))?;
        let slices = geometry.table_entries() / SLICE_ENTRIES;
        if !self.map.cache.evict(&(l1.get() * slices..(l1.get() + 1) * slices)) {
            // A commit that failed is to write one of them where it lies.
            self.space.alloc.free.give_back(target);
            return Ok(TableMoved::NoRoom);
        }
        // Step "link copy".
        let old = geometry.host_cluster(from).expect("a table begins with a cluster").get();
        let clusters = old..old + geometry.table_size_clusters();
        let free = &self.space.alloc.free;
        free.let_go(std::slice::from_ref(&clusters));
        self.pending.relink(l1, target.first, &self.map);
        self.space.owner.is_table(to);
        self.space.owner.is_no_table(from);
        free.is_let_go(std::slice::from_ref(&clusters));
        self.durability.commit(metadata, self.cx())?;
        Ok(TableMoved::Yes)
    }

    fn copy_table(&self, from: u64, to: u64) -> Result<(), ImageError> {
        let storage = &**self.head.storage();
        let len = self.map.geometry.table_size_bytes();
        let mut buf = vec![0; usize::try_from(len.min(1 << 20)).expect("at most 1 MiB")];
        for done in (0..len).step_by(buf.len()) {
            let read = storage.read_at(&mut buf, from + done);
            read.map_err(ImageError::io(IoAction::ReadTable, HostOffset::new(from + done)))?;
            let written = storage.write_at(&buf, to + done);
            written.map_err(ImageError::io(IoAction::WriteTable, HostOffset::new(to + done)))?;
        }
        Ok(())
    }

    /// Cuts off the free clusters at the end of the file, durably; of a device lowers what is recorded of
    /// the end.
    // spec: QED-FREE-09
    pub(super) fn cut_free_tail(&self) -> Result<(), ImageError> {
        let _drained = self.space.guards.drain();
        let metadata = &mut *self.durability.lock(&self.head);
        self.durability.commit(metadata, self.cx())?;
        self.give_windows_back();
        // Step "empty log": none asks for the longer file.
        self.durability.drain_log(self.cx())?;
        let end = self.space.alloc.end.clusters();
        let tail = self.space.alloc.free.tail_from(end);
        if tail < end {
            self.cut_at(metadata, tail << self.map.geometry.cluster_bits())?;
        }
        Ok(())
    }
}
