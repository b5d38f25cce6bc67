//! The answer about a guest range. Knows no table.

use qed_spec::HostOffset;

/// A run of guest bytes that one mapping of one image serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Where the bytes come from.
    pub kind: ExtentKind,
}

/// What an [`Extent`] is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Stored in the image file from this offset.
    Data(HostOffset),
    /// Zeros, whatever the backing file holds.
    Zero,
    /// Not in this image: the backing file's bytes, zeros where there are none.
    Unallocated,
}
