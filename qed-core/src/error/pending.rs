//! Why the pending log of an image is not believed.

use qed_spec::{ErrorKind, GuestCluster};
use thiserror::Error;

/// Why what a process left of its last changes is not made part of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PendingLogError {
    /// There is none.
    #[error("there is no pending log")]
    Missing,
    /// It is bound to something else.
    #[error("the {what} of the pending log is not that of the image and its host")]
    OfAnother {
        /// What differs.
        what: &'static str,
    },
    /// A flush failed while it was written, so that nobody knows what the file holds.
    #[error("a flush failed before the process ended that wrote the pending log")]
    Stopped,
    /// Another program made the file longer.
    #[error(
        "the image file has {file_len} bytes, and the writer of the pending log left at most {most}"
    )]
    FileLonger {
        /// Bytes of the file.
        file_len: u64,
        /// Bytes that it may have.
        most: u64,
    },
    /// A record of clusters that the disk has not, or that do not lie in one slice of a table.
    #[error("the pending log has a record of guest cluster {}, which has no such entries", .guest.get())]
    NoEntry {
        /// The first cluster of the record.
        guest: GuestCluster,
    },
    /// A record gives an entry a value that no entry may have, or that another one has.
    #[error("the pending log has a record with the value {value:#x}, which no entry may have")]
    Value {
        /// The value.
        value: u64,
    },
    /// An entry is neither what it was before the log nor what the log made of it.
    #[error("another program wrote the entry of guest cluster {} since the pending log was written", .guest.get())]
    Foreign {
        /// The cluster.
        guest: GuestCluster,
    },
}

impl PendingLogError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Dirty
    }
}
