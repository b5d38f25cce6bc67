//! Clears the entries that cannot be right whatever else the image holds.

use qed_layout::PieceBuffer;
use qed_spec::L1Index;

use super::write::{Changes, flush};
use crate::error::CheckError;
use crate::tables::Tables;

/// Makes unallocated: entries that are unaligned, past the end of the file or name header area or L1
/// table, and L1 slots past the end of the virtual disk. Durable on return.
///
/// Entries that name a cluster of an L2 table stay, and get a copy of it later: either may be right.
/// Tables that overlap others are cleared too: when one of them later gets a copy, the copy must
/// not bring back an entry that the growing file would give a meaning.
// spec: QED-CHK-05
pub(super) fn run(tables: &Tables<'_>) -> Result<(), CheckError> {
    let mut buffer = PieceBuffer::default();
    // First, so that a table that is about to go takes no data of the disk with it.
    clear_l1(tables, &mut buffer, |l1, _| tables.layout.is_beyond_image(l1))?;
    flush(tables.storage)?;
    tables.for_each_l1(|_, value| match tables.layout.table(value) {
        Ok(Some(table)) => clear_l2(tables, table.start, &mut buffer),
        _ => Ok(()),
    })?;
    clear_l1(tables, &mut buffer, |_, value| tables.layout.table(value).is_err())?;
    flush(tables.storage)
}

fn clear_l1(
    tables: &Tables<'_>,
    buffer: &mut PieceBuffer,
    is_wrong: impl Fn(L1Index, u64) -> bool,
) -> Result<(), CheckError> {
    for piece in tables.l1_pieces() {
        let piece = piece?;
        let entries = buffer.read(tables.storage, &piece)?;
        let mut changes = Changes::default();
        for (index, entry) in entries.iter_mut().enumerate() {
            let l1 = L1Index::new(piece.first + index as u64);
            if entry.get() != 0 && tables.covers(l1) && is_wrong(l1, entry.get()) {
                entry.set(0);
                changes.note(index);
            }
        }
        changes.write(tables.storage, entries, piece.at)?;
    }
    Ok(())
}

fn clear_l2(tables: &Tables<'_>, start: u64, buffer: &mut PieceBuffer) -> Result<(), CheckError> {
    for piece in tables.l2_pieces(start) {
        let piece = piece?;
        let entries = buffer.read(tables.storage, &piece)?;
        let mut changes = Changes::default();
        for (index, entry) in entries.iter_mut().enumerate() {
            if tables.layout.data(entry.get()).is_err() {
                entry.set(0);
                changes.note(index);
            }
        }
        changes.write(tables.storage, entries, piece.at)?;
    }
    Ok(())
}
