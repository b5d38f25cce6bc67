//! Why a QED image did not become a QCOW2 image.

use qed_core::{BackingError, ImageError, OpenError};
use thiserror::Error;

use crate::in_place::step::StepError;
use crate::{Qcow2OpenError, Qcow2OptionError};

/// Why a QED image did not become a QCOW2 image in place. Unless the step was `commit` or `wipe`, it is
/// the QED image that it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ToQcow2Error {
    /// The image does not open for writing.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A table of the image could not be read, or it could not be closed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// QCOW2 has no room for what the image is.
    #[error(transparent)]
    Options(#[from] Qcow2OptionError),
    /// The storage failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A block device has no end to append to.
    #[error("a block device cannot be converted in place; use 'qed convert'")]
    BlockDevice,
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
    /// The tables that were written do not read as a QCOW2 image.
    #[error("what was appended does not open as QCOW2")]
    Unreadable(#[source] Box<Qcow2OpenError>),
    /// The tables that were written cannot be read.
    #[error("what was appended cannot be read")]
    UnreadableTable(#[source] BackingError),
    /// The tables that were written say something else than those of the QED image.
    #[error("the two formats differ at byte {at:#x} of the disk; nothing was changed")]
    Differ {
        /// Byte of the virtual disk.
        at: u64,
    },
}
