//! The undo record of an image that was converted in place: what the file was before. Knows bytes
//! and their checksum, not the format that they were of.

use core::mem::{offset_of, size_of};

use thiserror::Error;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::addr::HostOffset;
use crate::crc::crc32c_of_block;
use crate::len::wide;
use crate::parse;

/// Length of the undo record in bytes.
pub const UNDO_RECORD_LEN_BYTES: usize = size_of::<RawUndoRecord>();

/// Length of the first sector of a file in bytes: what a conversion replaces at once.
const SECTOR_LEN_BYTES: usize = 512;

/// What undoes a conversion in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoRecord {
    /// Bytes of the file before the conversion.
    pub old_len: u64,
    /// The first sector of the file before the conversion.
    pub old_sector: [u8; SECTOR_LEN_BYTES],
    /// The first sector as the conversion wrote it.
    pub new_sector: [u8; SECTOR_LEN_BYTES],
}

/// Bytes 2560..4096 of a file that was converted.
// spec: QED-CONV-01
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawUndoRecord {
    /// `QEDU`.
    pub magic: [u8; 4],
    /// Version of the layout.
    pub version: U32,
    /// CRC-32C of all bytes of the record, these four taken as zeros.
    pub crc32c: U32,
    /// Zeros.
    pub reserved: U32,
    /// Bytes of the file before.
    pub old_len: U64,
    /// The first sector before.
    pub old_sector: [u8; SECTOR_LEN_BYTES],
    /// The first sector after.
    pub new_sector: [u8; SECTOR_LEN_BYTES],
    /// Zeros.
    pub padding: [u8; 488],
}

/// Why an undo record is refused. Positions are bytes from the start of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UndoRecordError {
    /// Fewer bytes than a record.
    #[error("{found} bytes are too few for an undo record of 1536 bytes")]
    Truncated {
        /// Bytes there were.
        found: u64,
    },
    /// The magic is not `QEDU`.
    #[error("no undo record: bytes 0..4 are {found:02x?}, not \"QEDU\"")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The bytes are not those that were written.
    #[error("undo record checksum {stored:#010x} at byte 8 is not {computed:#010x}")]
    Checksum {
        /// What the record carries.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// An intact record of a version that this crate does not know.
    #[error("undo record version {found} at byte 4 is not 1")]
    Version {
        /// The version.
        found: u32,
    },
    /// A byte outside every field that is not zero.
    #[error("padding of the undo record is not zero")]
    Padding,
}

impl RawUndoRecord {
    /// The magic bytes of every record.
    pub const MAGIC: [u8; 4] = *b"QEDU";
    /// The version that this crate reads and writes.
    pub const VERSION: u32 = 1;
}

impl UndoRecord {
    /// Where the record lies in the file.
    // spec: QED-CONV-01
    pub const OFFSET: HostOffset = HostOffset::new(2560);

    /// Parses the record at the front of `bytes`, of which it uses the first 1536.
    ///
    /// # Errors
    /// The first rule that is broken.
    // spec: QED-CONV-01
    pub fn parse(bytes: &[u8]) -> Result<Self, UndoRecordError> {
        let (_, raw) = parse::leaf::<RawUndoRecord>(bytes)
            .map_err(|_| UndoRecordError::Truncated { found: wide(bytes.len()) })?;
        if raw.magic != RawUndoRecord::MAGIC {
            return Err(UndoRecordError::Magic { found: raw.magic });
        }
        let (stored, computed) = (raw.crc32c.get(), crc32c_of_block(raw.as_bytes()));
        if stored != computed {
            return Err(UndoRecordError::Checksum { stored, computed });
        }
        if raw.version.get() != RawUndoRecord::VERSION {
            return Err(UndoRecordError::Version { found: raw.version.get() });
        }
        if raw.reserved != U32::ZERO || raw.padding.iter().any(|byte| *byte != 0) {
            return Err(UndoRecordError::Padding);
        }
        let (old_sector, new_sector) = (raw.old_sector, raw.new_sector);
        Ok(Self { old_len: raw.old_len.get(), old_sector, new_sector })
    }

    /// The 1536 bytes of the record; [`UndoRecord::parse`] gives back an equal value.
    #[must_use]
    pub fn encode(&self) -> [u8; UNDO_RECORD_LEN_BYTES] {
        let mut raw = RawUndoRecord {
            magic: RawUndoRecord::MAGIC,
            version: U32::new(RawUndoRecord::VERSION),
            crc32c: U32::ZERO,
            reserved: U32::ZERO,
            old_len: U64::new(self.old_len),
            old_sector: self.old_sector,
            new_sector: self.new_sector,
            padding: [0; 488],
        };
        raw.crc32c = U32::new(crc32c_of_block(raw.as_bytes()));
        zerocopy::transmute!(raw)
    }
}

const _: () = assert!(UNDO_RECORD_LEN_BYTES == 1536);
const _: () = assert!(offset_of!(RawUndoRecord, old_sector) == 24);
