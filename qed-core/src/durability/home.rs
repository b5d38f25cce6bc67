//! Flushes of a classic image and of one in compat mode: entries are written home, and the life of
//! NEED_CHECK and of the dirty bits around that.
//!
//! Step names are those of docs/write-ordering.md.

use qed_journal::DataOrder;
use qed_spec::L1Index;

use crate::change::Batch;
use crate::durability::dirty_bits::DirtyBits;
use crate::durability::lock::{Cx, Metadata};
use crate::error::{ImageError, IoAction};
use crate::map::slice::SLICE_ENTRIES;

/// What dirty bits that cannot be cleared mean to a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clearing {
    /// Nothing: the caller asks for what it wrote, and a bit costs a check after a crash.
    ByTheWay,
    /// That it failed.
    Due,
}

/// Writes everything pending home; where nothing is, clears what says that a check is needed.
pub(super) fn flush(
    metadata: &mut Metadata,
    clearing: Clearing,
    cx: Cx<'_>,
) -> Result<(), ImageError> {
    cx.head.writing().check()?;
    let batch = cx.pending.take(cx.map, &cx.space.alloc.free);
    let written = if batch.is_empty() {
        flush_nothing(metadata, clearing, cx)
    } else {
        metadata.wait_anew();
        write_batch(metadata, &batch, cx)
    };
    match written {
        Ok(()) => {
            cx.map.cache.written(batch.slices.iter().map(|slice| slice.number));
            cx.head.sync()?;
            cx.pending.is_durable(batch.logged);
            cx.space.is_durable(batch.let_go);
            Ok(())
        }
        Err(error) => {
            cx.pending.put_back(batch, cx.map, &cx.space.alloc.free);
            // What could be written is durable all the same: the image may be closed now.
            if cx.head.writing().is_open() {
                drop(cx.head.sync());
            }
            Err(error)
        }
    }
}

/// Steps "clear": whatever was written home is durable, or writing would have stopped.
fn flush_nothing(
    metadata: &mut Metadata,
    clearing: Clearing,
    cx: Cx<'_>,
) -> Result<(), ImageError> {
    let cleared = match clear_need_check(metadata, cx.space.alloc.end.bytes(), cx) {
        Ok(false) => clear_bits(metadata, cx),
        written => written.map(drop),
    };
    if cleared.is_err() && clearing == Clearing::ByTheWay {
        // A failed flush of the storage among those steps is one all the same.
        cx.head.writing().check()?;
    } else {
        cleared?;
    }
    Ok(())
}

/// Clears NEED_CHECK and the dirty bits of an image that is about to end at `end`.
pub(super) fn mark_clean(metadata: &mut Metadata, end: u64, cx: Cx<'_>) -> Result<(), ImageError> {
    let written = clear_need_check(metadata, end, cx)?;
    if metadata.bits.is_some() && (written || !metadata.is_clear()) {
        // What the superblock says of the end is durable before the file is cut to it, and
        // NEED_CHECK is durably clear before the bits are.
        cx.head.sync()?;
        clear_bits(metadata, cx)?;
    }
    Ok(())
}

/// Whether the file has all that it will have until the next write.
pub(super) fn is_settled(metadata: &Metadata, cx: Cx<'_>) -> bool {
    let need_check = cx.head.need_check();
    let is_header_settled = (!need_check || cx.map.is_corrupt()) && !cx.head.is_in_doubt();
    is_header_settled && (need_check || metadata.is_clear()) && cx.pending.is_empty(cx.map)
}

/// Writes a batch home in the order that crash safety asks for.
// spec: QED-RW-06, QED-CONS-02, QED-DIRTY-03, QED-MODE-02
fn write_batch(metadata: &mut Metadata, batch: &Batch, cx: Cx<'_>) -> Result<(), ImageError> {
    // Step "mark": NEED_CHECK and the dirty bits of the tables are durable before a table changes.
    // With a backing file, or on a device, the data flush already orders data, file length and link, so
    // neither is needed.
    let is_ordered = cx.data_comes_first();
    let is_needed = !is_ordered || cx.head.need_check();
    let mut bits = metadata.bits.as_mut().filter(|_| is_needed);
    if let Some(bits) = &mut bits
        && let Some(end) = bits.wanted_end()
    {
        bits.record_end(cx.head, end)?;
        cx.head.sync()?;
    }
    let mut marked = set_need_check(is_needed, cx)?;
    if let Some(bits) = bits {
        cx.head.still_ours()?;
        marked |= bits.set(cx.storage(), l1_slots_of(batch, cx))?;
    }
    // Step "data first": data and file length are durable before an entry that names them.
    // Step "record end", durable with the data of a device.
    let recorded = metadata.record_end(cx)?;
    let data_first = is_ordered || batch.order() == DataOrder::First;
    if marked || data_first {
        cx.head.sync()?;
    }
    if recorded {
        metadata.end_is_durable(cx)?;
    }
    // Step "look".
    cx.head.still_ours()?;
    // Step "link". One table that cannot be written keeps no other from its entries.
    let mut linked = Ok(());
    for slice in &batch.slices {
        let home = slice.copy.home;
        let written = cx.storage().write_at(&slice.copy.bytes, home.get());
        linked = linked.and(written.map_err(ImageError::io(IoAction::WriteTable, home)));
    }
    for (slot, value) in &batch.links {
        linked = linked.and(cx.map.l1.write(cx.storage(), *slot, *value));
    }
    linked
}

/// Step "clear NEED_CHECK": records that the image ends at `end`, if dirty bits are to be cleared or it
/// ended later, and clears NEED_CHECK. Nothing is pending. Whether anything was written that a flush
/// must make durable before the bits are cleared.
// spec: QED-DIRTY-05
fn clear_need_check(metadata: &mut Metadata, end: u64, cx: Cx<'_>) -> Result<bool, ImageError> {
    let is_clear = metadata.is_clear();
    let end_written = match &mut metadata.bits {
        Some(bits) if !is_clear || bits.recorded_end() > end => bits.record_end(cx.head, end)?,
        _ => false,
    };
    Ok(set_need_check(false, cx)? || end_written)
}

/// Step "clear bits". NEED_CHECK is durably clear, and the superblock says where the image ends.
// spec: QED-DIRTY-04
fn clear_bits(metadata: &mut Metadata, cx: Cx<'_>) -> Result<(), ImageError> {
    match &mut metadata.bits {
        Some(bits) if !cx.head.need_check() => {
            cx.head.still_ours()?;
            bits.clear(cx.storage())
        }
        _ => Ok(()),
    }
}

/// Sets or clears NEED_CHECK; whether that was written. It stays once corruption is known.
// spec: QED-CONS-03
fn set_need_check(on: bool, cx: Cx<'_>) -> Result<bool, ImageError> {
    let stays = cx.map.is_corrupt() && cx.head.need_check();
    cx.head.set_need_check(on || stays)
}

/// The L1 slots whose tables a batch changes.
fn l1_slots_of(batch: &Batch, cx: Cx<'_>) -> impl Iterator<Item = L1Index> {
    let slices_per_table = cx.map.geometry.table_entries() / SLICE_ENTRIES;
    let of_slices = batch.slices.iter().map(move |slice| slice.number / slices_per_table);
    of_slices.chain(batch.links.keys().copied()).map(L1Index::new)
}

/// Records that the image ends at `end`, durably, if it ended later.
pub(super) fn lower_recorded_end(
    metadata: &mut Metadata,
    end: u64,
    cx: Cx<'_>,
) -> Result<(), ImageError> {
    match metadata.bits.as_mut().filter(|bits: &&mut DirtyBits| bits.recorded_end() > end) {
        Some(bits) => {
            bits.record_end(cx.head, end)?;
            cx.head.sync()
        }
        None => Ok(()),
    }
}
