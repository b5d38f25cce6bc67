//! The `Storage` trait: what the layers above may ask of the bytes that hold an image.
//!
//! Owns the contracts that every implementation keeps; knows neither files nor formats.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::ops::Range;

use crate::lock::{ImageLock, LockError};
use crate::pieces::{Piece, PieceMut, fill_pieces, show_pieces};

/// The bytes of one image file or block device, shared by any number of threads.
///
/// Offsets and lengths are in bytes and need no alignment; an implementation that has alignment
/// rules of its own (`O_DIRECT`) keeps them inside. Reads and writes are exact: they transfer the
/// whole buffer or fail. An empty transfer or range does nothing, wherever it lies. Operations that
/// overlap in time and place have no defined order; bytes outside the range of an operation are
/// never touched by it.
///
/// `Any` lets a caller that knows a kind of storage ask whether it is that kind.
pub trait Storage: Any + Debug + Send + Sync {
    /// The current length in bytes; for a block device its capacity, which may have grown while it is
    /// open.
    ///
    /// # Errors
    /// The operating system's error.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    ///
    /// # Errors
    /// As [`Storage::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range ends past the length; else the operating
    /// system's error. `buf` is unspecified after an error.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills `pieces`, one after the other, from `offset`, as [`Storage::read_at`] does; a file reads them
    /// in one system call and copies nothing.
    ///
    /// # Errors
    /// As [`Storage::read_at`].
    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], offset: u64) -> io::Result<()> {
        fill_pieces(pieces, offset, |buf, at| self.read_at(buf, at))
    }

    /// Writes all of `buf` at `offset`, extending a regular file as needed (the gap reads as
    /// zeros). Durable after the next [`Storage::flush`].
    ///
    /// # Errors
    /// The operating system's error; part of the range may then hold the new bytes.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes of `pieces`, one after the other, at `offset`, as [`Storage::write_at`] does.
    ///
    /// For callers that have the parts of one write in several places; a file writes them in one
    /// system call and copies nothing.
    ///
    /// # Errors
    /// As [`Storage::write_at`].
    fn write_vectored_at(&self, pieces: &[Piece<'_>], offset: u64) -> io::Result<()> {
        show_pieces(pieces, offset, |buf, at| self.write_at(buf, at))
    }

    /// Sets the length. New bytes read as zeros. Durable after the next [`Storage::flush`].
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for a block device, unless `len` is its capacity.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes every write, truncation and punch that completed before this call durable.
    ///
    /// # Errors
    /// The operating system's error. After one, nothing written since the last good flush may be
    /// relied on, even if it can still be read, and every later flush fails: the system tells of
    /// writes that were lost only once.
    fn flush(&self) -> io::Result<()>;

    /// Makes `range` read as zeros without changing the length, as cheaply as the storage can;
    /// the range may lie partly or wholly past the length, which then grows to its end.
    ///
    /// # Errors
    /// As [`Storage::write_at`].
    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()>;

    /// Gives the space of `range` back where the storage can; the range reads as zeros afterwards
    /// or is unchanged. The part of the range past the length is ignored.
    ///
    /// Returns whether the space was given back.
    ///
    /// # Errors
    /// The operating system's error, except that not being able to punch holes is `Ok(false)`.
    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool>;

    /// Gives the space of `range` back where the storage can, for bytes that nobody reads before they are
    /// written: afterwards they may read as anything. What is no whole unit of the storage stays; the
    /// part of the range past the length is ignored.
    ///
    /// Returns whether the space was given back, as far as the storage tells.
    ///
    /// # Errors
    /// The operating system's error, except that not being able to is `Ok(false)`.
    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        self.punch_hole(range)
    }

    /// The run of bytes from `at` that is known to be all hole or may hold data.
    ///
    /// A storage that cannot tell returns one data run up to its length. At or past the length the
    /// run is empty.
    ///
    /// # Errors
    /// The operating system's error.
    fn run_at(&self, at: u64) -> io::Result<StorageRun>;

    /// Bytes of space that the storage takes, as far as it knows: less than its length where it has
    /// holes that [`Storage::run_at`] tells of.
    ///
    /// # Errors
    /// The operating system's error.
    fn allocated_len(&self) -> io::Result<u64> {
        self.len()
    }

    /// In which units bytes of `source` can become bytes of this storage without being copied: both
    /// take the same space then, until one of them is written. None where they cannot. Asks the
    /// system and changes nothing.
    fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        let _ = source;
        None
    }

    /// Makes the bytes from `at` those of `range` in `source`, sharing their space; both begin and
    /// end with whole units of [`Storage::sharing_unit`]. Durable after the next flush.
    ///
    /// Returns whether that was done; if not, the bytes from `at` may hold anything and have to be
    /// written.
    fn share(&self, source: &dyn Storage, range: Range<u64>, at: u64) -> bool {
        let _ = (source, range, at);
        false
    }

    /// What new space reads as when the storage grows.
    fn growth(&self) -> Growth;

    /// Drops what this host caches of `range`, so that the next read sees what another host has written
    /// meanwhile; what this one wrote and has not flushed stays. Nothing where nothing is cached.
    ///
    /// # Errors
    /// The operating system's error.
    fn forget_cached(&self, range: Range<u64>) -> io::Result<()> {
        let _ = range;
        Ok(())
    }

    /// Takes the image lock, so that other programs (QEMU among them) see what this one does.
    ///
    /// A lock is held until the storage is dropped; a second call replaces the first's permissions.
    ///
    /// # Errors
    /// [`LockError::Held`] names what another holder does not allow.
    fn lock(&self, lock: ImageLock) -> Result<(), LockError>;
}

/// A run of bytes with one kind, from the place that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageRun {
    /// Length in bytes.
    pub len: u64,
    /// What the run is.
    pub kind: RunKind,
}

/// What [`Storage::run_at`] knows about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// May hold bytes other than zero.
    Data,
    /// Reads as zeros and takes no space.
    Hole,
}

/// What space that was never written reads as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Regular files and memory: bytes past the old length read as zeros.
    Zeros,
    /// Block devices: the length is fixed and unwritten space holds whatever was there.
    Stale,
}
