//! A file in memory that has holes, claims any length and is cheap to copy: what a fuzzer makes huge
//! images of, and what a crash can happen to.
//!
//! Knows bytes, no format.

mod content;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use qed_io::{Growth, ImageLock, LockError, RunKind, Storage, StorageRun};

pub(crate) use content::EMPTY;
pub use content::{SECTOR, Sector, SparseContent};

/// Bytes that a storage holds at most: a test that wants more has found something.
const MAX_STORED: u64 = 64 << 20;

/// A [`SparseContent`] as a storage.
///
/// Flushing does nothing and every lock is granted. It is full at 64 MiB.
#[derive(Debug)]
pub struct SparseStorage {
    content: RwLock<SparseContent>,
    growth: Growth,
}

impl SparseStorage {
    /// A regular file with this content.
    #[must_use]
    pub const fn new(content: SparseContent) -> Self {
        Self { content: RwLock::new(content), growth: Growth::Zeros }
    }

    /// A regular file of `len` bytes, all hole.
    #[must_use]
    pub const fn of_len(len: u64) -> Self {
        Self::new(SparseContent::hole(len))
    }

    /// The same bytes as a block device: its length is fixed, and holes are not known.
    #[must_use]
    pub fn into_device(self) -> Self {
        Self { growth: Growth::Stale, ..self }
    }

    /// A copy of what it holds now.
    #[must_use]
    pub fn content(&self) -> SparseContent {
        self.read().clone()
    }

    /// Another storage of the same kind and with the same content.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { content: RwLock::new(self.content()), growth: self.growth }
    }

    // A writer that panics leaves plain bytes behind, so a poisoned lock is as good as any.
    fn read(&self) -> RwLockReadGuard<'_, SparseContent> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, SparseContent> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a write that ends at `end`.
    fn grow(&self, content: &mut SparseContent, end: Option<u64>) -> io::Result<()> {
        let end = end.filter(|end| i64::try_from(*end).is_ok()).ok_or(ErrorKind::FileTooLarge)?;
        if content.len() < end {
            if self.growth == Growth::Stale {
                return Err(ErrorKind::StorageFull.into());
            }
            content.set_len(end);
        }
        Ok(())
    }
}

impl Storage for SparseStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read().len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.read();
        let end = offset.checked_add(buf.len() as u64);
        if !buf.is_empty() && end.is_none_or(|end| end > content.len()) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        content.read(buf, offset);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let content = &mut *self.write();
        self.grow(content, offset.checked_add(buf.len() as u64))?;
        if content.stored_with(buf.len() as u64) > MAX_STORED {
            return Err(ErrorKind::StorageFull.into());
        }
        content.write(buf, offset);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let content = &mut *self.write();
        if len < content.len() && self.growth == Growth::Zeros {
            content.set_len(len);
        }
        self.grow(content, Some(len))?;
        if content.len() == len { Ok(()) } else { Err(ErrorKind::Unsupported.into()) }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let content = &mut *self.write();
        self.grow(content, Some(range.end))?;
        content.zero(range);
        Ok(())
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        let content = &mut *self.write();
        content.zero(content.inside(&range));
        Ok(true)
    }

    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        let content = &mut *self.write();
        let inside = content.inside(&range);
        content.discard(&inside);
        Ok(true)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let content = self.read();
        if self.growth == Growth::Stale {
            return Ok(StorageRun { len: content.len().saturating_sub(at), kind: RunKind::Data });
        }
        let (kind, end) = content.run_at(at);
        Ok(StorageRun { len: end.saturating_sub(at), kind })
    }

    fn growth(&self) -> Growth {
        self.growth
    }

    fn lock(&self, _lock: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use qed_io::MemoryStorage;

    use super::*;
    use crate::random::Random;
    use crate::size::usize_of;

    /// Bytes that are stored together.
    const PAGE: u64 = 4096;
    /// Lengths and offsets of the comparison lie below.
    const MOST: u64 = 6 * PAGE;

    #[test]
    fn does_what_memory_does() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (sparse, memory) = (SparseStorage::of_len(0), MemoryStorage::default());
            for _ in 0..40 {
                let mut range = [random.below(MOST), random.below(MOST)];
                range.sort_unstable();
                let [start, end] = range;
                let data = vec![u8::try_from(random.below(3)).unwrap(); usize_of(end - start)];
                let act = |storage: &dyn Storage| match random.clone().below(4) {
                    0 => storage.write_at(&data, start),
                    1 => storage.write_zeroes(start..end),
                    2 => storage.punch_hole(start..end).map(drop),
                    _ => storage.set_len(end),
                };
                act(&sparse).unwrap();
                act(&memory).unwrap();
                random.next_u64();
                let len = memory.len().unwrap();
                assert_eq!(sparse.len().unwrap(), len);
                assert_eq!(sparse.content().bytes(0..len), memory.to_vec(), "seed {seed}");
                assert_runs_are_right(&sparse);
            }
        }
    }

    #[track_caller]
    fn assert_runs_are_right(sparse: &SparseStorage) {
        let (len, mut at) = (sparse.len().unwrap(), 0);
        while at < len {
            let run = sparse.run_at(at).unwrap();
            assert!(run.len > 0 && run.len <= len - at);
            let bytes = sparse.content().bytes(at..at + run.len);
            assert!(run.kind == RunKind::Data || bytes.iter().all(|byte| *byte == 0));
            at += run.len;
        }
        assert_eq!(sparse.run_at(len).unwrap().len, 0);
    }

    #[test]
    fn words_are_those_of_the_range_that_are_not_zero() {
        let storage = SparseStorage::of_len(1 << 40);
        storage.write_at(&7_u64.to_le_bytes(), 8 * PAGE - 8).unwrap();
        storage.write_at(&9_u64.to_le_bytes(), 9 * PAGE).unwrap();
        let words = |range| storage.content().words(range).collect::<Vec<_>>();
        assert_eq!(words(0..1 << 40), [(8 * 512 - 1, 7), (9 * 512, 9)]);
        assert_eq!(words(8 * PAGE..9 * PAGE), []);
        assert_eq!(words(8 * PAGE..9 * PAGE + 8), [(512, 9)]);
    }

    #[test]
    fn a_device_keeps_its_length() {
        let device = SparseStorage::of_len(PAGE).into_device();
        assert!(device.write_at(&[1], PAGE).is_err());
        assert!(device.set_len(0).is_err() && device.set_len(PAGE).is_ok());
    }
}
