//! Storage in a regular file or a block device.
//!
//! Owns one open file description and decides which way each operation takes; the ways are in the
//! modules below. Knows no image format.

mod aligned;
mod direct;
mod flushes;
mod open;
mod range_locks;
#[cfg(feature = "io_uring")]
mod ring;
mod sharing;
mod space;
mod sys;
mod transfer;

use std::any::Any;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, AtFlags, StatxFlags, fadvise, statx};
use rustix::io::retry_on_intr;

use crate::lock::{ByteLocks, ImageLock, LockError, probe};
use crate::pieces::{Piece, PieceMut, pieces_len, pieces_mut_len};
use crate::storage::{Growth, RunKind, Storage, StorageRun};
use direct::DirectIo;
use flushes::Flushes;
use space::Space;

#[cfg(feature = "io_uring")]
pub use aligned::AlignedBuf;
pub use open::{Access, Existing, FileKind, FileOptions, NewFileOptions, OpenError, RefusedKind};
#[cfg(all(feature = "io_uring", feature = "test-utils"))]
pub use ring::SharedBuf;
#[cfg(feature = "io_uring")]
pub use ring::{Direction, LentMemory, Memory, Ring, StableBuf, Transfer, Transferred};

/// How many zero bytes are written at a time where nothing cheaper exists.
const ZEROS_PER_WRITE: u64 = 256 * 1024;

/// The bytes of one regular file or block device.
///
/// All I/O is positional: a file offset that is shared with another owner of the descriptor does
/// not matter. The image lock ends when the storage is dropped.
#[derive(Debug)]
pub struct FileStorage {
    fd: OwnedFd,
    kind: FileKind,
    access: Access,
    identity: FileIdentity,
    was_created: bool,
    direct: Option<DirectIo>,
    space: Space,
    flushes: Flushes,
    locks: Mutex<ByteLocks>,
}

/// Which file it is, whatever its name; equal for two hard links and two nodes of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device number: of the file system that holds a file, or of the block device itself.
    pub device: u64,
    /// Inode number; 0, which no file has, for a block device.
    pub inode: u64,
}

/// The user whose rights this program has, as owners of files are numbered.
#[must_use]
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl FileStorage {
    /// Whether the file system can lock the file; takes no lock.
    ///
    /// # Errors
    /// [`LockError::Unsupported`] if it cannot.
    pub fn can_lock(&self) -> Result<(), LockError> {
        probe(&self.fd)
    }

    /// The file that a storage is; none if it is of another kind.
    #[must_use]
    pub fn of(storage: &dyn Storage) -> Option<&Self> {
        { storage as &dyn Any }.downcast_ref()
    }

    /// As [`FileStorage::of`], shared with the storage.
    #[must_use]
    pub fn shared(storage: &Arc<dyn Storage>) -> Option<Arc<Self>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::<dyn Storage>::clone(storage);
        any.downcast().ok()
    }

    /// Which file this is, for finding an image twice in one chain.
    #[must_use]
    pub const fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// When the file was made, as seconds and nanoseconds since 1970; none where the file system does not
    /// tell, or for a device.
    #[must_use]
    pub fn birth(&self) -> Option<(u64, u64)> {
        let found = statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
        let is_told =
            self.kind == FileKind::Regular && found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let birth = found.stx_btime;
        is_told.then(|| Some((u64::try_from(birth.tv_sec).ok()?, u64::from(birth.tv_nsec))))?
    }

    /// Regular file or block device.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    /// What the storage was opened for.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Whether the page cache is bypassed (`O_DIRECT`).
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether [`FileStorage::create`] made the file, rather than finding it: a caller that gives up
    /// half way may remove such a file and no other.
    #[must_use]
    pub const fn was_created(&self) -> bool {
        self.was_created
    }

    /// The descriptor, or an error when the storage may only be read.
    fn for_writing(&self) -> io::Result<BorrowedFd<'_>> {
        match self.access {
            Access::ReadWrite => Ok(self.fd.as_fd()),
            Access::ReadOnly => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the file is open for reading only",
            )),
        }
    }

    /// Makes bytes inside the length read as zeros.
    fn zero_inside(&self, range: Range<u64>) -> io::Result<()> {
        let inner = self.space.cheap_part(&range);
        if !self.cheaply(&inner, Space::zero)? {
            return self.write_zero_bytes(range);
        }
        self.write_zero_bytes(range.start..inner.start)?;
        self.write_zero_bytes(inner.end..range.end)
    }

    /// Runs one space operation on a range that may be empty; `false` if nothing was changed.
    fn cheaply(
        &self,
        range: &Range<u64>,
        operation: impl FnOnce(&Space, BorrowedFd<'_>, &Range<u64>) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let fd = self.for_writing()?;
        if range.is_empty() {
            return Ok(false);
        }
        let _held = self.direct.as_ref().map(|direct| direct.hold(range));
        operation(&self.space, fd, range)
    }

    fn write_zero_bytes(&self, range: Range<u64>) -> io::Result<()> {
        let zeros = vec![0; capped(range.end.saturating_sub(range.start), ZEROS_PER_WRITE)];
        let mut at = range.start;
        while at < range.end {
            let len = capped(range.end - at, ZEROS_PER_WRITE);
            self.write_at(&zeros[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn len(&self) -> io::Result<u64> {
        transfer::length(self.fd.as_fd(), self.kind)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        transfer::end_of(offset, buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        match &self.direct {
            Some(direct) => direct.read_at(self.fd.as_fd(), buf, offset),
            None => transfer::read_exact(self.fd.as_fd(), buf, offset),
        }
    }

    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], offset: u64) -> io::Result<()> {
        let len = usize::try_from(pieces_mut_len(pieces)).ok();
        let end = len.and_then(|len| transfer::end_of(offset, len));
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        match &self.direct {
            None => transfer::read_exact_vectored(self.fd.as_fd(), pieces, offset, 1),
            Some(direct) => direct.read_vectored_at(self.fd.as_fd(), pieces, offset),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let fd = self.for_writing()?;
        if buf.is_empty() {
            return Ok(());
        }
        transfer::end_of(offset, buf.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        match &self.direct {
            Some(direct) => direct.write_at(fd, buf, offset),
            None => transfer::write_all(fd, buf, offset),
        }
    }

    fn write_vectored_at(&self, pieces: &[Piece<'_>], offset: u64) -> io::Result<()> {
        let fd = self.for_writing()?;
        let len = usize::try_from(pieces_len(pieces)).ok();
        let end = len.and_then(|len| transfer::end_of(offset, len));
        end.ok_or(io::ErrorKind::FileTooLarge)?;
        match &self.direct {
            None => transfer::write_all_vectored(fd, pieces, offset),
            Some(direct) => direct.write_vectored_at(fd, pieces, offset),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let fd = self.for_writing()?;
        if self.kind == FileKind::BlockDevice {
            let capacity = self.len()?;
            return if len == capacity { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) };
        }
        if i64::try_from(len).is_err() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // What ends below both lengths goes on: it neither depends on the length nor changes it.
        let moved = len.min(self.len()?)..u64::MAX;
        let _held = self.direct.as_ref().map(|direct| direct.hold(&moved));
        // ext4 takes a truncation to 0, even of an empty file, for the start of a replacement and
        // writes out all of the file when it is closed.
        if len == 0 && self.len()? == 0 {
            return Ok(());
        }
        Ok(retry_on_intr(|| rustix::fs::ftruncate(fd, len))?)
    }

    fn flush(&self) -> io::Result<()> {
        self.flushes.run(|| Ok(retry_on_intr(|| rustix::fs::fdatasync(&self.fd))?))
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.for_writing()?;
        if range.is_empty() {
            return Ok(());
        }
        let mut at = range.start;
        while at < range.end {
            let run = self.run_at(at)?;
            if run.len == 0 {
                break;
            }
            let end = range.end.min(at.saturating_add(run.len));
            // A hole reads as zeros already, and zeroing one would take space for it.
            if run.kind == RunKind::Data {
                self.zero_inside(at..end)?;
            }
            at = end;
        }
        // Growing by a write cannot cut off what another thread writes further out at this
        // moment, as setting the length could.
        if self.len()? < range.end { self.write_at(&[0], range.end - 1) } else { Ok(()) }
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        self.for_writing()?;
        let inside = range.start..range.end.min(self.len()?);
        if inside.is_empty() {
            return Ok(true);
        }
        let inner = self.space.cheap_part(&inside);
        if !self.cheaply(&inner, Space::punch)? {
            return Ok(false);
        }
        self.write_zero_bytes(inside.start..inner.start)?;
        self.write_zero_bytes(inner.end..inside.end)?;
        Ok(true)
    }

    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        if self.kind == FileKind::Regular {
            return self.punch_hole(range);
        }
        self.for_writing()?;
        let inner = self.space.cheap_part(&(range.start..range.end.min(self.len()?)));
        Ok(inner.is_empty() || self.cheaply(&inner, Space::discard)?)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.space.run_at(self.fd.as_fd(), at, self.len()?)
    }

    fn allocated_len(&self) -> io::Result<u64> {
        match self.kind {
            FileKind::Regular => Ok(transfer::allocated(self.fd.as_fd())?),
            FileKind::BlockDevice => self.len(),
        }
    }

    fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        let (source, to) = (Self::of(source)?, self.for_writing().ok()?);
        if [source.kind, self.kind] != [FileKind::Regular; 2] {
            return None;
        }
        let neighbours = source.identity.device == self.identity.device
            || sharing::may_be_neighbours(source.fd.as_fd(), to);
        if neighbours { sharing::unit(to) } else { None }
    }

    fn share(&self, source: &dyn Storage, range: Range<u64>, at: u64) -> bool {
        let Some((source, to)) = Self::of(source).zip(self.for_writing().ok()) else {
            return false;
        };
        let Some(end) = at.checked_add(range.end.saturating_sub(range.start)) else { return false };
        let _held = self.direct.as_ref().map(|direct| direct.hold(&(at..end)));
        sharing::share(source.fd.as_fd(), range, to, at).is_ok()
    }

    fn growth(&self) -> Growth {
        match self.kind {
            FileKind::Regular => Growth::Zeros,
            FileKind::BlockDevice => Growth::Stale,
        }
    }

    fn forget_cached(&self, range: Range<u64>) -> io::Result<()> {
        if self.direct.is_some() {
            return Ok(());
        }
        // None is up to the end, and so is what the system cannot say.
        let most = i64::MAX.unsigned_abs();
        let len = NonZeroU64::new(range.end.min(most).saturating_sub(range.start));
        Ok(fadvise(&self.fd, range.start.min(most), len, Advice::DontNeed)?)
    }

    fn lock(&self, lock: ImageLock) -> Result<(), LockError> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.replace(&self.fd, lock)
    }
}

/// Gives the lock back even if the descriptor lives on elsewhere as a duplicate.
impl Drop for FileStorage {
    fn drop(&mut self) {
        // Nobody is left to tell; a lock that stays is one too many, never one too few.
        let _ = self.lock(ImageLock::NONE);
    }
}

fn capped(len: u64, cap: u64) -> usize {
    usize::try_from(len.min(cap)).expect("the caps are far below 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose file system can do nothing but read and write, holding `len` bytes of 7.
    fn plain(unit: u64, direct: bool, len: usize) -> FileStorage {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &vec![7; len]).unwrap();
        if direct {
            let flags = rustix::fs::fcntl_getfl(&file).unwrap();
            rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::DIRECT).unwrap();
        }
        let mut storage = FileStorage::from_fd(file).unwrap();
        storage.space = Space::without_abilities(unit);
        storage
    }

    #[test]
    fn zeros_are_written_by_hand_where_nothing_is_cheaper() {
        let len = 1_000_000;
        for (unit, direct) in [(1, false), (512, false), (1, true)] {
            let storage = plain(unit, direct, len);
            storage.write_zeroes(10..800_000).unwrap();
            storage.write_zeroes(999_999..1_000_050).unwrap();
            let mut bytes = vec![1; 1_000_050];
            storage.read_at(&mut bytes, 0).unwrap();
            let zeros = |range: Range<usize>| bytes[range].iter().all(|&byte| byte == 0);
            assert!(zeros(10..800_000) && zeros(999_999..1_000_050));
            assert_eq!(bytes.iter().filter(|&&byte| byte == 7).count(), 10 + 199_999);
        }
    }

    #[test]
    fn a_file_that_cannot_punch_says_so_and_is_unchanged() {
        let storage = plain(1, false, 100);
        assert!(!storage.punch_hole(10..50).unwrap());
        let mut bytes = [0; 100];
        storage.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 100]);
        let whole = StorageRun { len: 60, kind: RunKind::Data };
        assert_eq!(storage.run_at(40).unwrap(), whole, "all may be data");
    }
}
