//! Why bytes are not what the specification asks for: values with the place and what was found.

use thiserror::Error;

use crate::addr::HostOffset;

/// Why the header of an image is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer bytes than a header.
    #[error("{found} bytes are too few for a QED header of 64 bytes")]
    Truncated {
        /// Bytes there were.
        found: u64,
    },
    /// The magic is not `QED\0`.
    #[error("not a QED image: bytes 0..4 are {found:02x?}, not \"QED\\0\"")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// An incompatible feature bit that this implementation does not support.
    #[error("unsupported QED feature bit {bit}{}", feature_name(.name))]
    UnsupportedFeature {
        /// Number of the bit in `features`.
        bit: u32,
        /// Its name, where the specification has one.
        name: Option<&'static str>,
    },
    /// `cluster_size` is not legal.
    #[error("cluster size {found} at byte 4 is not a power of two in 4096..=67108864")]
    ClusterSize {
        /// Bytes.
        found: u32,
    },
    /// `table_size` is not legal.
    #[error("table size {found} at byte 8 is not 1, 2, 4, 8 or 16 clusters")]
    TableSize {
        /// Clusters.
        found: u32,
    },
    /// `header_size` is zero or reaches past the file.
    #[error("header size {found} clusters at byte 12 is not in 1..={max}")]
    HeaderSize {
        /// Clusters.
        found: u32,
        /// Clusters that the file has.
        max: u64,
    },
    /// `l1_table_offset` is unaligned, in the header area or reaches past the file.
    #[error(
        "L1 table offset {found} at byte 40 is not a cluster after the header area whose table ends inside the file of {file_len} bytes"
    )]
    L1TableOffset {
        /// The offset.
        found: HostOffset,
        /// Bytes of the file.
        file_len: u64,
    },
    /// `image_size` is not a multiple of 512.
    #[error("image size {found} at byte 48 is not a multiple of 512")]
    ImageSizeUnaligned {
        /// Bytes.
        found: u64,
    },
    /// `image_size` is more than the tables can map.
    #[error("image size {found} at byte 48 is more than the {max} bytes the tables can map")]
    ImageSizeTooLarge {
        /// Bytes.
        found: u64,
        /// Bytes the tables can map.
        max: u64,
    },
    /// The backing file name is not legal.
    #[error("backing file name")]
    BackingName(#[source] BackingNameError),
}

/// Why a backing file name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackingNameError {
    /// The name has no bytes.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than any implementation reads.
    #[error("the name has {found} bytes, more than 4095")]
    TooLong {
        /// Bytes.
        found: u64,
    },
    /// The name overlaps the header structure or leaves the header area.
    #[error("bytes {offset}..{end} are not inside the header area 64..{area_end}")]
    OutsideHeaderArea {
        /// First byte.
        offset: u64,
        /// Byte after the last.
        end: u64,
        /// End of the header area.
        area_end: u64,
    },
    /// The name holds a NUL byte.
    #[error("byte {at} of the name is NUL")]
    Nul {
        /// Position in the name.
        at: u64,
    },
    /// Fewer bytes were handed in than the name reaches; the caller reads on and tries again.
    #[error("the name ends at byte {needed} but only {found} bytes were read")]
    NeedMore {
        /// Bytes needed from the start of the file.
        needed: u64,
        /// Bytes there were.
        found: u64,
    },
}

/// Why a table slot has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Neither a special value nor a cluster-aligned offset.
    #[error("entry {value:#x} is not cluster-aligned")]
    Unaligned {
        /// The 64-bit value.
        value: u64,
    },
}

fn feature_name(name: &Option<&'static str>) -> FeatureName {
    FeatureName(*name)
}

struct FeatureName(Option<&'static str>);

impl core::fmt::Display for FeatureName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}
