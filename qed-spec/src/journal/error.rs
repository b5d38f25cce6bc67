//! Why bytes of the journal are refused.

use thiserror::Error;

use crate::addr::HostOffset;
use crate::journal::JournalSequence;

/// Why the section JOURNAL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalRingError {
    /// The payload has another length than 32 bytes.
    #[error("journal section has {found} bytes, not 32")]
    Length {
        /// Bytes.
        found: u64,
    },
    /// The ring is not 8 to 262144 blocks of the header area behind the superblocks, clear of the
    /// backing file name.
    #[error(
        "journal ring of {len_bytes} bytes at {offset} is not 8 to 262144 blocks of the header \
         area behind the superblocks"
    )]
    Place {
        /// First byte in the file.
        offset: HostOffset,
        /// Bytes.
        len_bytes: u64,
    },
    /// Tail and stable sequence do not fit the ring.
    #[error("journal tail {tail} and stable sequence {stable} do not fit the ring")]
    Sequence {
        /// First block whose records may not be in the tables.
        tail: JournalSequence,
        /// Last block known to be durable.
        stable: JournalSequence,
    },
}

/// Why bytes are no journal block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalBlockError {
    /// Fewer bytes than a block.
    #[error("{found} bytes are too few for a journal block of 4096 bytes")]
    Truncated {
        /// Bytes there were.
        found: u64,
    },
    /// The magic is not `QEDJ`.
    #[error("no journal block: bytes 0..4 are {found:02x?}, not \"QEDJ\"")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The bytes are not those that were written in this epoch.
    #[error("journal block checksum {stored:#010x} at byte 8 is not {computed:#010x}")]
    Checksum {
        /// What the block carries.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// An intact block of a version that this crate does not know.
    #[error("journal block version {found} at byte 4 is not 1")]
    Version {
        /// The version.
        found: u32,
    },
    /// The generation is 0.
    #[error("generation at byte 32 is 0")]
    Generation,
    /// The block claims itself or a later one to be durable.
    #[error("stable sequence {stable} at byte 24 is not before block {sequence}")]
    Stable {
        /// What it claims to be durable.
        stable: JournalSequence,
        /// Its own number.
        sequence: JournalSequence,
    },
    /// The block is not one of its commit's.
    #[error("block {index} at byte 48 is not one of {count}")]
    Index {
        /// Number of the block in its commit.
        index: u32,
        /// Blocks of the commit.
        count: u32,
    },
    /// The length of the records is not a multiple of 24 in 0..=4032.
    #[error("length of the records at byte 56 is {found}, not a multiple of 24 up to 4032")]
    Used {
        /// Bytes.
        found: u32,
    },
    /// A byte outside every field and record that is not zero.
    #[error("padding of the journal block is not zero")]
    Padding,
}

impl JournalBlockError {
    /// Whether no block of the epoch lies here: none was written, or it did not arrive whole. The
    /// other errors are about blocks that were written as they are.
    #[must_use]
    pub const fn is_absent(self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::Magic { .. } | Self::Checksum { .. })
    }
}

/// Why a record of the journal has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalRecordError {
    /// A kind that this crate does not know.
    #[error("journal record of unknown kind {found}")]
    Kind {
        /// Its number.
        found: u32,
    },
    /// A run of nothing.
    #[error("journal record with a count of {found}")]
    Count {
        /// The count.
        found: u32,
    },
    /// The slots or clusters are not aligned or reach past the largest file.
    #[error("journal record at {at:#x} is unaligned or too long")]
    Place {
        /// Bytes from the start of the file.
        at: u64,
    },
    /// The value is none that the slot may hold.
    #[error("journal record with the value {value:#x}, which no slot holds")]
    Value {
        /// The 64-bit value.
        value: u64,
    },
    /// A field that the kind does not use says something.
    #[error("journal record with a value in a field that its kind leaves out")]
    Unused,
}
