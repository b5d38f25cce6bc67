//! Superblocks as a writer lays them, and compat mode for an image with room for it: a superblock, and a
//! bitmap with marks that are right or not.

use arbitrary::{Result, Unstructured};

use super::ImageCase;
use crate::crc32c::crc32c_of_block;
use crate::generators::number::number;

const BITMAP: u64 = 16384;
const SECTOR: u64 = 512;
/// Where the copies lie.
pub(super) const COPIES: [u64; 2] = [8192, 12288];
/// uuid and epoch, as they lie in a copy.
pub(super) const SEED: [u8; 24] = *b"uuid of the imageepoch 1";
/// A bit of autoclear_features.
pub(super) const TABLE_DIRTY: u64 = 1 << 32;

pub(super) fn section(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(u32::try_from(payload.len()).expect("short").to_le_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A copy with these sections.
pub(super) fn copy(generation: u64, sections: &[u8]) -> Vec<u8> {
    let mut bytes = b"QEDX\x01\0\0\0\0\0\0\0".to_vec();
    bytes.extend(u32::try_from(sections.len()).expect("short").to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    bytes.extend(SEED);
    bytes.extend(sections);
    bytes.resize(4096, 0);
    let crc = crc32c_of_block(&bytes);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Makes a classic image one in compat mode, if it has the room and luck will have it.
pub(super) fn dress(image: &ImageCase, from: &mut Unstructured<'_>) -> Result<()> {
    let has_room = image.parts.header_end >= BITMAP + SECTOR;
    if !has_room || from.arbitrary()? {
        return Ok(());
    }
    let (mut at, mut epoch_size) = (BITMAP, image.len());
    match from.int_in_range(0..=15)? {
        15 => at = number(from, &[BITMAP, image.parts.header_end])?,
        10..15 => epoch_size = number(from, &[image.len(), image.parts.l1_at])?,
        _ => {}
    }
    let bitmap = [at, SECTOR, epoch_size].map(u64::to_le_bytes).concat();
    let mode = u32::from(from.int_in_range(0..=31)? < 31).to_le_bytes();
    let sections = [section(1, &mode), section(5, &bitmap)].concat();
    image.put(COPIES[from.choose_index(COPIES.len())?], &copy(1, &sections));
    if from.int_in_range(0..=7)? < 7 {
        image.put64(32, TABLE_DIRTY);
    }
    if from.arbitrary()? {
        image.put(BITMAP, &[from.arbitrary()?]);
    }
    Ok(())
}
