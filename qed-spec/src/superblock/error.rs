//! Why a superblock, an anchor or one of their parts is refused.

use thiserror::Error;

use crate::addr::HostOffset;
use crate::superblock::Generation;
use crate::superblock::copies::SuperblockCopy;
use crate::superblock::section::SectionType;

/// Why one copy of the superblock is refused. Positions are bytes from the start of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SuperblockError {
    /// Fewer bytes than a superblock.
    #[error("{found} bytes are too few for a superblock of 4096 bytes")]
    Truncated {
        /// Bytes there were.
        found: u64,
    },
    /// The magic is not `QEDX`.
    #[error("no superblock: bytes 0..4 are {found:02x?}, not \"QEDX\"")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The bytes are not those that were written.
    #[error("superblock checksum {stored:#010x} at byte 8 is not {computed:#010x}")]
    Checksum {
        /// What the copy carries.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// An intact copy of a version that this crate does not know.
    #[error("superblock version {found} at byte 4 is not 1")]
    Version {
        /// The version.
        found: u32,
    },
    /// The generation is 0.
    #[error("superblock generation at byte 16 is 0")]
    Generation,
    /// `sections_len` is not a multiple of 8 or more than there is room for.
    #[error("sections length {found} at byte 12 is not a multiple of 8 in 0..=4048")]
    SectionsLength {
        /// Bytes.
        found: u32,
    },
    /// A section that ends after the last byte of all sections.
    #[error("section at byte {at} ends past the sections")]
    SectionTruncated {
        /// First byte of its head.
        at: u32,
    },
    /// A section whose type is not above that of the one before it.
    #[error("section at byte {at} has type {kind} after type {previous}")]
    SectionOrder {
        /// First byte of its head.
        at: u32,
        /// Its type.
        kind: SectionType,
        /// The type before it.
        previous: SectionType,
    },
    /// A byte outside every field and payload that is not zero.
    #[error("padding at byte {at} is not zero")]
    Padding {
        /// The byte.
        at: u32,
    },
    /// The section with the backing format has no meaning.
    #[error("backing format section at byte {at}")]
    BackingFormat {
        /// First byte of its payload.
        at: u32,
        /// What is wrong with it.
        #[source]
        error: BackingFormatError,
    },
}

/// Why the section MODE is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModeError {
    /// The payload has another length than 4 bytes.
    #[error("consistency mode has {found} bytes, not 4")]
    Length {
        /// Bytes.
        found: u64,
    },
    /// A mode that this crate does not know.
    #[error("consistency mode {found} is neither 1 (compat) nor 2 (journal)")]
    Unknown {
        /// Its number.
        found: u32,
    },
}

/// Why the section TABLE_DIRTY is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DirtyBitmapError {
    /// The payload has another length than 24 bytes.
    #[error("dirty bitmap section has {found} bytes, not 24")]
    Length {
        /// Bytes.
        found: u64,
    },
    /// The bitmap is not whole sectors of the header area behind the superblocks, clear of the
    /// backing file name.
    #[error(
        "dirty bitmap of {len_bytes} bytes at {offset} is not whole sectors of the header area \
         behind the superblocks"
    )]
    Place {
        /// First byte in the file.
        offset: HostOffset,
        /// Bytes.
        len_bytes: u64,
    },
    /// There are fewer marks than L1 slots in use.
    #[error("dirty bitmap of {len_bytes} bytes is too short for {slots} L1 slots")]
    TooShort {
        /// Bytes of the bitmap.
        len_bytes: u64,
        /// Slots that the disk needs.
        slots: u64,
    },
}

/// Why the section PHYSICAL_SIZE counts as not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PhysicalSizeError {
    /// The payload has another length than 16 bytes.
    #[error("physical size section has {found} bytes, not 16")]
    Length {
        /// Bytes.
        found: u64,
    },
    /// The image does not end with a cluster.
    #[error("physical size {physical_size} is no multiple of the cluster size")]
    Unaligned {
        /// Bytes.
        physical_size: u64,
    },
    /// The image ends inside its header area or L1 table.
    #[error("physical size {physical_size} is below {l1_end}, where the L1 table ends")]
    InsideRoots {
        /// Bytes.
        physical_size: u64,
        /// Byte after the L1 table.
        l1_end: u64,
    },
    /// The image ends past the device that it was recorded of.
    #[error("physical size {physical_size} is above the device size {device_size}")]
    PastDevice {
        /// Bytes.
        physical_size: u64,
        /// Bytes of the device.
        device_size: u64,
    },
}

/// Why the section OWNER counts as not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImageOwnerError {
    /// The payload has another length than 48 bytes.
    #[error("owner section has {found} bytes, not 48")]
    Length {
        /// Bytes.
        found: u64,
    },
    /// The host name goes on behind a zero byte.
    #[error("host name of the owner goes on at byte {at}, behind a zero byte")]
    HostName {
        /// Byte of the name that is not zero and should be.
        at: u8,
    },
}

/// Why no copy of a superblock can be taken for the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// Two valid copies of one generation that differ.
    #[error("superblock copies A and B both have generation {generation} and differ")]
    Conflict {
        /// The generation.
        generation: Generation,
    },
    /// An intact copy of a version that this crate does not know: it may be the current one.
    #[error("superblock copy {copy} has version {version}, not 1")]
    Version {
        /// The copy.
        copy: SuperblockCopy,
        /// Its version.
        version: u32,
    },
}

/// Why an anchor is refused. Positions are bytes from the start of the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// Fewer bytes than an anchor.
    #[error("{found} bytes are too few for an anchor of 512 bytes")]
    Truncated {
        /// Bytes there were.
        found: u64,
    },
    /// The magic is not `QEDA`.
    #[error("no anchor: bytes 0..4 are {found:02x?}, not \"QEDA\"")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The bytes are not those that were written.
    #[error("anchor checksum {stored:#010x} at byte 8 is not {computed:#010x}")]
    Checksum {
        /// What the anchor carries.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// An intact anchor of a version that this crate does not know.
    #[error("anchor version {found} at byte 4 is not 1")]
    Version {
        /// The version.
        found: u32,
    },
    /// A byte outside every field that is not zero.
    #[error("padding at byte {at} is not zero")]
    Padding {
        /// The byte.
        at: u32,
    },
    /// The stored format of the backing file has no meaning.
    #[error("backing format at byte 32")]
    BackingFormat(#[source] BackingFormatError),
    /// A superblock copy that does not have a cluster of its own behind the header area.
    #[error(
        "superblock copy {copy} at {found} is not a cluster of its own in the file of {file_len} bytes"
    )]
    Place {
        /// The copy.
        copy: SuperblockCopy,
        /// Where the anchor says it lies.
        found: HostOffset,
        /// Bytes of the file.
        file_len: u64,
    },
}

/// Why a stored backing format is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackingFormatError {
    /// Too few bytes for the checksum of the name and a format, or too many.
    #[error("the format has {found} bytes, not 1 to 32")]
    Length {
        /// Bytes of the format.
        found: u64,
    },
    /// A byte that is neither a lower-case letter nor a digit, `-` or `_`.
    #[error("byte {at} of the format is {found:#04x}, not one of a-z 0-9 - _")]
    Byte {
        /// Position in the format.
        at: u64,
        /// The byte.
        found: u8,
    },
    /// The section ends before its checksum does.
    #[error("the section has {found} bytes, not at least 5")]
    Truncated {
        /// Bytes of the payload.
        found: u64,
    },
}

/// A section does not fit into the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("section of type {kind} needs {needed} bytes of the superblock, more than the {free} left")]
pub struct SuperblockFull {
    /// Its type.
    pub kind: SectionType,
    /// Bytes it takes up with head and padding.
    pub needed: u64,
    /// Bytes there are for it.
    pub free: u64,
}
