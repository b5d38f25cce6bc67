//! The changes that make a QCOW2 image near-valid.

use arbitrary::{Result, Unstructured};
use qed_io::Storage;

use super::{COMPRESSED, COPIED, Qcow2Case};
use crate::generators::number::number;

/// The fields of the header: where each lies, and how many bytes it has.
const HEADER: [(u64, u64); 19] = [
    (0, 4),
    (4, 4),
    (8, 8),
    (16, 4),
    (20, 4),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 4),
    (100, 4),
    (104, 1),
];

/// Makes one change.
pub(super) fn change(case: &mut Qcow2Case, from: &mut Unstructured<'_>) -> Result<()> {
    let (cluster, len) = (case.shape.cluster(), case.len());
    let whole = len - len % cluster;
    let landmarks = [cluster, len, whole, 112, 72, 1 << case.shape.cluster_bits];
    match from.int_in_range(0..=15)? {
        0..6 if !case.entries.is_empty() => {
            let at = *from.choose(&case.entries)?;
            let value = entry(case, from)?;
            case.put64(at, value);
        }
        6..8 if !case.entries.is_empty() => {
            // One bit of an entry.
            let at = *from.choose(&case.entries)?;
            let word = case.storage.content().bytes(at..at + 8);
            let word = u64::from_be_bytes(word.try_into().expect("eight bytes"));
            case.put64(at, word ^ 1 << from.int_in_range(0..=63)?);
        }
        8..12 => {
            let (at, width) = *from.choose(&HEADER)?;
            let value = number(from, &landmarks)?.to_be_bytes();
            case.put(at, &value[value.len() - usize::try_from(width).expect("at most 8")..]);
        }
        12 | 13 if !case.fields.is_empty() => {
            let at = *from.choose(&case.fields)?;
            let value = number(from, &landmarks)?;
            case.put32(at, value & u64::from(u32::MAX));
        }
        14 => {
            let at = from.int_in_range(0..=len.saturating_sub(1).min(1 << 20))?;
            case.put(at, &[from.arbitrary()?]);
        }
        _ => {
            let less = number(from, &[0, cluster])?.min(len);
            // A length that no file has is not set.
            let _ = case.storage.set_len(len - less);
        }
    }
    Ok(())
}

/// An entry of an L1 or L2 table, or a bitmap of subclusters.
fn entry(case: &Qcow2Case, from: &mut Unstructured<'_>) -> Result<u64> {
    let (cluster, len) = (case.shape.cluster(), case.len());
    let offset = match from.int_in_range(0..=3)? {
        0 => cluster * from.int_in_range(0..=len / cluster + 1)?,
        1 => len,
        _ => number(from, &[cluster, len, len - len % cluster])?,
    };
    let flags = [0, COPIED, COMPRESSED, 1, COPIED | 1, COPIED | COMPRESSED, 1 << 61, 1 << 56];
    Ok(offset | *from.choose(&flags)?)
}
