//! The byte structures of QCOW2 as zerocopy views, big-endian. Any value fits; nothing is checked.

use std::mem::{offset_of, size_of};

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The header of version 2, and the start of every later one.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    /// Bytes from the start of the file; 0 without a backing file.
    pub(super) backing_file_offset: U64,
    /// Bytes.
    pub(super) backing_file_size: U32,
    pub(super) cluster_bits: U32,
    /// Bytes of the virtual disk.
    pub(super) size: U64,
    pub(super) crypt_method: U32,
    /// Entries.
    pub(super) l1_size: U32,
    pub(super) l1_table_offset: U64,
    pub(super) refcount_table_offset: U64,
    /// Clusters.
    pub(super) refcount_table_clusters: U32,
    pub(super) nb_snapshots: U32,
    pub(super) snapshots_offset: U64,
}

/// What version 3 adds to [`RawHeader`].
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeaderV3 {
    pub(super) incompatible_features: U64,
    pub(super) compatible_features: U64,
    pub(super) autoclear_features: U64,
    pub(super) refcount_order: U32,
    /// Bytes.
    pub(super) header_length: U32,
}

/// The head of a header extension; `len` bytes follow, padded to a multiple of 8.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawExtensionHead {
    pub(super) kind: U32,
    /// Bytes, without the padding.
    pub(super) len: U32,
}

/// One row of the feature name table.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawFeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub(super) class: u8,
    pub(super) bit: u8,
    /// Padded with NUL.
    pub(super) name: [u8; 46],
}

/// The bitmaps extension.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawBitmapsExtension {
    pub(super) nb_bitmaps: U32,
    pub(super) reserved: U32,
    /// Bytes.
    pub(super) directory_size: U64,
    pub(super) directory_offset: U64,
}

/// The head of a bitmap directory entry; extra data and the name follow.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawBitmapHead {
    pub(super) bitmap_table_offset: U64,
    pub(super) bitmap_table_size: U32,
    pub(super) flags: U32,
    pub(super) kind: u8,
    pub(super) granularity_bits: u8,
    /// Bytes.
    pub(super) name_size: U16,
    /// Bytes.
    pub(super) extra_data_size: U32,
}

/// The head of a snapshot table entry; extra data, id and name follow.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSnapshotHead {
    pub(super) l1_table_offset: U64,
    /// Entries.
    pub(super) l1_size: U32,
    /// Bytes.
    pub(super) id_str_size: U16,
    /// Bytes.
    pub(super) name_size: U16,
    pub(super) date_sec: U32,
    pub(super) date_nsec: U32,
    pub(super) vm_clock_nsec: U64,
    /// Bytes.
    pub(super) vm_state_size: U32,
    /// Bytes.
    pub(super) extra_data_size: U32,
}

/// The extension that says where the LUKS header lies.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawLuksPlace {
    /// Bytes from the start of the file.
    pub(super) offset: U64,
    /// Bytes.
    pub(super) len: U64,
}

/// The header of LUKS, version 1; texts are padded with NUL.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawLuksHeader {
    pub(super) magic: [u8; 6],
    pub(super) version: U16,
    pub(super) cipher_name: [u8; 32],
    pub(super) cipher_mode: [u8; 32],
    pub(super) hash: [u8; 32],
    /// Sectors of 512 bytes.
    pub(super) payload_sector: U32,
    pub(super) key_bytes: U32,
    pub(super) digest: [u8; 20],
    pub(super) digest_salt: [u8; 32],
    pub(super) digest_iterations: U32,
    pub(super) uuid: [u8; 40],
    pub(super) slots: [RawLuksSlot; 8],
}

/// A slot for a key of LUKS.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawLuksSlot {
    pub(super) active: U32,
    pub(super) iterations: U32,
    pub(super) salt: [u8; 32],
    /// Sectors of 512 bytes.
    pub(super) key_sector: U32,
    pub(super) stripes: U32,
}

const _: () = assert!(size_of::<RawLuksHeader>() == 592);
const _: () = assert!(size_of::<RawHeader>() == 72);
const _: () = assert!(offset_of!(RawHeader, l1_table_offset) == 40);
const _: () = assert!(size_of::<RawHeader>() + size_of::<RawHeaderV3>() == 104);
const _: () = assert!(size_of::<RawFeatureName>() == 48);
const _: () = assert!(size_of::<RawBitmapsExtension>() == 24);
const _: () = assert!(size_of::<RawBitmapHead>() == 24);
const _: () = assert!(size_of::<RawSnapshotHead>() == 40);
