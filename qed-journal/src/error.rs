//! Errors of the journal: what I/O failed, and what a ring holds that must not be followed.

use std::io;

use qed_spec::{
    ClusterCount, Generation, HostOffset, JournalBlockError, JournalRecord, JournalRecordError,
    JournalSequence,
};
use thiserror::Error;

/// Why a journal could not be read, or not be written home.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// Reading or writing failed.
    #[error("{action} at {at} failed")]
    Io {
        /// What was being done.
        action: JournalAction,
        /// Where, in bytes of the file.
        at: HostOffset,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// A block says what must not be followed, or one is missing that must be there.
    #[error("journal block {sequence} at {at} is corrupt")]
    Corrupt {
        /// The number of the block.
        sequence: JournalSequence,
        /// Where it lies.
        at: HostOffset,
        /// What is wrong.
        #[source]
        fault: JournalFault,
    },
    /// The journal holds more than the caller wants to keep in memory.
    #[error("the journal holds more than {max} runs of table slots")]
    OverlayTooLarge {
        /// The caller's limit.
        max: usize,
    },
    /// The ring is not the one that was read before: another program writes it.
    #[error("the journal has changed since it was read")]
    Changed,
}

/// What is wrong with a block of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalFault {
    /// The block is damaged or missing, and was durable.
    #[error("it is damaged or missing, though block {stable} was known to be durable")]
    Lost {
        /// The last block that was known to be durable.
        stable: JournalSequence,
    },
    /// The block is intact and breaks a rule.
    #[error("it is no block of a commit")]
    Block(#[source] JournalBlockError),
    /// A record of the block has no meaning.
    #[error("record")]
    Record(#[source] JournalRecordError),
    /// The block is intact and belongs elsewhere in the ring, or to a later lap.
    #[error("block {found} lies in its place")]
    Misplaced {
        /// The number that it carries.
        found: JournalSequence,
    },
    /// The block is intact and does not go on where the one before it ends.
    #[error("it does not follow the block before it")]
    Chain,
    /// The commit has more blocks than half of the ring, or than 256.
    #[error("it is one of {count} blocks, more than the {max} of a commit")]
    CommitTooLong {
        /// Blocks.
        count: u32,
        /// Blocks that a commit may have.
        max: u64,
    },
    /// The block knows of a superblock that is not there.
    #[error("it was written after superblock {found}, but {current} is the current one")]
    Newer {
        /// What the block knows of.
        found: Generation,
        /// The generation of the current superblock.
        current: Generation,
    },
    /// The image file cannot end where the commit says.
    #[error("its commit asks for {} clusters, which this image does not have", .found.get())]
    PhysicalSize {
        /// Clusters.
        found: ClusterCount,
    },
    /// The record sets what it must not set, or names what must not be named.
    #[error("its record {record:?} does not belong in this image")]
    Refused {
        /// The record.
        record: JournalRecord,
    },
}

/// Why a commit, a checkpoint or a read through the journal failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// An earlier failure ended all writing.
    #[error("the journal takes no commits since an earlier failure")]
    Failed,
    /// Something failed after which nobody knows what is durable: the journal takes no more
    /// commits.
    #[error("{action} failed, the journal takes no more commits")]
    Fatal {
        /// What was being done.
        action: JournalAction,
        /// The error of the storage or of the owner.
        #[source]
        source: io::Error,
    },
    /// Tables could not be written. Nothing is lost, and it can be tried again.
    #[error("writing tables at {at} failed")]
    Home {
        /// Where, in bytes of the file.
        at: HostOffset,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The ring of a clean image is not empty.
    #[error("the journal holds blocks {tail} to {stable}, though the image is clean")]
    NotEmpty {
        /// The first block that may not be in the tables.
        tail: JournalSequence,
        /// The last one that was durable.
        stable: JournalSequence,
    },
    /// The ring of a clean image has used up its numbers.
    #[error("the journal is at block {tail} and has to begin anew in another epoch")]
    RunningOut {
        /// The next block.
        tail: JournalSequence,
    },
}

/// A batch has more records than one commit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{records} records are more than the {max} of a commit")]
pub struct BatchTooLarge {
    /// Records of the batch.
    pub records: usize,
    /// Records that a commit takes.
    pub max: usize,
}

/// A step of the journal's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalAction {
    /// Reading a block.
    #[error("reading the journal")]
    ReadRing,
    /// Writing blocks.
    #[error("writing the journal")]
    WriteRing,
    /// Asking the owner about a record.
    #[error("checking a record of the journal")]
    Judge,
    /// Setting the file length.
    #[error("setting the file length")]
    SetLength,
    /// Writing tables.
    #[error("writing tables")]
    WriteHome,
    /// Making something durable.
    #[error("a flush")]
    Flush,
    /// Setting JOURNAL_ACTIVE.
    #[error("setting JOURNAL_ACTIVE")]
    SetActive,
    /// Clearing JOURNAL_ACTIVE.
    #[error("clearing JOURNAL_ACTIVE")]
    ClearActive,
    /// Writing the superblock.
    #[error("writing the superblock")]
    MoveTail,
}

impl JournalError {
    /// Whether the journal takes no more commits after this error.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Failed | Self::Fatal { .. })
    }
}
