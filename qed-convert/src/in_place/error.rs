//! Why an image is not converted in place, and which step of the conversion failed.

use std::fmt;
use std::io;

use qed_core::{AmendError, BackingError, ImageError, OpenError};
use qed_io::LockError;
use qed_layout::ReadError;
use qed_spec::{BackingFormatError, HeaderError};
use thiserror::Error;

use super::kept_plan::PlanFault;
use crate::qcow2::{Qcow2OpenError, Qcow2ReadError};
use crate::target::qcow2::Qcow2OptionError;

/// Why a conversion in place did not happen. Unless said otherwise, or the step was one behind
/// [`Step::Commit`], the image is what it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InPlaceError {
    /// The image is one that this conversion is not for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A plan is there that is not acted on.
    #[error(transparent)]
    Plan(#[from] PlanFault),
    /// Somebody else uses the file.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The QED image does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A table of the QED image could not be read, or it could not be closed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The QED image could not be closed, or given QEMU's layout.
    #[error(transparent)]
    Amend(#[from] AmendError),
    /// QCOW2 has no room for what the QED image is.
    #[error(transparent)]
    Options(#[from] Qcow2OptionError),
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
    #[error("{step}{}", at.map(|at| format!(", at offset {at:#x}")).unwrap_or_default())]
    Io {
        /// What was being done.
        step: Step,
        /// Where in the file, if it was at one place.
        at: Option<u64>,
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
    /// The QCOW2 tables that were appended do not open: nothing was committed.
    #[error("what was appended does not open as QCOW2")]
    Unreadable(#[source] Box<Qcow2OpenError>),
    /// The QCOW2 tables that were appended cannot be read: nothing was committed.
    #[error("what was appended cannot be read")]
    UnreadableTable(#[source] BackingError),
    /// The QCOW2 tables that were appended say something else than those of the QED image.
    #[error("the two formats differ at byte {at:#x} of the disk; nothing was changed")]
    Differ {
        /// Byte of the virtual disk.
        at: u64,
    },
    /// After a failure the first sector is neither the old nor the new one.
    #[error(
        "the first sector could not be replaced and cannot be read back: run the conversion again"
    )]
    InDoubt,
}

impl InPlaceError {
    pub(super) fn io(step: Step, at: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, at: Some(at), source }
    }
}

/// Names the step in which the storage failed.
pub(super) fn failed(step: Step) -> impl FnOnce(io::Error) -> InPlaceError {
    move |source| InPlaceError::Io { step, at: None, source }
}

impl From<ReadError> for InPlaceError {
    fn from(ReadError { at, source, .. }: ReadError) -> Self {
        Self::Io { step: Step::Read, at: Some(at.get()), source }
    }
}

/// A step of a conversion, as docs/in-place-conversion.md names them, in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Reading the image.
    Read,
    /// Taking away what an interrupted conversion left.
    Clean,
    /// Keeping the plan, or dropping it.
    Plan,
    /// Writing the undo record.
    Record,
    /// Making a QED image read as the raw file, as far as no entry names it.
    Prepare,
    /// Appending clusters and tables.
    Append,
    /// Replacing the first sector.
    Commit,
    /// Restoring the first sector.
    Restore,
    /// Overwriting what only the old format needed.
    Wipe,
    /// Cutting the file.
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
            Self::Plan => "keeping the plan",
            Self::Record => "writing the undo record",
            Self::Prepare => "preparing what no entry names",
            Self::Append => "appending clusters and tables",
            Self::Commit => "replacing the first sector",
            Self::Restore => "restoring the first sector",
            Self::Wipe => "wiping what only the old format needed",
            Self::Cut => "cutting the file",
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
    /// There is nothing to convert.
    #[error("the file is empty; use 'qed create'")]
    EmptyFile,
    /// The disk would not be whole sectors.
    #[error("the file has {len} bytes, which is no multiple of 512; 'truncate -s %512' adds zeros")]
    Unaligned {
        /// Bytes.
        len: u64,
    },
    /// The file begins like an image.
    #[error("the file begins like a {format} image; state its format")]
    NotRaw {
        /// The name of the format.
        format: &'static str,
    },
    /// QEMU opens no image with clusters of this size and a disk of this size.
    #[error("clusters of {cluster_len} bytes cannot map {len} bytes in an image that QEMU opens")]
    Geometry {
        /// Bytes.
        cluster_len: u32,
        /// Bytes.
        len: u64,
    },
    /// A raw file has no backing file.
    #[error("the image has a backing file; 'qed rebase -b \"\"' copies what it needs of it")]
    HasBacking,
    /// The disk has no bytes.
    #[error("the disk is empty")]
    EmptyDisk,
    /// A cluster is not where the raw file has it.
    #[error("byte {guest:#x} of the disk is at {host:#x} of the file; use 'qed convert -O raw'")]
    Elsewhere {
        /// Byte of the virtual disk.
        guest: u64,
        /// Byte of the file.
        host: u64,
    },
    /// Something else is where the raw file has a cluster.
    #[error(
        "a table or a cluster lies at {host:#x}, where the raw file has zeros; use 'qed convert -O raw'"
    )]
    InTheWay {
        /// Byte of the file.
        host: u64,
    },
    /// The guest's first cluster would be taken for something of QED.
    #[error(
        "the first cluster of the disk holds what reads like a part of QED; use 'qed convert -O raw'"
    )]
    LooksLikeQed,
    /// The file is longer than refcounts of QCOW2 can count.
    #[error(
        "the file would have {len} bytes, and QCOW2 counts {max} at this cluster size; use 'qed convert'"
    )]
    TooLong {
        /// Bytes.
        len: u64,
        /// Bytes.
        max: u64,
    },
    /// Two entries name one cluster.
    #[error("the cluster at {host:#x} is named twice; use 'qed check -r all' first")]
    SharedCluster {
        /// Byte of the file.
        host: u64,
    },
    /// It was a QCOW2 image, snapshots that were given up included, and can be that again.
    #[error(
        "the image was converted from QCOW2 and not written since: --undo makes it what it was, --finalize gives that up"
    )]
    CanBeUndone,
    /// Nothing says what format the backing file has.
    #[error(
        "the image does not say what format its backing file has; state it with --backing-format"
    )]
    BackingFormatUnknown,
    /// The name of the format of the backing file is too long for sector 0.
    #[error("the name of the format of the backing file does not fit the first sector")]
    FormatTooLong,
    /// The header area has no free bytes for the name.
    #[error(
        "the first cluster has no room for a second copy of the backing file name; use 'qed convert'"
    )]
    NoRoomForName,
}
