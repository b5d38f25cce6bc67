//! What a server may ask of a virtual disk. Knows neither image formats nor protocols.

use std::error::Error;
use std::fmt::Debug;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

use qed_io::{Piece, PieceMut, fill_pieces, pieces_len, pieces_mut_len, show_pieces};
use qed_spec::ErrorKind;
use thiserror::Error;

use crate::in_flight::InFlight;

/// A virtual disk, used by any number of threads at once.
///
/// Offsets and lengths are bytes; a range that reaches past [`BlockDevice::size`] is an error. A
/// request that fails may have had part of its effect. What [`BlockDevice::flush`] makes durable is
/// everything that completed before, whichever thread asked for it.
pub trait BlockDevice: Debug + Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Whether every change is refused with [`DeviceError::ReadOnly`].
    fn is_read_only(&self) -> bool;

    /// What requests are best made of.
    fn block_sizes(&self) -> BlockSizes;

    /// Fills `buf` from `at`.
    ///
    /// # Errors
    /// A range past the end, or what kept the bytes from being read. `buf` is then unspecified.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError>;

    /// Writes `buf` at `at`.
    ///
    /// # Errors
    /// A range past the end, a disk without space or that is read-only, a failed write.
    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError>;

    /// Fills `pieces`, one after the other, from `at`: memory of a guest, without a copy where what holds
    /// the disk is a file.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`].
    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], at: u64) -> Result<(), DeviceError> {
        check_range(self.size(), at, pieces_mut_len(pieces))?;
        fill_pieces(pieces, at, |buf, at| self.read_at(buf, at))
    }

    /// Writes `pieces`, one after the other, at `at`, as [`BlockDevice::read_vectored_at`] reads.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn write_vectored_at(
        &self,
        pieces: &[Piece<'_>],
        at: u64,
        durability: Durability,
    ) -> Result<(), DeviceError> {
        check_range(self.size(), at, pieces_len(pieces))?;
        show_pieces(pieces, at, |buf, at| self.write_at(buf, at, Durability::AfterFlush))?;
        match durability {
            Durability::AfterFlush => Ok(()),
            Durability::AtReturn => self.flush(),
        }
    }

    /// A way for one thread to have up to `depth` reads and writes in flight; none where a call that does
    /// the same needs not wait, or where there is no such way.
    ///
    /// # Errors
    /// The system has no more of what it takes.
    fn in_flight(&self, depth: u32) -> Result<Option<InFlight>, DeviceError> {
        let _ = depth;
        Ok(None)
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`], and [`DeviceError::NotFast`] before anything is changed.
    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError>;

    /// Says that nobody wants the bytes of a range any more: they may read as anything afterwards. What
    /// is smaller than the disk's unit of space stays.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError>;

    /// Makes everything that completed before durable.
    ///
    /// # Errors
    /// What kept it from being durable.
    fn flush(&self) -> Result<(), DeviceError>;

    /// The longest run from `at` with one mapping, at most `max_len` bytes and never empty while
    /// `at < size()` and `max_len > 0`.
    ///
    /// # Errors
    /// A place past the end, or what kept the tables from being read.
    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError>;

    /// Shows `visit` the runs of `range`, which lies inside the disk, in order until it breaks off.
    ///
    /// More may be told than by [`BlockDevice::extent_at`], as holes of the file under what is mapped,
    /// for more time. What completed before the call is seen.
    ///
    /// # Errors
    /// As [`BlockDevice::extent_at`].
    fn each_extent(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), DeviceError> {
        walk(range, visit, |at, left| self.extent_at(at, left))
    }

    /// Where the space of the image stands that holds the disk; none where it has no more to tell than
    /// what its file takes.
    ///
    /// # Errors
    /// The storage does not tell.
    fn space_usage(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        Ok(None)
    }

    /// Looks through all tables for what breaks a rule and for free space, beside requests, and tells as
    /// [`BlockDevice::space_usage`]: damage is a finding, no error. May take long.
    ///
    /// # Errors
    /// What kept the tables from being read.
    fn check(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        self.space_usage()
    }

    /// Gives the disk another size in bytes; new bytes read as zeros. Durable when it returns.
    ///
    /// Where the disk has servers `server::Export::resize` is to be called, which tells them.
    ///
    /// # Errors
    /// A size that the disk cannot have, a smaller one that is not allowed, or as
    /// [`BlockDevice::write_at`]; then the disk has its old size.
    fn resize(&self, _new_size: u64, _shrink: Shrink) -> Result<(), DeviceError> {
        Err(if self.is_read_only() {
            DeviceError::ReadOnly
        } else {
            DeviceError::Unsupported("the disk keeps its size")
        })
    }

    /// Where the disk stands in a hand-over between two processes or hosts.
    fn activity(&self) -> Activity {
        Activity::Active
    }

    /// Takes over an image that another process served so far: opens it anew, so that nothing read
    /// before counts, for writing.
    ///
    /// # Errors
    /// A disk that was not opened for hand-over, an image that another owns still, or what kept it from
    /// being opened; then it is as inactive as before.
    fn activate(&self, _take_over: TakeOver) -> Result<(), DeviceError> {
        Err(NOT_FOR_HAND_OVER)
    }

    /// Hands the image over: what completed before is durable and the image closed when it returns.
    ///
    /// # Errors
    /// A disk that was not opened for hand-over, or as [`BlockDevice::flush`].
    fn deactivate(&self) -> Result<(), DeviceError> {
        Err(NOT_FOR_HAND_OVER)
    }

    /// Begins to move what is stored towards the front, so that the image gets shorter; none where
    /// nothing can be moved.
    ///
    /// # Errors
    /// Why the image cannot be changed.
    fn compact(&self) -> Result<Option<Box<dyn Compaction>>, DeviceError> {
        Ok(None)
    }

    /// Does what is due at `now` and returns when to call again, none while nothing waits.
    ///
    /// # Errors
    /// As [`BlockDevice::flush`].
    fn maintain(&self, now: Instant) -> Result<Option<Instant>, DeviceError>;

    /// Flushes and closes: what changes the disk afterwards may be refused. A second call does nothing
    /// that the first did.
    ///
    /// # Errors
    /// As [`BlockDevice::flush`]; whoever closes it does not go on with it all the same.
    fn close(&self) -> Result<(), DeviceError>;
}

const NOT_FOR_HAND_OVER: DeviceError =
    DeviceError::Unsupported("the disk was not opened for hand-over");

/// What requests are best made of, in bytes; each a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Requests that are no multiple of this are refused.
    pub minimum: u32,
    /// Requests that are a multiple of this cost nothing beside themselves.
    pub preferred: u32,
}

/// When a change is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After the next flush.
    AfterFlush,
    /// When the request returns.
    AtReturn,
}

/// How a range becomes zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zeroing {
    /// What becomes of the space.
    pub space: Space,
    /// Whether it may take as long as writing the zeros.
    pub speed: Speed,
    /// When it is durable.
    pub durability: Durability,
}

/// What becomes of the space of a range that is zeroed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// It need not be there afterwards.
    MayHaveHoles,
    /// It is allocated, so that later writes find it there.
    Allocated,
}

/// Whether a request may take its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// It may.
    Any,
    /// It fails at once where it could be no faster than writing.
    FastOnly,
}

/// Whether a resize may delete what lies past a smaller end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shrink {
    /// A smaller size is an error.
    Refuse,
    /// What is past the new end is deleted.
    Allow,
}

/// Where a disk stands in a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Another may serve the image: nothing is written.
    Inactive,
    /// The image is this disk's.
    Active,
    /// It was handed over and comes back only by [`BlockDevice::activate`].
    Ended,
}

/// Whether an image is taken whose owner cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    /// One that another owns is refused.
    No,
    /// The caller knows that the owner is gone, or kept from writing.
    Yes,
}

/// Where the space of an image stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Bytes up to the end of all that was ever used: the high-water mark.
    pub end: u64,
    /// Bytes below the end that are known to be free; none before the image has looked for them.
    pub free: Option<u64>,
    /// Bytes of the block device that holds the image; none for a file, which grows.
    pub capacity: Option<u64>,
    /// What is wrong with the tables, so that no space is used again before a check.
    pub finding: Option<String>,
}

impl SpaceUsage {
    /// Bytes that can be used before the device has to be longer; none for a file.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        Some(self.capacity?.saturating_sub(self.end).saturating_add(self.free.unwrap_or(0)))
    }
}

/// What is stored is being moved towards the front of an image, beside requests. Dropping it ends that,
/// and the image is whole.
pub trait Compaction: Send {
    /// Goes on for a short while.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`]; the image is whole, and there is no next step.
    fn step(&mut self) -> Result<CompactionStep, DeviceError>;
}

/// How far a [`Compaction`] has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompactionStep {
    /// There is more to do.
    Moving {
        /// Bytes that were moved so far.
        moved: u64,
        /// Bytes that are to be moved in all, as far as is known.
        total: u64,
    },
    /// It is done.
    Done(Compacted),
}

/// What came of a [`Compaction`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// The high-water mark before, in bytes.
    pub end_before: u64,
    /// The high-water mark now.
    pub end: u64,
    /// Bytes that were moved.
    pub moved: u64,
    /// Bytes that stayed where they were since requests were writing to them.
    pub busy: u64,
    /// Bytes of tables that stayed since nothing below had room for them.
    pub tables: u64,
}

/// A run of bytes with one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// What is there.
    pub allocation: Allocation,
    /// Which image of the chain says so: 1 is the disk's own, 2 its backing file, 0 none of them.
    pub depth: u32,
}

/// What an [`Extent`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// Stored bytes.
    Data,
    /// Zeros that have a place of their own, which may take no space.
    Zero,
    /// Zeros that take no space.
    Hole,
}

/// Why a request was not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The disk cannot be changed.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The range reaches past the end.
    #[error("{len} bytes at {at:#x} reach past the end of the disk")]
    OutOfRange {
        /// First byte of the range.
        at: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// There is no room for what was to be written.
    #[error("no space is left")]
    NoSpace(#[source] Box<dyn Error + Send + Sync>),
    /// Zeroing would take as long as writing.
    #[error("zeroing is no faster than writing here")]
    NotFast,
    /// The disk has no such operation, or not in its state; the text says which rule that is.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The disk could do so, and something forbids it.
    #[error("the disk refuses it")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The image may be another's: it was not taken over yet, or handed over.
    #[error("the disk is not active here")]
    Inactive,
    /// The image or what holds it failed.
    #[error("the disk failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl DeviceError {
    /// The failure of what holds the disk.
    pub(crate) fn of(kind: ErrorKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match kind {
            ErrorKind::NoSpace => Self::NoSpace(error.into()),
            _ => Self::Failed(error.into()),
        }
    }

    pub(crate) fn of_io(error: std::io::Error) -> Self {
        Self::of((&error).into(), error)
    }

    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::ReadOnly => ErrorKind::ReadOnly,
            Self::OutOfRange { .. } => ErrorKind::InvalidInput,
            Self::NoSpace(_) => ErrorKind::NoSpace,
            Self::NotFast | Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Refused(_) | Self::Inactive => ErrorKind::Refused,
            Self::Failed(_) => ErrorKind::Io,
        }
    }
}

/// Shows `visit` the extents that `next` tells of a place and what is left, until either ends.
pub(crate) fn walk(
    range: Range<u64>,
    visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    mut next: impl FnMut(u64, u64) -> Result<Extent, DeviceError>,
) -> Result<(), DeviceError> {
    let mut at = range.start;
    while at < range.end {
        let left = range.end - at;
        let extent = next(at, left)?;
        let len = extent.len.min(left);
        if len == 0 || visit(Extent { len, ..extent }).is_break() {
            break;
        }
        at += len;
    }
    Ok(())
}

/// Checks that a range lies inside a disk.
pub(crate) fn check_range(size: u64, at: u64, len: u64) -> Result<(), DeviceError> {
    match at.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(DeviceError::OutOfRange { at, len }),
    }
}

#[cfg(feature = "server")]
/// An error and its sources, for the log.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
