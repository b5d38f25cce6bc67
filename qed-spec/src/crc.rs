//! The one checksum of the format. It knows bytes, not what they mean.

use crc::{CRC_32_ISCSI, Crc, Table};
use zerocopy::IntoBytes;

/// CRC-32C, also called Castagnoli; 16 bytes a step, for the journal's sake.
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Where a block keeps its own checksum: after magic and version, in every version of every block.
const FIELD: core::ops::Range<usize> = 8..12;

/// The checksum of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// The checksum of words in little-endian order.
pub(crate) fn crc32c_of_words<const N: usize>(words: &[u64; N]) -> u32 {
    // In one piece: what is left of a step is taken byte by byte.
    crc32c(words.map(u64::to_le).as_bytes())
}

/// The checksum of a block whose own checksum field counts as zeros.
// spec: QED-SB-03
pub(crate) fn crc32c_of_block(block: &[u8]) -> u32 {
    crc32c_of_seeded_block(&[], block)
}

/// The checksum of `seed` and a block whose own checksum field counts as zeros.
// spec: QED-JRN-05
pub(crate) fn crc32c_of_seeded_block(seed: &[u8], block: &[u8]) -> u32 {
    let (before, rest) = block.split_at_checked(FIELD.start).unwrap_or((block, &[]));
    let (_, after) = rest.split_at_checked(FIELD.len()).unwrap_or_default();
    let mut digest = CRC32C.digest();
    digest.update(seed);
    digest.update(before);
    digest.update(&[0; 4]);
    digest.update(after);
    digest.finalize()
}
