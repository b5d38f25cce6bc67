//! Offsets, cluster numbers and table indices as types that do not mix.
//!
//! Conversion between them needs the image's shape and lives in [`crate::Geometry`] alone.

use core::fmt;
use core::num::NonZeroU64;

/// A byte offset in the virtual disk, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct GuestOffset(u64);

/// A byte offset in the image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct HostOffset(u64);

/// The number of a cluster of the virtual disk, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct GuestCluster(u64);

/// The number of a cluster of the image file. Cluster 0 holds the header, so no table names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct HostCluster(NonZeroU64);

/// A number of clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct ClusterCount(u64);

/// The index of an entry in the L1 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct L1Index(u64);

/// The index of an entry in one L2 table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct L2Index(u64);

macro_rules! plain_number {
    ($($name:ident),*) => {$(
        impl $name {
            /// The number as this kind of value.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }
    )*};
}
plain_number!(GuestOffset, HostOffset, GuestCluster, ClusterCount, L1Index, L2Index);

impl HostCluster {
    /// The cluster with this number; none for 0.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number of the cluster.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The cluster `count` further on; none when the number would overflow.
    #[must_use]
    pub const fn checked_add(self, count: ClusterCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl GuestOffset {
    /// The offset `len` bytes further on; none when it would overflow.
    #[must_use]
    pub const fn checked_add(self, len: u64) -> Option<Self> {
        match self.0.checked_add(len) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl HostOffset {
    /// The offset `len` bytes further on; none when it would overflow.
    #[must_use]
    pub const fn checked_add(self, len: u64) -> Option<Self> {
        match self.0.checked_add(len) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl fmt::Display for GuestOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for HostOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for L1Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L1[{}]", self.0)
    }
}

impl fmt::Display for L2Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L2[{}]", self.0)
    }
}
