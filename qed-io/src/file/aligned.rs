//! A buffer whose bytes start at an aligned address.
//!
//! Owns the over-allocation that makes this possible in safe code; knows nothing of I/O.

use std::ops::{Deref, DerefMut};

/// Bytes at an address that is a multiple of some alignment; zeros at first.
#[derive(Debug)]
#[cfg_attr(not(feature = "io_uring"), expect(unreachable_pub, reason = "exported with the ring"))]
pub struct AlignedBuf {
    /// Never grows or shrinks, so that its bytes stay where they are.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

#[cfg_attr(not(feature = "io_uring"), expect(unreachable_pub, reason = "exported with the ring"))]
impl AlignedBuf {
    /// A buffer of `len` bytes at a multiple of `align`, which is a power of two.
    ///
    /// # Panics
    /// If `align` is not a power of two, or there is not enough memory.
    #[must_use]
    pub fn new(len: usize, align: usize) -> Self {
        let bytes = vec![0; len + align - 1];
        let start = bytes.as_ptr().align_offset(align);
        Self { bytes, start, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Whether the bytes of `buf` start at a multiple of `align`.
pub(super) fn is_aligned(buf: &[u8], align: usize) -> bool {
    buf.as_ptr().align_offset(align) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_starts_aligned_and_keeps_its_bytes() {
        for align in [1, 4, 512, 4096, 65536] {
            for len in [0, 1, 511, 512, 4097] {
                let mut buf = AlignedBuf::new(len, align);
                assert!(is_aligned(&buf, align));
                assert_eq!(buf.len(), len);
                buf.fill(7);
                assert!(buf.iter().all(|&byte| byte == 7));
            }
        }
    }
}
