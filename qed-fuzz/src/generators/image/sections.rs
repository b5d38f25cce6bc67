//! Superblocks as a writer lays them.

use crate::crc32c::crc32c_of_block;

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
