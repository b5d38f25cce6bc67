//! Why an image is not converted in place, and which step of the conversion failed.

use std::fmt;
use std::io;

use qed_layout::ReadError;
use qed_spec::{BackingFormatError, HeaderError};
use thiserror::Error;

use crate::qcow2::{Qcow2OpenError, Qcow2ReadError};

/// Why a conversion in place did not happen. Unless said otherwise the image is what it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InPlaceError {
    /// The image is one that this conversion is not for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The QCOW2 image did not open.
    #[error("QCOW2 image")]
    Qcow2(#[from] Qcow2OpenError),
    /// The QCOW2 image could not be read, or breaks a rule.
    #[error("QCOW2 image")]
    Read(#[from] Qcow2ReadError),
    /// The QED image breaks a rule.
    #[error("QED image")]
    Qed(#[from] HeaderError),
    /// The storage failed.
    #[error("{step}, at offset {at:#x}")]
    Io {
        /// What was being done.
        step: Step,
        /// Where in the file.
        at: u64,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// What was appended is not what was meant: nothing was committed.
    #[error(
        "guest cluster {cluster}: the new tables say {found:#x} where {expected:#x} was written"
    )]
    Verify {
        /// The cluster of the virtual disk.
        cluster: u64,
        /// What the entry should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// There are not as many tables as were appended: nothing was committed.
    #[error("the new L1 table names {found} L2 tables where {expected} were written")]
    Tables {
        /// L2 tables that were meant.
        expected: u64,
        /// L2 tables that there are.
        found: u64,
    },
    /// After a failure the first sector is neither the old nor the new one.
    #[error(
        "the first sector could not be replaced and cannot be read back: run the conversion again"
    )]
    InDoubt,
}

impl InPlaceError {
    pub(super) fn io(step: Step, at: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, at, source }
    }
}

impl From<ReadError> for InPlaceError {
    fn from(ReadError { at, source, .. }: ReadError) -> Self {
        Self::Io { step: Step::Read, at: at.get(), source }
    }
}

/// A step of a conversion, as docs/in-place-conversion.md names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Reading the image.
    Read,
    /// Taking away what an interrupted conversion left.
    Clean,
    /// Writing the undo record.
    Record,
    /// Appending clusters and tables.
    Append,
    /// Replacing the first sector.
    Commit,
    /// Restoring the first sector.
    Restore,
    /// Cutting the file to its old length.
    Cut,
    /// Erasing the undo record.
    Erase,
    /// Clearing the bits that allow to undo.
    Finalize,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading the image",
            Self::Clean => "taking away what an interrupted conversion left",
            Self::Record => "writing the undo record",
            Self::Append => "appending clusters and tables",
            Self::Commit => "replacing the first sector",
            Self::Restore => "restoring the first sector",
            Self::Cut => "cutting the file to its old length",
            Self::Erase => "erasing the undo record",
            Self::Finalize => "clearing the bits that allow to undo",
        })
    }
}

/// Why this image is not converted in place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The file cannot grow.
    #[error("the image lies on a block device, where nothing can be appended: use qed convert")]
    BlockDevice,
    /// QED has no such clusters.
    #[error(
        "clusters of {len} bytes are too small for QED, which has 4096 at the least: use qed convert"
    )]
    ClusterSize {
        /// Bytes.
        len: u64,
    },
    /// No table size reaches so far.
    #[error(
        "a disk of {size} bytes is too large for QED with clusters of {cluster_size} bytes: use qed convert"
    )]
    TooLarge {
        /// Bytes of the disk.
        size: u64,
        /// Bytes.
        cluster_size: u64,
    },
    /// The map of its clusters would take too much memory, or what is appended would not fit.
    #[error("a file of {len} bytes is too long to be converted in place: use qed convert")]
    FileTooLong {
        /// Bytes.
        len: u64,
    },
    /// A program marked it.
    #[error("the image is marked corrupt: repair it first (qemu-img check -r all)")]
    MarkedCorrupt,
    /// Where it ends, after an interrupted conversion, cannot be told.
    #[error(
        "the image was not closed cleanly, has snapshots, and an interrupted conversion left \
         something in it: repair it first (qemu-img check -r all)"
    )]
    DirtySnapshots,
    /// Snapshots would be lost.
    #[error(
        "the image has {count} internal snapshots: delete them (qemu-img snapshot -d), or let them go with --drop-snapshots"
    )]
    Snapshots {
        /// How many.
        count: u32,
    },
    /// No room for the undo record.
    #[error(
        "header extensions and backing file name reach to byte {end} of the file, past 2048, where the undo record goes: use qed convert"
    )]
    HeaderArea {
        /// Byte after the last.
        end: u64,
    },
    /// Somebody keeps something there.
    #[error(
        "byte {at} of the file belongs to nothing that is known, and is not zero: use qed convert"
    )]
    UnknownBytes {
        /// The byte.
        at: u64,
    },
    /// Two entries name one cluster.
    #[error("the cluster at {at:#x} has two uses ({what}): check the image first (qemu-img check)")]
    Shared {
        /// Offset of the cluster in the file.
        at: u64,
        /// The second use.
        what: &'static str,
    },
    /// The format of the backing file cannot be stored.
    #[error("backing file format")]
    BackingFormat(#[from] BackingFormatError),
    /// Neither a record nor a bit.
    #[error(
        "nothing can be undone: the image was not converted in place, was finalized, or was written since"
    )]
    NothingToUndo,
    /// The record is not of this image as it is.
    #[error("the image was written since it was converted: convert it back instead (--to qcow2)")]
    Changed,
    /// The bit is not set.
    #[error(
        "there is nothing to finalize: the image was not converted in place, or was written since"
    )]
    NothingToFinalize,
}
