//! What a guest does to a disk, as a value: generated, printed, and applied to anything that can
//! do it.

use std::ops::Range;

use crate::size::usize_of;

/// One operation on a virtual disk. Ranges are in bytes, not empty, and inside the size that the
/// disk has when the operation's turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes the content that [`content`] makes of `fill`.
    Write {
        /// Where.
        range: Range<u64>,
        /// What.
        fill: u8,
    },
    /// Makes the range read as zeros.
    WriteZeroes {
        /// Where.
        range: Range<u64>,
    },
    /// Makes the range read as zeros; whole clusters give up their space.
    Unmap {
        /// Where.
        range: Range<u64>,
    },
    /// Reads, and compares with what is expected.
    Read {
        /// Where.
        range: Range<u64>,
    },
    /// Makes what was written durable.
    Flush,
    /// Changes the size of the disk; new bytes are zeros.
    Resize {
        /// Bytes, a multiple of 512.
        size: u64,
    },
}

impl Operation {
    /// The bytes of the disk that it is about, if it is about some.
    #[must_use]
    pub fn range(&self) -> Option<Range<u64>> {
        match self {
            Self::Write { range, .. }
            | Self::WriteZeroes { range }
            | Self::Unmap { range }
            | Self::Read { range } => Some(range.clone()),
            Self::Flush | Self::Resize { .. } => None,
        }
    }
}

/// The bytes that a write of `fill` puts into `range`: they differ from sector to sector, so that a
/// cluster that ends up in the place of another one shows.
#[must_use]
pub fn content(fill: u8, range: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let sector_end = (at / 512 + 1).saturating_mul(512).min(range.end);
        let [.., last] = (at / 512).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        bytes.resize(bytes.len() + usize_of(sector_end - at), last.wrapping_add(fill));
        at = sector_end;
    }
    bytes
}
