//! Moving clusters and tables to the end of the file, so that the header area can grow over the
//! place where they were.
//!
//! Step names are those of docs/write-ordering.md.

use std::sync::Arc;

use qed_io::{Growth, Storage};
use qed_layout::{PieceBuffer, Pieces};
use qed_spec::{Geometry, HostOffset};
use zerocopy::IntoBytes;

use crate::data::DataPath;
use crate::error::{ImageError, IoAction};
use crate::head::sector::HeaderSector;
use crate::head::sector::storage_len;
use crate::image::amend::occupants::Occupants;

/// Makes sure that nothing is named in the first `clusters` clusters of the file; the number of those
/// in which nothing is, which may be higher. Durable when it returns.
///
/// At every moment the image is one of its old layout that reads as before: copies are durable before
/// they are named, and nobody writes to an original before none names it. An interrupted move leaves
/// clusters that nothing names.
// spec: QED-HDR-08, QED-HDR-11, QED-RW-04, QED-RW-06, QED-CONS-02
pub(super) fn make_room(
    storage: &Arc<dyn Storage>,
    sector: &mut HeaderSector,
    clusters: u64,
) -> Result<u64, ImageError> {
    let header = *sector.header();
    let present = u64::from(header.fields().header_size_clusters);
    if clusters <= present {
        return Ok(present);
    }
    let geometry = header.geometry();
    let data = DataPath::new(storage.clone(), None, false);
    let storage = &**storage;
    let file_len = storage_len(storage)?;
    let occupants = Occupants::find(storage, &header, clusters, file_len)?;
    let mut moving = Moving {
        storage,
        data,
        geometry,
        l1_offset: header.fields().l1_table_offset.get(),
        free: grow(storage, geometry, file_len.max(occupants.end), &occupants)?,
    };
    moving.move_data(&occupants)?;
    moving.move_tables(&occupants)?;
    if occupants.has_l1 {
        moving.move_l1(sector, occupants.l1_len)?;
    }
    Ok(occupants.end >> geometry.cluster_bits())
}

/// Moves the L1 table, of which the disk needs `len` bytes, to `to`, where a whole table is free and may
/// hold anything. Durable when it returns.
pub(super) fn move_l1_to(
    storage: &Arc<dyn Storage>,
    sector: &mut HeaderSector,
    to: u64,
    len: u64,
) -> Result<(), ImageError> {
    let header = *sector.header();
    let table = to..to + header.geometry().table_size_bytes();
    let fault = ImageError::io(IoAction::WriteTable, HostOffset::new(to));
    storage.write_zeroes(table).map_err(fault)?;
    let mut moving = Moving {
        storage: &**storage,
        data: DataPath::new(storage.clone(), None, false),
        geometry: header.geometry(),
        l1_offset: header.fields().l1_table_offset.get(),
        free: to,
    };
    moving.move_l1(sector, len)
}

/// Makes the file long enough for all that moves, behind its end at `file_len`; where that begins.
fn grow(
    storage: &dyn Storage,
    geometry: Geometry,
    file_len: u64,
    occupants: &Occupants,
) -> Result<u64, ImageError> {
    let (first, clusters) = (geometry.clusters_for(file_len).get(), occupants.clusters(geometry));
    let start = first << geometry.cluster_bits();
    if clusters == 0 {
        return Ok(start);
    }
    let most = i64::MAX.unsigned_abs() >> geometry.cluster_bits();
    let end = first.checked_add(clusters).filter(|end| *end <= most);
    let Some(end) = end.filter(|_| storage.growth() == Growth::Zeros) else {
        return Err(ImageError::NoSpace { clusters, end: HostOffset::new(start) });
    };
    let end = end << geometry.cluster_bits();
    storage.set_len(end).map_err(ImageError::io(IoAction::Resize, HostOffset::new(end)))?;
    Ok(start)
}

/// What moves, and where to.
struct Moving<'a> {
    storage: &'a dyn Storage,
    data: DataPath,
    geometry: Geometry,
    l1_offset: u64,
    /// First byte of the space that is free, which reads as zeros.
    free: u64,
}

impl Moving<'_> {
    /// Step "move data": copies, flush, entries, flush.
    fn move_data(&mut self, occupants: &Occupants) -> Result<(), ImageError> {
        let mut entries = Vec::with_capacity(occupants.data.len());
        for (cluster, slot) in &occupants.data {
            let to = self.take(self.geometry.cluster_size_bytes());
            self.data.copy(*cluster, to, self.geometry.cluster_size_bytes(), true)?;
            entries.push((slot.get(), to));
        }
        self.repoint(&entries)
    }

    /// Step "move tables": as above; what they say is durable since the step before.
    fn move_tables(&mut self, occupants: &Occupants) -> Result<(), ImageError> {
        let mut slots = Vec::with_capacity(occupants.tables.len());
        for (table, l1) in &occupants.tables {
            let to = self.take(self.geometry.table_size_bytes());
            self.copy_table(*table, to, self.geometry.table_size_bytes())?;
            slots.push((self.l1_offset + l1.get() * 8, to));
        }
        self.repoint(&slots)
    }

    /// Step "move L1": the copy, flush, one write of sector 0, flush. Slots past the end of the disk
    /// are 0.
    // spec: QED-HDR-09
    fn move_l1(&mut self, sector: &mut HeaderSector, len: u64) -> Result<(), ImageError> {
        let to = self.take(self.geometry.table_size_bytes());
        self.copy_table(self.l1_offset, to, len)?;
        self.flush()?;
        sector.write_fields(self.storage, |fields| fields.l1_table_offset = HostOffset::new(to))?;
        self.flush()
    }

    fn take(&mut self, len: u64) -> u64 {
        let start = self.free;
        self.free += len;
        start
    }

    /// Writes 8-byte slots that name copies, once the copies and the length are durable.
    fn repoint(&self, slots: &[(u64, u64)]) -> Result<(), ImageError> {
        if slots.is_empty() {
            return Ok(());
        }
        self.flush()?;
        for (slot, to) in slots {
            let fault = ImageError::io(IoAction::WriteTable, HostOffset::new(*slot));
            self.storage.write_at(&to.to_le_bytes(), *slot).map_err(fault)?;
        }
        self.flush()
    }

    fn copy_table(&self, from: u64, to: u64, len: u64) -> Result<(), ImageError> {
        let mut buffer = PieceBuffer::default();
        for piece in Pieces::of(self.storage, from..from + len) {
            let piece = piece?;
            let entries = buffer.read(self.storage, &piece)?;
            let at = to + (piece.at - from);
            let fault = ImageError::io(IoAction::WriteTable, HostOffset::new(at));
            self.storage.write_at(entries.as_bytes(), at).map_err(fault)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), ImageError> {
        self.storage.flush().map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)))
    }
}
