//! The changes that make an image near-valid: entries that point to where they must not, files cut
//! short, flags, header fields.

use arbitrary::{Result, Unstructured};

use super::{BACKING_NAME, BACKING_NAME_AT, ImageCase};
use crate::generators::number::number;

/// Where the fields of the header lie.
const HEADER_SIZE: u64 = 12;
const FEATURES: u64 = 16;
const COMPAT: u64 = 24;
const AUTOCLEAR: u64 = 32;
const L1_TABLE_OFFSET: u64 = 40;
const IMAGE_SIZE: u64 = 48;
const BACKING_OFFSET: u64 = 56;
const BACKING_LEN: u64 = 60;

const BACKING_FILE: u64 = 1;
const NEED_CHECK: u64 = 2;

/// Makes one change.
pub(super) fn change(case: &mut ImageCase, from: &mut Unstructured<'_>) -> Result<()> {
    match from.int_in_range(0..=15)? {
        0..7 => {
            let at = l2_slot(case, from)?;
            let value = target(case, from)?;
            case.put64(at, value);
        }
        7..10 => {
            let at = l1_slot(case, from)?;
            let value = target(case, from)?;
            case.put64(at, value);
        }
        10..12 => {
            let len = length(case, from)?;
            case.set_len(len);
        }
        12 => case.put64(FEATURES, case.get64(FEATURES) ^ NEED_CHECK),
        13 => name_backing(case, from)?,
        14 => {
            let field = *from.choose(&[FEATURES, COMPAT, AUTOCLEAR])?;
            let bit = 1 << from.int_in_range(0..=63)?;
            case.put64(field, case.get64(field) | bit);
        }
        _ => header_field(case, from)?,
    }
    Ok(())
}

/// Where a slot of an L2 table lies, most often one that has an entry.
fn l2_slot(case: &ImageCase, from: &mut Unstructured<'_>) -> Result<u64> {
    let entries = case.parts.geometry.table_entries();
    if case.parts.tables.is_empty() {
        return l1_slot(case, from);
    }
    let table = from.choose(&case.parts.tables)?;
    let slot = match from.int_in_range(0..=3)? {
        0 => from.int_in_range(0..=entries - 1)?,
        1 => entries - 1,
        _ if table.slots.is_empty() => 0,
        _ => *from.choose(&table.slots)?,
    };
    Ok(table.at + 8 * slot)
}

/// Where a slot of the L1 table lies, most often one that the disk needs.
fn l1_slot(case: &ImageCase, from: &mut Unstructured<'_>) -> Result<u64> {
    let slot = match from.int_in_range(0..=7)? {
        0 => case.parts.geometry.table_entries() - 1,
        1 => case.parts.l1_slots,
        near => near % case.parts.l1_slots,
    };
    Ok(case.parts.l1_at + 8 * slot.min(case.parts.geometry.table_entries() - 1))
}

/// What an entry points to.
fn target(case: &ImageCase, from: &mut Unstructured<'_>) -> Result<u64> {
    let (parts, len) = (&case.parts, case.len());
    let cluster = parts.geometry.cluster_size_bytes();
    let table_clusters = parts.geometry.table_size_clusters();
    let whole_end = len - len % cluster;
    let tables: Vec<u64> = parts.tables.iter().map(|table| table.at).collect();
    let near = |from: &mut Unstructured<'_>, place: u64| -> Result<u64> {
        let clusters = from.int_in_range(0..=table_clusters)?;
        let there = clusters * cluster;
        Ok(if from.arbitrary()? { place.wrapping_add(there) } else { place.wrapping_sub(there) })
    };
    Ok(match from.int_in_range(0..=15)? {
        0 => from.int_in_range(0..=parts.header_end / cluster)? * cluster,
        1 => near(from, parts.l1_at)?,
        2..4 if !tables.is_empty() => *from.choose(&tables)?,
        4 if !tables.is_empty() => {
            let table = *from.choose(&tables)?;
            near(from, table)?
        }
        5..8 if !parts.data.is_empty() => *from.choose(&parts.data)?,
        8 if !parts.data.is_empty() => *from.choose(&parts.data)? + *from.choose(&[1, 8, 512])?,
        9 => whole_end,
        10 => near(from, whole_end)?,
        11 => whole_end.saturating_sub(cluster),
        12 => from.int_in_range(0..=2)?,
        _ => number(from, &[cluster, len, whole_end, parts.l1_at, parts.header_end])?,
    })
}

/// A length of the file.
fn length(case: &ImageCase, from: &mut Unstructured<'_>) -> Result<u64> {
    let cluster = case.parts.geometry.cluster_size_bytes();
    let len = case.len();
    Ok(match from.int_in_range(0..=7)? {
        0 => len.saturating_sub(1),
        1 => len.saturating_sub(512),
        2 => len.saturating_sub(cluster - 1),
        3 => len.saturating_sub(cluster * from.int_in_range(1..=4)?),
        4 => len + *from.choose(&[1, 8, 512])?,
        5 => len.saturating_add(cluster * from.int_in_range(1..=4)?),
        6 => len.saturating_sub(from.int_in_range(0..=4 * cluster)?),
        // A file that claims much: within what a check gives memory for.
        _ => len.saturating_add(number(from, &[])? & 0x3_ffff_ffff),
    })
}

/// Names a backing file in the header.
fn name_backing(case: &ImageCase, from: &mut Unstructured<'_>) -> Result<()> {
    let no_probe = if from.arbitrary()? { 4 } else { 0 };
    case.put64(FEATURES, case.get64(FEATURES) | BACKING_FILE | no_probe);
    case.put32(BACKING_OFFSET, BACKING_NAME_AT);
    case.put32(BACKING_LEN, BACKING_NAME.len() as u64);
    case.put(BACKING_NAME_AT, BACKING_NAME);
    Ok(())
}

fn header_field(case: &ImageCase, from: &mut Unstructured<'_>) -> Result<()> {
    let geometry = case.parts.geometry;
    let cluster = geometry.cluster_size_bytes();
    match from.int_in_range(0..=7)? {
        0..4 => {
            let coverage = geometry.l2_coverage_bytes();
            let value = match from.int_in_range(0..=2)? {
                0 => number(from, &[coverage, 2 * coverage, cluster, case.get64(IMAGE_SIZE)])?,
                1 => coverage.saturating_mul(from.int_in_range(0..=3)?),
                _ => cluster * from.int_in_range(0..=8)?,
            };
            case.put64(IMAGE_SIZE, value & !511);
        }
        4 => case.put32(HEADER_SIZE, from.int_in_range(0..=12)?),
        5 => {
            let place = from.int_in_range(0..=12)?;
            case.put64(L1_TABLE_OFFSET, place * cluster);
        }
        6 => case.put32(8, 1 << from.int_in_range(0..=4)?),
        _ => case.put32(4, 1 << from.int_in_range(12..=14)?),
    }
    Ok(())
}
