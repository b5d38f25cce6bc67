//! Compressed clusters without a compressor: the shortest streams that the formats allow.

use crate::size::usize_of;

/// Longest stored block of deflate, and block of zstd, in bytes.
const DEFLATE_BLOCK: usize = 65535;
const ZSTD_BLOCK: usize = 128 << 10;

/// The bytes as raw deflate: stored blocks only.
pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let blocks = bytes.len().div_ceil(DEFLATE_BLOCK);
    for (number, block) in (1..).zip(bytes.chunks(DEFLATE_BLOCK)) {
        let len = u16::try_from(block.len()).expect("at most a block");
        stream.push(u8::from(number == blocks));
        stream.extend(len.to_le_bytes());
        stream.extend((!len).to_le_bytes());
        stream.extend(block);
    }
    stream
}

/// The bytes as a zstd frame: blocks that are one byte repeated, or stored.
pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x28, 0xb5, 0x2f, 0xfd];
    // One segment, and the length of the content in four bytes.
    stream.push(0xa0);
    stream.extend(u32::try_from(bytes.len()).expect("a cluster").to_le_bytes());
    let blocks = bytes.len().div_ceil(ZSTD_BLOCK);
    for (number, block) in (1..).zip(bytes.chunks(ZSTD_BLOCK)) {
        let repeats = block.iter().all(|byte| *byte == block[0]);
        let (kind, payload) = if repeats { (1, &block[..1]) } else { (0, block) };
        let head = usize::from(number == blocks) | kind << 1 | block.len() << 3;
        stream.extend(&head.to_le_bytes()[..3]);
        stream.extend(payload);
    }
    stream
}

/// Sectors that a stream of `len` bytes from `offset` touches.
pub(super) fn sectors(offset: u64, len: usize) -> u64 {
    let end = offset + len as u64;
    end.div_ceil(512) - offset / 512
}

/// Whether the length of a stream can be said in an entry of an image with these clusters.
pub(super) fn fits(offset: u64, len: usize, cluster_bits: u32) -> bool {
    usize_of(sectors(offset, len)) <= 1 << (cluster_bits - 8)
}
