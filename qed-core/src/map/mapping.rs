//! The answer about a guest range. Knows no table.

use qed_spec::{HostOffset, L1Index, L2Index};

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

/// Where an L2 entry stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryAt {
    pub(crate) l1: L1Index,
    pub(crate) l2: L2Index,
}

/// What names clusters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NamedBy {
    /// An L1 slot its table.
    L1(L1Index),
    /// Entries that follow each other, the first of them here, a cluster each.
    L2(EntryAt),
}
