//! Storage in memory: a growable vector of bytes behind a lock. For tests, fuzzing and small images.

use std::io;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use crate::lock::{ImageLock, LockError};
use crate::storage::{Growth, RunKind, Storage, StorageRun};

/// An image in memory; behaves as a regular file on a file system without holes.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    bytes: RwLock<Vec<u8>>,
}

impl MemoryStorage {
    /// A storage that holds `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn grown(&self, end: u64) -> io::Result<std::sync::RwLockWriteGuard<'_, Vec<u8>>> {
        let end = usize::try_from(end).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() < end {
            let more = end - bytes.len();
            bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
            bytes.resize(end, 0);
        }
        Ok(bytes)
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let range = usize_range(&(offset..offset.saturating_add(buf.len() as u64)));
        let from = range.and_then(|r| bytes.get(r)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = self.grown(end)?;
        let range = usize_range(&(offset..end)).ok_or(io::ErrorKind::FileTooLarge)?;
        bytes[range].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut bytes = self.grown(len)?;
        bytes.truncate(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        let mut bytes = self.grown(range.end)?;
        let range = usize_range(&range).ok_or(io::ErrorKind::FileTooLarge)?;
        bytes[range].fill(0);
        Ok(())
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let end = range.end.min(bytes.len() as u64);
        if let Some(range) = usize_range(&(range.start..end)).filter(|r| r.start < r.end) {
            bytes[range].fill(0);
        }
        Ok(true)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun { len: self.len()?.saturating_sub(at), kind: RunKind::Data })
    }

    fn growth(&self) -> Growth {
        Growth::Zeros
    }

    fn lock(&self, _lock: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}

fn usize_range(range: &Range<u64>) -> Option<Range<usize>> {
    Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}
