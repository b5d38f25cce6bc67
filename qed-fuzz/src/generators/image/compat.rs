//! Compat mode for an image with room for it: a superblock, and a bitmap with marks that are right or
//! not.

use arbitrary::{Result, Unstructured};

use super::ImageCase;
use super::sections::{COPIES, TABLE_DIRTY, copy, section};
use crate::generators::number::number;

const BITMAP: u64 = 16384;
const SECTOR: u64 = 512;

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
