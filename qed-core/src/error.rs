//! Why an operation on an image failed, one enum per kind of operation.

mod kind;
mod pending;

use std::error::Error;
use std::io;

use qed_io::LockError;
use qed_journal::{JournalError, RecoveryError};
use qed_layout::ReadError;
use qed_pending::PlaceError;
use qed_spec::{
    BackingFormatError, BackingNameError, ChooseError, DirtyBitmapError, GuestOffset, HeaderError,
    HostOffset, JournalRingError, L1Index, L2Index, ModeError,
};
use thiserror::Error;

use crate::data::disk::{BackingError, GateError};

pub use pending::PendingLogError;

/// Why reading, writing, mapping or flushing an open image failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The request reaches past the end of the virtual disk.
    #[error("{len} bytes at guest offset {at:#x} reach past the image size of {image_size} bytes")]
    OutOfRange {
        /// First byte of the request.
        at: u64,
        /// Bytes of the request.
        len: u64,
        /// Bytes of the virtual disk.
        image_size: u64,
    },
    /// The tables break a rule of the specification.
    #[error("corrupt image")]
    Corrupt(#[source] CorruptTable),
    /// The storage failed.
    #[error("{action} at offset {at} of the image file")]
    Io {
        /// What was being done.
        action: IoAction,
        /// Where in the image file.
        at: HostOffset,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// The backing file could not be read.
    #[error("backing file")]
    Backing(#[from] BackingError),
    /// A flush failed earlier: what the file holds is unknown, so the image takes no more writes.
    #[error("the image is read-only since a flush failed; close it and check the file")]
    WritesStopped,
    /// Sector 0 or the superblock is not what this program wrote last: another host has taken the image, and
    /// this one writes it no more.
    #[error("another host or program has taken the image; what was not flushed is lost")]
    NotOurs,
    /// The image was closed.
    #[error("the image is closed")]
    Closed,
    /// What a process acknowledged that died is lost: told once, to the first flush.
    #[error("writes that were acknowledged before the process ended are lost")]
    PendingLost,
    /// The journal failed; the image takes no more writes.
    #[error("journal")]
    Journal(#[source] JournalError),
    /// The superblock takes no more writes: its generations are used up.
    #[error("the superblock was written too often to be written again")]
    SuperblockFull,
    /// The file cannot grow: a block device, or offsets beyond 63 bits.
    #[error("no space for {clusters} more clusters at offset {end} of the image file")]
    NoSpace {
        /// Clusters wanted.
        clusters: u64,
        /// End of the image in the file.
        end: HostOffset,
    },
}

/// What an [`ImageError::Io`] was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoAction {
    /// Reading guest data.
    ReadData,
    /// Writing guest data.
    WriteData,
    /// Reading an L1 or L2 table.
    ReadTable,
    /// Writing an L1 or L2 table.
    WriteTable,
    /// Reading the header.
    ReadHeader,
    /// Writing the header.
    WriteHeader,
    /// Changing or asking the file length.
    Resize,
    /// Flushing.
    Flush,
}

impl std::fmt::Display for IoAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadData => "reading guest data",
            Self::WriteData => "writing guest data",
            Self::ReadTable => "reading a table",
            Self::WriteTable => "writing a table",
            Self::ReadHeader => "reading the header",
            Self::WriteHeader => "writing the header",
            Self::Resize => "setting the file length",
            Self::Flush => "flushing",
        })
    }
}

/// A table slot that breaks a rule, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CorruptTable {
    /// An L1 slot that names no L2 table inside the file and outside all other metadata.
    #[error("{l1} is {value:#x}: not an L2 table inside the file and apart from other metadata")]
    L1Entry {
        /// The slot.
        l1: L1Index,
        /// Its value.
        value: u64,
    },
    /// Two L1 slots name L2 tables that share bytes.
    #[error("{first} and {second} name overlapping L2 tables, the second at {value:#x}")]
    L1Overlap {
        /// The slot with the lower number.
        first: L1Index,
        /// The other one.
        second: L1Index,
        /// The value of the other one.
        value: u64,
    },
    /// An L2 slot that names a data cluster which another slot names, too.
    #[error("{l1} {l2} is {value:#x}: another entry names that data cluster, too")]
    L2Shared {
        /// Slot of the L1 table.
        l1: L1Index,
        /// Slot of the L2 table.
        l2: L2Index,
        /// Its value.
        value: u64,
    },
    /// An L1 slot past the end of the disk that is not 0, where the clusters that it leads to are in
    /// the way.
    #[error(
        "{l1} is {value:#x}, past the end of the disk: a repair of leaks clears it, before what it \
         leads to is written over"
    )]
    L1PastDisk {
        /// The slot.
        l1: L1Index,
        /// Its value.
        value: u64,
    },
    /// An L2 slot that names no data cluster inside the file and outside all metadata.
    #[error("{l1} {l2} is {value:#x}: not a data cluster inside the file and apart from metadata")]
    L2Entry {
        /// Slot of the L1 table.
        l1: L1Index,
        /// Slot of the L2 table.
        l2: L2Index,
        /// Its value.
        value: u64,
    },
}

/// Why an image did not open.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The image lock is held by somebody else, or cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The header breaks a rule or needs a feature that is not supported.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The backing file name breaks a rule.
    #[error("backing file name")]
    BackingName(#[from] BackingNameError),
    /// The gate did not open the backing file.
    #[error("backing file '{name}'")]
    Gate {
        /// The name as the image has it, bytes that are not text escaped.
        name: String,
        /// Why.
        #[source]
        source: GateError,
    },
    /// The copies of the superblock do not say which is current.
    #[error("superblock")]
    Superblock(#[from] ChooseError),
    /// The image was not closed cleanly and no recovery policy was given.
    #[error("the image was not closed cleanly and needs a check before it is written")]
    NeedsRecovery,
    /// The superblock names a consistency mode that is not known.
    #[error("superblock")]
    Mode(#[from] ModeError),
    /// The image is in journal mode, and the superblock names no journal.
    #[error("the image is in journal mode, but its superblock names no journal")]
    NoJournal,
    /// The superblock names a place where no journal can be.
    #[error("superblock")]
    JournalRing(#[from] JournalRingError),
    /// The journal cannot be read, or says what must not be followed.
    #[error("journal")]
    JournalRecovery(#[from] RecoveryError),
    /// The journal of a clean image is not empty, or cannot begin anew.
    #[error("journal")]
    Journal(#[from] JournalError),
    /// The journal says that the file ends before tables of the image.
    #[error("the journal ends the image file before tables that are in use")]
    JournalCutsTables,
    /// The dirty bitmap has no place in the header area.
    #[error("superblock")]
    DirtyBitmap(#[from] DirtyBitmapError),
    /// The recovery hook refused or failed.
    #[error("recovery of an image that was not closed cleanly")]
    Recovery(#[source] Box<dyn Error + Send + Sync>),
    /// The recovery hook returned, but the image still needs a check, or not all was checked that the
    /// crash left in doubt.
    #[error("the image still needs a check after recovery")]
    StillDirty,
    /// The process that had the image open died in this run of the system, and its pending log cannot be
    /// used: writes that it acknowledged may be lost.
    #[error("writes that were acknowledged before the last process ended may be lost")]
    PendingLost(#[from] PendingLogError),
    /// The pending log has no place that can be trusted.
    #[error("the place of the pending log")]
    LogPlace(#[source] PlaceError),
    /// The image names an owner on another host, whom no lock excludes.
    #[error(
        "the image is in use by the host '{host}', since {since} seconds after 1970, or was when that died"
    )]
    Owned {
        /// The name of the host, as far as the image keeps it.
        host: String,
        /// Seconds since 1970.
        since: u64,
    },
    /// Reading the tables or clearing autoclear bits failed, or the tables are corrupt.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Why an image could not be created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The options do not make a legal header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The backing file name is not legal.
    #[error("backing file name")]
    BackingName(#[from] BackingNameError),
    /// The format of the backing file has no legal name.
    #[error("backing file format")]
    BackingFormat(#[from] BackingFormatError),
    /// The journal cannot have that length.
    #[error("journal")]
    JournalRing(#[from] JournalRingError),
    /// The block device is too small for an image without any data.
    #[error(
        "the device is too small: it has {capacity} bytes, and the metadata alone needs {needed}"
    )]
    DeviceTooSmall {
        /// Bytes of the device.
        capacity: u64,
        /// Bytes of the metadata.
        needed: u64,
    },
    /// The storage failed.
    #[error("writing the new image")]
    Io(#[from] io::Error),
}

/// Why the virtual disk kept its size.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// The new size is not legal for this image.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The dirty bitmap has no bits for the tables of a disk of that size.
    #[error(transparent)]
    DirtyBitmap(#[from] DirtyBitmapError),
    /// The new size is smaller and the caller did not allow that.
    #[error("shrinking from {from} to {to} bytes would delete data past the new end")]
    WouldShrink {
        /// Bytes now.
        from: u64,
        /// Bytes wanted.
        to: u64,
    },
    /// Reading or writing failed; see [`crate::Image::resize`] for the size that the disk has.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Why the backing file entry of the header was not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetBackingError {
    /// The name is not legal.
    #[error("backing file name")]
    BackingName(#[from] BackingNameError),
    /// The format of the backing file has no legal name.
    #[error("backing file format")]
    BackingFormat(#[from] BackingFormatError),
    /// The header area has no room for the new name beside the old one.
    #[error(
        "the header area of {area} bytes has no room for a name of {len} bytes beside the old one"
    )]
    NoRoom {
        /// Bytes of the header area.
        area: u64,
        /// Bytes of the new name.
        len: u64,
    },
    /// The header would not be legal.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Writing the header failed.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Why an image kept its layout, or has not got the new one yet.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AmendError {
    /// The journal cannot have that length.
    #[error("journal")]
    JournalRing(#[from] JournalRingError),
    /// The image does not open for writing.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backing file name lies where the superblocks or what they name go.
    #[error(
        "the backing file name ends at offset {end}, and from {first} on there are superblocks in \
         the new layout: setting the same name again moves it"
    )]
    NameInTheWay {
        /// Byte after the last of the name.
        end: u64,
        /// First byte of the superblocks.
        first: HostOffset,
    },
    /// Reading or writing failed, or the tables are corrupt.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl ImageError {
    pub(crate) fn io(action: IoAction, at: HostOffset) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, at, source }
    }

    /// As [`ImageError::io`], of what qed-layout could not read.
    pub(crate) fn read(action: IoAction) -> impl FnOnce(ReadError) -> Self {
        move |ReadError { at, source, .. }| Self::Io { action, at, source }
    }

    pub(crate) fn out_of_range(at: GuestOffset, len: u64, image_size: u64) -> Self {
        Self::OutOfRange { at: at.get(), len, image_size }
    }
}

/// A walk through tables failed.
impl From<ReadError> for ImageError {
    fn from(error: ReadError) -> Self {
        Self::read(IoAction::ReadTable)(error)
    }
}

impl From<CorruptTable> for ImageError {
    fn from(corrupt: CorruptTable) -> Self {
        Self::Corrupt(corrupt)
    }
}
