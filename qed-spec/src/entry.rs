//! L1 and L2 table entries: eight bytes to meaning and back.

use crate::addr::{HostCluster, HostOffset};
use crate::error::EntryError;
use crate::geometry::Geometry;

/// What one slot of the L1 table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L1Entry {
    /// No L2 table: the whole range is unallocated.
    Unallocated,
    /// The L2 table starts at this cluster.
    Table(HostCluster),
}

/// What one slot of an L2 table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L2Entry {
    /// Reads from the backing file, or as zeros where there is none.
    Unallocated,
    /// Reads as zeros, whatever the backing file holds.
    Zero,
    /// Reads from this host cluster.
    Data(HostCluster),
}

impl L1Entry {
    /// Decodes the 64-bit value of a slot. Whether the table lies inside the file is not asked.
    ///
    /// # Errors
    /// [`EntryError::Unaligned`] for anything that is neither 0 nor a cluster-aligned offset.
    // spec: QED-TBL-02, QED-TBL-03
    pub const fn decode(value: u64, geometry: Geometry) -> Result<Self, EntryError> {
        if value == 0 {
            return Ok(Self::Unallocated);
        }
        match geometry.host_cluster(HostOffset::new(value)) {
            Some(cluster) => Ok(Self::Table(cluster)),
            None => Err(EntryError::Unaligned { value }),
        }
    }

    /// The 64-bit value of the slot; the exact inverse of [`L1Entry::decode`].
    #[must_use]
    pub const fn encode(self, geometry: Geometry) -> u64 {
        match self {
            Self::Unallocated => 0,
            Self::Table(cluster) => geometry.host_offset(cluster).get(),
        }
    }
}

impl L2Entry {
    const ZERO: u64 = 1;

    /// Decodes the 64-bit value of a slot. Whether the cluster lies inside the file is not asked.
    ///
    /// # Errors
    /// [`EntryError::Unaligned`] for anything that is neither 0, 1 nor a cluster-aligned offset.
    // spec: QED-TBL-03, QED-TBL-04, QED-TBL-05
    pub const fn decode(value: u64, geometry: Geometry) -> Result<Self, EntryError> {
        match value {
            0 => Ok(Self::Unallocated),
            Self::ZERO => Ok(Self::Zero),
            _ => match geometry.host_cluster(HostOffset::new(value)) {
                Some(cluster) => Ok(Self::Data(cluster)),
                None => Err(EntryError::Unaligned { value }),
            },
        }
    }

    /// The 64-bit value of the slot; the exact inverse of [`L2Entry::decode`].
    #[must_use]
    pub const fn encode(self, geometry: Geometry) -> u64 {
        match self {
            Self::Unallocated => 0,
            Self::Zero => Self::ZERO,
            Self::Data(cluster) => geometry.host_offset(cluster).get(),
        }
    }
}
