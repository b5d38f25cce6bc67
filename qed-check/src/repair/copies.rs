//! Gives tables and clusters that are named twice a copy of their own.
//!
//! The first in guest order keeps the original; a table keeps what an L2 entry takes for data.
//! Entries past the end of the virtual disk are cleared on the way: whether a table reaches past it
//! is known only once no two slots share it.

use qed_io::{Growth, RunKind, Storage};
use qed_layout::{ClusterSet, PieceBuffer, read};
use qed_spec::{HostOffset, L1Index, TableEntry};
use zerocopy::IntoBytes;

use super::write::{Changes, flush, set_len, write};
use crate::error::CheckError;
use crate::finding::FindingKind;
use crate::layout::Data;
use crate::metadata;
use crate::report::{FindingLog, Report};
use crate::tables::Tables;

/// A repair may add this many clusters for each that the file has.
const MAX_GROWTH: u64 = 16;
/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Tables that are copied between two flushes.
const BATCH_TABLES: usize = 1024;

/// Refuses an image whose few tables are named so often that the copies would fill any disk.
pub(super) fn refuse_too_many(tables: &Tables<'_>, report: &Report) -> Result<(), CheckError> {
    let limit = tables.layout.clusters.saturating_mul(MAX_GROWTH);
    let of = |kind| report.counts.of(kind);
    let mut needed = of(FindingKind::L2Duplicate).saturating_add(of(FindingKind::L2IntoL2Table));
    let (metadata, _) = metadata::claim(tables, &mut FindingLog::new(0))?;
    let mut buffer = PieceBuffer::default();
    metadata.for_each_rejected(tables, |_, table| {
        needed = needed.saturating_add(table.end - table.start);
        if needed > limit {
            return Ok(());
        }
        tables.reader.for_each(tables.l2_pieces(table.start), &mut buffer, |_, value| {
            needed += u64::from(value > 1);
            Ok(())
        })
    })?;
    if needed > limit { Err(CheckError::TooManyCopies { needed, limit }) } else { Ok(()) }
}

/// Copies tables, then data clusters, to clusters from `end` on. Durable on return.
// spec: QED-CHK-04
pub(super) fn run(storage: &dyn Storage, end: u64) -> Result<(), CheckError> {
    let mut copier = Copier { storage, next: end, buffer: vec![0; COPY_BYTES] };
    copy_tables(&Tables::open(storage)?, &mut copier)?;
    copy_data(&Tables::open(storage)?, &mut copier)
}

fn copy_tables(tables: &Tables<'_>, copier: &mut Copier<'_>) -> Result<(), CheckError> {
    let (metadata, _) = metadata::claim(tables, &mut FindingLog::new(0))?;
    let mut batch = Vec::new();
    metadata.for_each_rejected(tables, |l1, table| {
        let copy = copier.copy(tables, table.start, table.end - table.start)?;
        batch.push((l1, copy));
        if batch.len() == BATCH_TABLES { repoint(tables, &mut batch) } else { Ok(()) }
    })?;
    repoint(tables, &mut batch)
}

fn repoint(tables: &Tables<'_>, batch: &mut Vec<(L1Index, HostOffset)>) -> Result<(), CheckError> {
    if batch.is_empty() {
        return Ok(());
    }
    flush(tables.storage)?;
    for (l1, copy) in batch.drain(..) {
        let entry = TableEntry::new(copy.get());
        write(tables.storage, entry.as_bytes(), tables.layout.l1_offset().get() + l1.get() * 8)?;
    }
    flush(tables.storage)
}

fn copy_data(tables: &Tables<'_>, copier: &mut Copier<'_>) -> Result<(), CheckError> {
    let (metadata, claimed) = metadata::claim(tables, &mut FindingLog::new(0))?;
    let mut buffer = PieceBuffer::default();
    metadata.for_each_table(tables, |l1, start| {
        let in_image = tables.layout.entries_in_image(l1);
        for piece in tables.l2_pieces(start) {
            let piece = piece?;
            let entries = buffer.read(tables.storage, &piece)?;
            let beyond = usize::try_from(in_image.saturating_sub(piece.first));
            let changes = settle(tables, &claimed, copier, entries, beyond.unwrap_or(usize::MAX))?;
            changes.write(tables.storage, entries, piece.at)?;
        }
        Ok(())
    })?;
    flush(tables.storage)
}

/// Settles the entries of one piece; from index `beyond` on they lie past the virtual disk. The
/// copies that they then name are durable on return.
fn settle(
    tables: &Tables<'_>,
    claimed: &ClusterSet,
    copier: &mut Copier<'_>,
    entries: &mut [TableEntry],
    beyond: usize,
) -> Result<Changes, CheckError> {
    let mut changes = Changes::default();
    let mut has_copied = false;
    for (index, entry) in entries.iter_mut().enumerate() {
        let value = entry.get();
        if value != 0 && index >= beyond {
            entry.set(0);
            changes.note(index);
        } else if let Ok(Data::Cluster(cluster)) = tables.layout.data(value)
            && claimed.insert(cluster..cluster + 1)?.is_some()
        {
            entry.set(copier.copy(tables, cluster, 1)?.get());
            changes.note(index);
            has_copied = true;
        }
    }
    if has_copied {
        flush(tables.storage)?;
    }
    Ok(changes)
}

/// Copies runs of clusters to new clusters, one after the other.
struct Copier<'a> {
    storage: &'a dyn Storage,
    /// The first cluster that nothing names.
    next: u64,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies `count` clusters from `start`; returns where the copy is.
    fn copy(
        &mut self,
        tables: &Tables<'_>,
        start: u64,
        count: u64,
    ) -> Result<HostOffset, CheckError> {
        let cluster_size = tables.layout.cluster_size();
        let no_space =
            || CheckError::NoSpace { at: tables.layout.offset_of(self.next), clusters: count };
        let end = self.next.checked_add(count).ok_or_else(no_space)?;
        let end_byte = end
            .checked_mul(cluster_size)
            .filter(|byte| i64::try_from(*byte).is_ok())
            .ok_or_else(no_space)?;
        let is_fresh = self.storage.growth() == Growth::Zeros;
        if is_fresh {
            set_len(self.storage, end_byte)?;
        } else if end_byte > tables.layout.file_len {
            return Err(no_space());
        }
        let to = self.next * cluster_size;
        self.copy_bytes(start * cluster_size, to, count * cluster_size, is_fresh)?;
        self.next = end;
        Ok(HostOffset::new(to))
    }

    /// Copies `len` bytes; to a place that reads as zeros only what is not zero.
    fn copy_bytes(
        &mut self,
        from: u64,
        to: u64,
        len: u64,
        is_fresh: bool,
    ) -> Result<(), CheckError> {
        let mut done = 0;
        while done < len {
            let run = self.storage.run_at(from + done).map_err(|source| CheckError::Read {
                at: HostOffset::new(from + done),
                len: len - done,
                source,
            })?;
            if is_fresh && run.kind == RunKind::Hole && run.len > 0 {
                done = done.saturating_add(run.len);
                continue;
            }
            let count = usize::try_from(len - done).unwrap_or(usize::MAX).min(COPY_BYTES);
            let bytes = &mut self.buffer[..count];
            read(self.storage, bytes, from + done)?;
            if !is_fresh || bytes.iter().any(|byte| *byte != 0) {
                write(self.storage, bytes, to + done)?;
            }
            done += count as u64;
        }
        Ok(())
    }
}
