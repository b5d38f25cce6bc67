//! The refcounts of a QCOW2 image: where their blocks lie, and where the last counted cluster ends.
//! Nothing else is asked of them.

use qed_io::Storage;

use crate::in_place::error::{InPlaceError, Step};
use crate::qcow2::Qcow2Header;

/// Offsets of the refcount blocks that lie inside the file, for its clusters.
pub(super) fn blocks(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
) -> Result<Vec<u64>, InPlaceError> {
    Ok(numbered_blocks(storage, header, file_len)?.into_iter().map(|(_, at)| at).collect())
}

/// Byte after the last cluster with a refcount that is not zero.
pub(super) fn end_of_counted(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
) -> Result<u64, InPlaceError> {
    let cluster_len = header.cluster_size();
    let bits = u64::from(header.refcount_bits());
    let mut block = vec![0; usize::try_from(cluster_len).expect("at most 2 MiB")];
    for (number, at) in numbered_blocks(storage, header, file_len)?.into_iter().rev() {
        storage.read_at(&mut block, at).map_err(InPlaceError::io(Step::Read, at))?;
        let Some(last) = block.iter().rposition(|byte| *byte != 0) else { continue };
        // Counts below a byte lie in it from its lowest bit on.
        let highest = u64::from(7 - block[last].leading_zeros());
        let entry =
            if bits < 8 { (last as u64 * 8 + highest) / bits } else { last as u64 * 8 / bits };
        let cluster = number * (cluster_len * 8 / bits) + entry;
        return Ok((cluster + 1).saturating_mul(cluster_len));
    }
    Ok(0)
}

/// Blocks by number. Those past the end of the file count nothing.
fn numbered_blocks(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
) -> Result<Vec<(u64, u64)>, InPlaceError> {
    let cluster_len = header.cluster_size();
    let table = header.refcounts();
    let per_block = cluster_len * 8 / u64::from(header.refcount_bits());
    let wanted = file_len.div_ceil(cluster_len).div_ceil(per_block);
    let there = file_len.saturating_sub(table.offset).min(table.len) / 8;
    let mut bytes = vec![0; usize::try_from(wanted.min(there) * 8).expect("at most 8 MiB")];
    storage
        .read_at(&mut bytes, table.offset)
        .map_err(InPlaceError::io(Step::Read, table.offset))?;
    let (entries, _) = bytes.as_chunks();
    let entries = (0..).zip(entries).map(|(number, entry)| (number, u64::from_be_bytes(*entry)));
    let is_inside = |at: u64| at.checked_add(cluster_len).is_some_and(|end| end <= file_len);
    let is_block = |at: u64| at != 0 && at.is_multiple_of(cluster_len) && is_inside(at);
    Ok(entries.filter(|(_, at)| is_block(*at)).collect())
}
