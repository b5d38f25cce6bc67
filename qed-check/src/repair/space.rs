//! Giving space back that nothing names: the end of the file is cut off, what lies before is punched.
//!
//! Only of images in which such space is leaked; the next writer of any other uses it.

use std::ops::Range;

use qed_io::{Growth, RunKind};
use qed_layout::PieceBuffer;
use qed_spec::HostOffset;

use super::write;
use crate::check::{CheckOptions, walk};
use crate::error::CheckError;
use crate::layout::Data;
use crate::tables::Tables;

/// The cluster after the last one that anything names.
///
/// What lies beyond is named by no table, not even by one that another table overlaps.
pub(super) fn named_end(tables: &Tables<'_>) -> Result<u64, CheckError> {
    let layout = &tables.layout;
    let mut end = layout.clusters_of(&(0..layout.roots.end())).end;
    let mut buffer = PieceBuffer::default();
    tables.for_each_l1(|_, value| {
        let Ok(Some(table)) = layout.table(value) else {
            return Ok(());
        };
        end = end.max(table.end);
        tables.reader.for_each(tables.l2_pieces(table.start), &mut buffer, |_, value| {
            if let Ok(Data::Cluster(cluster)) = layout.data(value) {
                end = end.max(cluster + 1);
            }
            Ok(())
        })
    })?;
    Ok(end)
}

/// Makes the file end with the cluster before `end`, durably; a block device keeps its length.
// spec: QED-CHK-06
pub(super) fn end_file_at(tables: &Tables<'_>, end: u64) -> Result<(), CheckError> {
    let len = tables.layout.offset_of(end).get();
    if len != tables.layout.file_len && tables.storage.growth() == Growth::Zeros {
        // What unnamed bytes that go must be durable before.
        write::flush(tables.storage)?;
        write::set_len(tables.storage, len)?;
        write::flush(tables.storage)?;
    }
    Ok(())
}

/// Punches the leaks of an image that a check found to be sound, as far as they take space; durable
/// when it returns. Returns how many bytes went back to the storage.
///
/// They stay leaks: nothing names them, whatever the storage keeps for them.
// spec: QED-CHK-06, QED-FREE-02
pub(super) fn punch_leaks(tables: &Tables<'_>) -> Result<u64, CheckError> {
    if tables.space.is_free {
        return Ok(0);
    }
    let used = walk(tables, &CheckOptions::default())?.used;
    let layout = &tables.layout;
    let (mut punched, mut is_unnaming_durable) = (0, false);
    for mut gap in used.gaps(layout.clusters) {
        if gap.end == layout.clusters {
            gap.end = tables.space.end(&gap);
        }
        // What undoes a conversion is no leak.
        gap.start = gap.start.max(tables.held_end);
        let end = layout.offset_of(gap.end.min(layout.whole_clusters)).get();
        for_each_data_run(tables, layout.offset_of(gap.start).get()..end, |run| {
            if !is_unnaming_durable {
                write::flush(tables.storage)?;
                is_unnaming_durable = true;
            }
            punched += punch(tables, run)?;
            Ok(())
        })?;
    }
    if punched > 0 {
        write::flush(tables.storage)?;
    }
    Ok(punched)
}

/// Calls `each` with the parts of `range` that the storage has space for.
fn for_each_data_run(
    tables: &Tables<'_>,
    range: Range<u64>,
    mut each: impl FnMut(Range<u64>) -> Result<(), CheckError>,
) -> Result<(), CheckError> {
    let mut at = range.start;
    while at < range.end {
        let run = tables.storage.run_at(at).map_err(|source| CheckError::Read {
            at: HostOffset::new(at),
            len: range.end - at,
            source,
        })?;
        if run.len == 0 {
            break;
        }
        let end = at.saturating_add(run.len).min(range.end);
        if run.kind == RunKind::Data {
            each(at..end)?;
        }
        at = end;
    }
    Ok(())
}

/// Gives the bytes of `run` back; returns how many went.
fn punch(tables: &Tables<'_>, run: Range<u64>) -> Result<u64, CheckError> {
    let (at, len) = (HostOffset::new(run.start), run.end - run.start);
    let outcome = match tables.storage.growth() {
        Growth::Zeros => tables.storage.punch_hole(run),
        Growth::Stale => tables.storage.discard(run),
    };
    match outcome {
        Ok(is_back) => Ok(if is_back { len } else { 0 }),
        Err(source) => Err(CheckError::Write { at, len, source }),
    }
}
