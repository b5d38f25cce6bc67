//! The checksum of the format, bit by bit: slow, and short enough to be right at sight.

/// The CRC-32C of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The checksum of a block that keeps it in bytes 8 to 12, which count as zeros.
pub(crate) fn crc32c_of_block(block: &[u8]) -> u32 {
    let mut block = block.to_vec();
    block[8..12].fill(0);
    crc32c(&block)
}

/// The same of a block of the journal, behind what tells its image and epoch from others.
pub(crate) fn crc32c_of_seeded_block(seed: &[u8], block: &[u8]) -> u32 {
    let mut bytes = [seed, block].concat();
    bytes[seed.len() + 8..seed.len() + 12].fill(0);
    crc32c(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
