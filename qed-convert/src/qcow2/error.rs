//! Why a QCOW2 image is refused or cannot be read: what was found, where, and the rule it breaks.

use std::io;

use qed_core::{BackingError, GateError};
use qed_io::LockError;
use qed_spec::{BackingNameError, GuestOffset, HostOffset, L1Index, L2Index};
use thiserror::Error;

/// Why a QCOW2 image did not open.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Qcow2OpenError {
    /// The image lock is held by somebody else, or cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The storage failed.
    #[error("reading {what} at offset {at} of the image file")]
    Io {
        /// What was being read.
        what: Qcow2Part,
        /// Where in the image file.
        at: HostOffset,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// Header, extensions, snapshot table or bitmap directory break a rule, or need something that
    /// is not supported.
    #[error(transparent)]
    Format(#[from] Qcow2FormatError),
    /// The image has no snapshot that was asked for.
    #[error("the image has no snapshot with {wanted}")]
    SnapshotNotFound {
        /// The selector in words.
        wanted: String,
    },
    /// The gate did not open the backing file.
    #[error("backing file '{name}'")]
    Gate {
        /// The name as the image has it, bytes that are not text escaped.
        name: String,
        /// Why.
        #[source]
        source: GateError,
    },
}

/// A part of a QCOW2 image file, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Qcow2Part {
    /// The header with its extensions.
    Header,
    /// The L1 table of the image.
    L1Table,
    /// The L1 table of a snapshot.
    SnapshotL1Table,
    /// An L2 table.
    L2Table,
    /// The refcount table.
    RefcountTable,
    /// The snapshot table.
    SnapshotTable,
    /// The bitmap directory.
    BitmapDirectory,
    /// Guest data.
    Data,
}

impl std::fmt::Display for Qcow2Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "the header",
            Self::L1Table => "the L1 table",
            Self::SnapshotL1Table => "the snapshot's L1 table",
            Self::L2Table => "an L2 table",
            Self::RefcountTable => "the refcount table",
            Self::SnapshotTable => "the snapshot table",
            Self::BitmapDirectory => "the bitmap directory",
            Self::Data => "guest data",
        })
    }
}

/// The rule that the metadata read at open breaks, or the feature that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Qcow2FormatError {
    /// The file is too short for a header.
    #[error("the file of {file_len} bytes is too short for a QCOW2 header of {needed} bytes")]
    TooShort {
        /// Bytes of the file.
        file_len: u64,
        /// Bytes of the header.
        needed: u64,
    },
    /// The first four bytes are not the magic.
    #[error("image is not in qcow2 format: magic {found:02x?}")]
    Magic {
        /// The bytes.
        found: [u8; 4],
    },
    /// Neither version 2 nor version 3.
    #[error("unsupported qcow2 version {found}, not 2 or 3")]
    Version {
        /// The version.
        found: u32,
    },
    /// The cluster size is out of range.
    #[error("unsupported cluster size 2^{found}, not 2^9..=2^21")]
    ClusterBits {
        /// Log2 of the cluster size.
        found: u32,
    },
    /// The header length is below that of version 3, not a multiple of 8, or beyond cluster 0.
    #[error("header length {found} is not a multiple of 8 in 104..={limit}")]
    HeaderLength {
        /// Bytes.
        found: u32,
        /// Bytes of a cluster.
        limit: u64,
    },
    /// The image is encrypted.
    #[error("encrypted images are not supported (encryption method {found}: {})", encryption_name(*.found))]
    Encrypted {
        /// The `crypt_method` field.
        found: u32,
    },
    /// The guest data is in another file.
    #[error("an external data file is not supported")]
    ExternalDataFile,
    /// An incompatible feature bit is set that this reader does not know.
    #[error("unsupported qcow2 feature: incompatible bit {bit}{}", .name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default())]
    UnsupportedFeature {
        /// Number of the bit.
        bit: u32,
        /// Its name, where the image's feature name table has one.
        name: Option<String>,
    },
    /// The compression type is unknown.
    #[error("unknown compression type {found}, not 0 (zlib) or 1 (zstd)")]
    CompressionType {
        /// The field.
        found: u8,
    },
    /// The compression type and its incompatible feature bit say different things.
    #[error("compression type {found} does not fit the compression type feature bit ({bit})")]
    CompressionBit {
        /// The field.
        found: u8,
        /// Whether the feature bit is set.
        bit: bool,
    },
    /// Extended L2 entries need clusters of 16 KiB or more.
    #[error("extended L2 entries with clusters of 2^{cluster_bits} bytes, below 2^14")]
    ExtendedL2ClusterBits {
        /// Log2 of the cluster size.
        cluster_bits: u32,
    },
    /// Refcounts wider than 64 bits.
    #[error("refcounts of 2^{found} bits, over 2^6")]
    RefcountOrder {
        /// Log2 of the refcount width in bits.
        found: u32,
    },
    /// The virtual size is not a whole number of sectors.
    #[error("virtual size {found} is not a multiple of 512 bytes")]
    ImageSize {
        /// Bytes.
        found: u64,
    },
    /// The L1 table does not map the whole virtual disk.
    #[error("{table} has {found} entries, too small for the virtual size, which needs {needed}")]
    L1TooSmall {
        /// Which table.
        table: Qcow2Part,
        /// Entries that it has.
        found: u32,
        /// Entries that the virtual size needs.
        needed: u64,
    },
    /// A table does not start at a cluster.
    #[error("{table} at {offset:#x} is not aligned to clusters")]
    TableUnaligned {
        /// Which table.
        table: Qcow2Part,
        /// Bytes from the start of the file.
        offset: u64,
    },
    /// A table is longer than QEMU allows.
    #[error("{table} of {len} bytes is too large, over {limit}")]
    TableTooLarge {
        /// Which table.
        table: Qcow2Part,
        /// Bytes.
        len: u64,
        /// Bytes.
        limit: u64,
    },
    /// A table has no entries where it must have some.
    #[error("the image does not have {table}")]
    TableMissing {
        /// Which table.
        table: Qcow2Part,
    },
    /// A table reaches past the end of the file.
    #[error("{table} at {offset:#x} reaches past the end of the file at {file_len:#x}")]
    TablePastEnd {
        /// Which table.
        table: Qcow2Part,
        /// Bytes from the start of the file.
        offset: u64,
        /// Bytes of the file.
        file_len: u64,
    },
    /// The place of the backing file name is not between the header and the end of cluster 0, or
    /// the name is longer than 1023 bytes.
    #[error(
        "backing file name of {len} bytes at {offset:#x}, not at most 1023 bytes inside cluster 0"
    )]
    BackingNamePlace {
        /// Bytes from the start of the file.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// The backing file name is not legal.
    #[error("backing file name")]
    BackingName(#[from] BackingNameError),
    /// A header extension reaches past the header area.
    #[error("header extension {kind:#010x} at {at:#x} reaches past the header area")]
    ExtensionTooLong {
        /// Number of the extension.
        kind: u32,
        /// Bytes from the start of the file.
        at: u64,
    },
    /// A header extension has a length that its number does not allow.
    #[error("header extension {kind:#010x} has {len} bytes, which is not legal")]
    ExtensionLength {
        /// Number of the extension.
        kind: u32,
        /// Bytes.
        len: usize,
    },
    /// A snapshot table entry is too long or reaches past the end of the file.
    #[error("snapshot {index} at {at:#x} is too long or reaches past the end of the file")]
    SnapshotEntry {
        /// Entry of the snapshot table.
        index: u32,
        /// Bytes from the start of the file.
        at: u64,
    },
    /// A bitmap directory entry reaches past the directory.
    #[error("bitmap {index} of the bitmap directory reaches past its end")]
    BitmapEntry {
        /// Entry of the directory.
        index: u32,
    },
}

fn encryption_name(method: u32) -> &'static str {
    match method {
        1 => "AES",
        2 => "LUKS",
        _ => "unknown",
    }
}

/// Why reading or mapping an open QCOW2 image failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Qcow2ReadError {
    /// The request reaches past the end of the virtual disk.
    #[error("{len} bytes at guest offset {at:#x} reach past the image size of {image_size} bytes")]
    OutOfRange {
        /// First byte of the request.
        at: u64,
        /// Bytes of the request.
        len: u64,
        /// Bytes of the virtual disk.
        image_size: u64,
    },
    /// The tables or the compressed data break a rule.
    #[error("corrupt image")]
    Corrupt(#[source] Qcow2Corruption),
    /// The storage failed.
    #[error("reading {what} at offset {at} of the image file")]
    Io {
        /// What was being read.
        what: Qcow2Part,
        /// Where in the image file.
        at: HostOffset,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// The decompressor could not be made.
    #[error("making a decompressor")]
    Decompressor(#[source] io::Error),
    /// The backing file could not be read.
    #[error("backing file")]
    Backing(#[from] BackingError),
}

impl Qcow2ReadError {
    pub(super) fn io(what: Qcow2Part, at: HostOffset) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, at, source }
    }
}

impl From<Qcow2Corruption> for Qcow2ReadError {
    fn from(corruption: Qcow2Corruption) -> Self {
        Self::Corrupt(corruption)
    }
}

/// What in an image's mapping or compressed data breaks a rule, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Qcow2Corruption {
    /// An L1 entry.
    #[error("{l1} is {value:#x}: {fault}")]
    L1Entry {
        /// Which entry.
        l1: L1Index,
        /// Its value.
        value: u64,
        /// The rule.
        fault: Qcow2EntryFault,
    },
    /// An L2 entry.
    #[error("{l1} {l2} is {value:#x}: {fault}")]
    L2Entry {
        /// Entry of the L1 table.
        l1: L1Index,
        /// Entry of the L2 table.
        l2: L2Index,
        /// Its first 8 bytes.
        value: u64,
        /// The rule.
        fault: Qcow2EntryFault,
    },
    /// A compressed cluster.
    #[error("compressed cluster of guest offset {guest} at offset {host}: {fault}")]
    Stream {
        /// First guest byte of the cluster.
        guest: GuestOffset,
        /// Where the compressed bytes start.
        host: HostOffset,
        /// What is wrong with them.
        fault: Qcow2StreamFault,
    },
}

/// The rule that a table entry breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Qcow2EntryFault {
    /// Bits are set that the image's version reserves.
    #[error("reserved bits are set")]
    ReservedBits,
    /// The offset is not one of a cluster.
    #[error("the offset is not aligned to clusters")]
    Unaligned,
    /// The offset lies past the end of the file.
    #[error("the offset lies past the end of the file")]
    PastEnd,
    /// A subcluster is both allocated and zero, or allocated in a cluster that has no place.
    #[error("the subcluster bitmap contradicts itself or the entry")]
    SubclusterBitmap,
}

/// What is wrong with a compressed cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Qcow2StreamFault {
    /// The decompressor refuses the bytes, or they end in the middle of the stream.
    #[error("not a whole stream of the image's compression type")]
    Invalid,
    /// The stream ends before the cluster is full.
    #[error("the stream ends before the cluster is full")]
    TooShort,
    /// The stream has more bytes than a cluster.
    #[error("the stream has more bytes than a cluster")]
    TooLong,
}
