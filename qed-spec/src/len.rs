//! Lengths in memory as the 64-bit numbers that offsets are. Nothing else.

/// `len` as a number of bytes of the image.
#[expect(clippy::as_conversions, reason = "usize is at most 64 bits wide")]
pub(crate) const fn wide(len: usize) -> u64 {
    len as u64
}
