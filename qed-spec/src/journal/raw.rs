//! The byte structures of the journal as zerocopy views. Any value fits; nothing is checked here.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a journal block in bytes.
pub const JOURNAL_BLOCK_LEN_BYTES: usize = size_of::<RawJournalBlock>();

/// Records that one journal block has room for.
pub const JOURNAL_RECORDS_PER_BLOCK: usize = 168;

/// One block of the journal ring.
// spec: QED-JRN-04
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawJournalBlock {
    /// `QEDJ`.
    pub magic: [u8; 4],
    /// Version of the layout.
    pub version: U32,
    /// CRC-32C of the image's uuid, the epoch and all bytes of the block, these four as zeros.
    pub crc32c: U32,
    /// `crc32c` of the block before this one.
    pub previous_crc32c: U32,
    /// Number of the block.
    pub sequence: U64,
    /// Number of the last block known to be durable when this one was written; 0 for none.
    pub stable_sequence: U64,
    /// Generation of the superblock known to be durable when this block was written.
    pub generation: U64,
    /// Clusters of the image file that the commit needs.
    pub physical_size: U64,
    /// Number of the block in its commit, from 0.
    pub index: U32,
    /// Blocks of the commit.
    pub count: U32,
    /// Bytes of `records` in use, a multiple of 24.
    pub used: U32,
    /// Zeros.
    pub reserved: U32,
    /// Records, then zeros.
    pub records: [RawJournalRecord; JOURNAL_RECORDS_PER_BLOCK],
}

impl RawJournalBlock {
    /// The magic bytes of every journal block.
    pub const MAGIC: [u8; 4] = *b"QEDJ";
    /// The version that this crate reads and writes.
    pub const VERSION: u32 = 1;
}

/// One record of a journal block.
// spec: QED-JRN-07
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct RawJournalRecord {
    /// What the record says.
    pub kind: U32,
    /// Slots or clusters in the run.
    pub count: U32,
    /// Bytes from the start of the file: the first slot, or the first cluster.
    pub at: U64,
    /// The value of the first slot; 0 where the kind has none.
    pub value: U64,
}

/// The payload of the superblock section with the journal.
// spec: QED-JRN-01
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawJournalRing {
    /// First byte of the ring in the file.
    pub offset: U64,
    /// Bytes of the ring.
    pub len_bytes: U64,
    /// Number of the first block whose records may not be in the tables.
    pub tail_sequence: U64,
    /// Number of the last block known to be durable; 0 for none.
    pub stable_sequence: U64,
}

const _: () = assert!(size_of::<RawJournalBlock>() == 4096);
const _: () = assert!(offset_of!(RawJournalBlock, crc32c) == 8);
const _: () = assert!(offset_of!(RawJournalBlock, generation) == 32);
const _: () = assert!(offset_of!(RawJournalBlock, records) == 64);
const _: () = assert!(size_of::<RawJournalRecord>() == 24);
const _: () = assert!(size_of::<RawJournalRing>() == 32);
