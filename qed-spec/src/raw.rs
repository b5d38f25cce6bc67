//! The byte structures of the format as zerocopy views. Any value fits; nothing is checked here.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header structure in bytes; the header *area* is `header_size` clusters.
pub const HEADER_LEN_BYTES: usize = size_of::<RawHeader>();

/// One slot of an L1 or L2 table as it lies on disk.
pub type TableEntry = U64;

/// The first 64 bytes of an image, field by field.
// spec: QED-HDR-01
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawHeader {
    /// `QED\0`.
    pub magic: [u8; 4],
    /// Bytes.
    pub cluster_size: U32,
    /// Clusters.
    pub table_size: U32,
    /// Clusters.
    pub header_size: U32,
    /// Incompatible feature bits.
    pub features: U64,
    /// Compatible feature bits.
    pub compat_features: U64,
    /// Autoclear feature bits.
    pub autoclear_features: U64,
    /// Bytes from the start of the file.
    pub l1_table_offset: U64,
    /// Bytes of the virtual disk.
    pub image_size: U64,
    /// Bytes from the start of the file.
    pub backing_filename_offset: U32,
    /// Bytes.
    pub backing_filename_size: U32,
}

impl RawHeader {
    /// The magic bytes of every image.
    pub const MAGIC: [u8; 4] = *b"QED\0";
}

const _: () = assert!(size_of::<RawHeader>() == 64);
const _: () = assert!(offset_of!(RawHeader, features) == 16);
const _: () = assert!(offset_of!(RawHeader, l1_table_offset) == 40);
const _: () = assert!(offset_of!(RawHeader, backing_filename_offset) == 56);
