//! Storage in memory: bytes behind a lock, as a regular file or as a block device behaves.
//!
//! For tests, fuzzing and small images; knows no operating system.

use std::io;
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::lock::{ImageLock, LockError};
use crate::storage::{Growth, RunKind, Storage, StorageRun};

/// An image in memory.
///
/// Flushing does nothing, every lock is granted and no run is known to be a hole.
#[derive(Debug)]
pub struct MemoryStorage {
    bytes: RwLock<Vec<u8>>,
    growth: Growth,
}

impl MemoryStorage {
    /// What discarded bytes read as here, to stand for anything.
    pub const DISCARDED: u8 = 0xa5;

    /// A storage that holds `bytes` and grows as a regular file does.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes), growth: Growth::Zeros }
    }

    /// A storage that holds `bytes` and behaves as a block device of that capacity: its length is
    /// fixed and what was never written is stale.
    #[must_use]
    pub const fn device(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes), growth: Growth::Stale }
    }

    /// Makes a device longer, as its owner may at any time; the new bytes are `byte`.
    ///
    /// # Panics
    /// If it has more bytes than that.
    pub fn grow_device(&self, len: usize, byte: u8) {
        let mut bytes = self.write();
        assert!(bytes.len() <= len, "a device only grows here");
        bytes.resize(len, byte);
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.read().clone()
    }

    // A writer that panics leaves plain bytes behind, so a poisoned lock is as good as any.
    fn read(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the part of a range that lies inside the length.
    fn fill_inside(&self, range: &Range<u64>, byte: u8) {
        let mut bytes = self.write();
        let inside = range.start..range.end.min(bytes.len() as u64);
        if let Some(inside) = usize_range(&inside).filter(|r| !r.is_empty()) {
            bytes[inside].fill(byte);
        }
    }

    /// Runs `change` on the bytes of a range that is not empty, grown to hold it.
    fn change(&self, range: Range<u64>, change: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let range = usize_range(&range).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = self.write();
        if bytes.len() < range.end {
            if self.growth == Growth::Stale {
                return Err(io::ErrorKind::StorageFull.into());
            }
            resize(&mut bytes, range.end)?;
        }
        change(&mut bytes[range]);
        Ok(())
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let bytes = self.read();
        let range = usize_range(&(offset..offset.saturating_add(buf.len() as u64)));
        let from = range.and_then(|r| bytes.get(r)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.change(offset..end, |bytes| bytes.copy_from_slice(buf))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = self.write();
        if self.growth == Growth::Stale && bytes.len() != len {
            return Err(io::ErrorKind::Unsupported.into());
        }
        resize(&mut bytes, len)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.change(range, |bytes| bytes.fill(0))
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        self.fill_inside(&range, 0);
        Ok(true)
    }

    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        self.fill_inside(&range, Self::DISCARDED);
        Ok(true)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        Ok(StorageRun { len: self.len()?.saturating_sub(at), kind: RunKind::Data })
    }

    fn growth(&self) -> Growth {
        self.growth
    }

    fn lock(&self, _lock: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}

fn resize(bytes: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(len, 0);
    Ok(())
}

fn usize_range(range: &Range<u64>) -> Option<Range<usize>> {
    Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_keeps_its_length() {
        let device = MemoryStorage::device(vec![7; 1024]);
        let kind = |result: io::Result<()>| result.map_err(|error| error.kind());
        assert_eq!(kind(device.set_len(1024)), Ok(()));
        assert_eq!(kind(device.set_len(1023)), Err(io::ErrorKind::Unsupported));
        assert_eq!(kind(device.write_at(&[1; 8], 1020)), Err(io::ErrorKind::StorageFull));
        assert_eq!(kind(device.write_zeroes(1000..1025)), Err(io::ErrorKind::StorageFull));
        assert_eq!(device.growth(), Growth::Stale);
        assert_eq!(device.to_vec(), vec![7; 1024]);
        device.grow_device(2048, 9);
        assert_eq!(device.len().unwrap(), 2048);
        device.write_at(&[1; 8], 1020).unwrap();
        assert_eq!(device.to_vec()[1019..1029], [7, 1, 1, 1, 1, 1, 1, 1, 1, 9]);
    }

    #[test]
    fn discarded_bytes_are_neither_what_they_were_nor_zeros() {
        let memory = MemoryStorage::new(vec![7; 4]);
        assert!(memory.discard(1..3).unwrap());
        assert!(memory.discard(3..9).unwrap());
        assert!(memory.discard(4..9).unwrap());
        assert_eq!(memory.to_vec(), [7, 0xa5, 0xa5, 0xa5]);
    }

    #[test]
    fn empty_transfers_do_nothing_anywhere() {
        let memory = MemoryStorage::new(vec![7; 4]);
        memory.read_at(&mut [], u64::MAX).unwrap();
        memory.write_at(&[], 9).unwrap();
        memory.write_zeroes(9..9).unwrap();
        assert!(memory.punch_hole(2..2).unwrap());
        assert_eq!(memory.to_vec(), [7; 4]);
    }

    #[test]
    fn what_does_not_fit_in_memory_is_an_error() {
        let memory = MemoryStorage::default();
        for result in [
            memory.set_len(u64::MAX),
            memory.write_at(&[1], u64::MAX),
            memory.write_at(&[1], u64::MAX - 1),
            memory.write_zeroes(0..u64::MAX),
        ] {
            let kind = result.unwrap_err().kind();
            assert!(matches!(kind, io::ErrorKind::OutOfMemory | io::ErrorKind::FileTooLarge));
        }
        assert!(memory.is_empty().unwrap());
    }
}
