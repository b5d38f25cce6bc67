//! The byte structures of the format as zerocopy views. Any value fits; nothing is checked here.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header structure in bytes; the header *area* is `header_size` clusters.
pub const HEADER_LEN_BYTES: usize = size_of::<RawHeader>();

/// Length of one copy of the extension superblock in bytes.
pub const SUPERBLOCK_LEN_BYTES: usize = size_of::<RawSuperblock>();

/// Room for the sections of a superblock in bytes, their heads and padding included.
pub const SECTIONS_LEN_BYTES: usize = 4048;

/// Length of the anchor in bytes.
pub const ANCHOR_LEN_BYTES: usize = size_of::<RawAnchor>();

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

/// One copy of the extension superblock.
// spec: QED-SB-02
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawSuperblock {
    /// `QEDX`.
    pub magic: [u8; 4],
    /// Version of the layout.
    pub version: U32,
    /// CRC-32C of all bytes of the copy, these four taken as zeros.
    pub crc32c: U32,
    /// Bytes of `sections` in use, a multiple of 8.
    pub sections_len: U32,
    /// Number of the write that made this copy, from 1.
    pub generation: U64,
    /// Identity of the image.
    pub uuid: [u8; 16],
    /// Random number of the current run of the journal and its kin.
    pub epoch: U64,
    /// Typed sections, then zeros.
    pub sections: [u8; SECTIONS_LEN_BYTES],
}

impl RawSuperblock {
    /// The magic bytes of every superblock.
    pub const MAGIC: [u8; 4] = *b"QEDX";
    /// The version that this crate reads and writes.
    pub const VERSION: u32 = 1;
}

/// What precedes the payload of a superblock section.
// spec: QED-SB-05
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawSectionHead {
    /// What the payload means.
    pub kind: U32,
    /// Bytes of the payload, without the zeros that pad it to a multiple of 8.
    pub len: U32,
}

/// The payload of the section with the per-table dirty bitmap.
// spec: QED-DIRTY-01
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawDirtyBitmap {
    /// First byte of the bitmap in the file.
    pub offset: U64,
    /// Bytes of the bitmap.
    pub len_bytes: U64,
    /// Byte after the last that an entry of an unmarked table may name.
    pub epoch_size: U64,
}

/// The payload of the section with the end of an image on a block device.
// spec: QED-DEV-07
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawPhysicalSize {
    /// Byte after the last one that was handed out.
    pub physical_size: U64,
    /// Bytes of the device when all tables were known to lie below it.
    pub device_size: U64,
}

/// The payload of the section with the owner of an image.
// spec: QED-HAND-02
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawOwner {
    /// Random number of the owner, 0 for nobody.
    pub token: U64,
    /// Seconds since 1970, by the clock of the owner's host.
    pub since: U64,
    /// The run of the owner's kernel.
    pub boot_id: [u8; 16],
    /// Name of the owner's host, then zeros.
    pub host_name: [u8; 16],
}

/// The anchor of an image whose cluster 0 is too small for superblocks.
// spec: QED-SB-19
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawAnchor {
    /// `QEDA`.
    pub magic: [u8; 4],
    /// Version of the layout.
    pub version: U32,
    /// CRC-32C of all bytes of the anchor, these four taken as zeros.
    pub crc32c: U32,
    /// CRC-32C of the backing file name that `format` describes.
    pub name_crc32c: U32,
    /// Host offsets of superblock copies A and B in bytes; both 0 where there are none.
    pub superblocks: [U64; 2],
    /// Format of the backing file in ASCII, then zeros; all zero where none is stored.
    pub format: [u8; 32],
    /// Zeros.
    pub reserved: [u8; 448],
}

impl RawAnchor {
    /// The magic bytes of every anchor.
    pub const MAGIC: [u8; 4] = *b"QEDA";
    /// The version that this crate reads and writes.
    pub const VERSION: u32 = 1;
}

const _: () = assert!(size_of::<RawHeader>() == 64);
const _: () = assert!(offset_of!(RawHeader, features) == 16);
const _: () = assert!(offset_of!(RawHeader, l1_table_offset) == 40);
const _: () = assert!(offset_of!(RawHeader, backing_filename_offset) == 56);
const _: () = assert!(size_of::<RawSuperblock>() == 4096);
const _: () = assert!(offset_of!(RawSuperblock, generation) == 16);
const _: () = assert!(offset_of!(RawSuperblock, sections) == 48);
const _: () = assert!(size_of::<RawAnchor>() == 512);
const _: () = assert!(offset_of!(RawAnchor, format) == 32);
