//! A file in memory that has holes and claims any length: what a fuzzer can make huge images of.
//!
//! Knows bytes, no format.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use qed_io::{Growth, ImageLock, LockError, RunKind, Storage, StorageRun};

use crate::size::usize_of;

/// Bytes that are stored together; what was never written is a hole.
const BLOCK_LEN: usize = 4096;
const BLOCK: u64 = BLOCK_LEN as u64;
/// Blocks that a storage holds at most: a test that wants more has found something.
const MAX_BLOCKS: usize = (64 << 20) / BLOCK_LEN;

/// A storage that keeps only the blocks that were written.
///
/// Flushing does nothing and every lock is granted. It is full at 64 MiB.
#[derive(Debug)]
pub struct SparseStorage {
    content: RwLock<SparseContent>,
    growth: Growth,
}

/// What a [`SparseStorage`] holds. Two are equal if they read alike, wherever their holes are.
#[derive(Debug, Clone, Default)]
pub struct SparseContent {
    len: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_LEN]>>,
}

impl SparseStorage {
    /// A regular file of `len` bytes, all hole.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self::with_content(SparseContent { len, blocks: BTreeMap::new() })
    }

    /// A regular file with this content.
    #[must_use]
    pub fn with_content(content: SparseContent) -> Self {
        Self { content: RwLock::new(content), growth: Growth::Zeros }
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
        if content.len < end {
            if self.growth == Growth::Stale {
                return Err(ErrorKind::StorageFull.into());
            }
            content.len = end;
        }
        Ok(())
    }
}

impl SparseContent {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of a range; zeros in holes and past the end.
    #[must_use]
    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; usize_of(range.end - range.start)];
        self.fill(&mut bytes, range.start);
        bytes
    }

    /// Every 8 bytes of a range that are not all zero: their number in the range, and their value
    /// as a little-endian number. The range starts at a multiple of 8.
    pub fn words(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let words = self.blocks.range(blocks).flat_map(|(number, block)| {
            let at = (number * BLOCK..).step_by(8);
            let value = |word: &[u8]| u64::from_le_bytes(word.try_into().expect("eight bytes"));
            at.zip(block.chunks_exact(8).map(value))
        });
        let start = range.start;
        words
            .filter(move |(at, value)| range.contains(at) && *value != 0)
            .map(move |(at, value)| ((at - start) / 8, value))
    }

    /// The parts that are not holes: where each lies, and its bytes.
    pub fn stored(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.blocks.iter().map(|(number, block)| {
            let at = number * BLOCK;
            (at, &block[..usize_of(self.len.saturating_sub(at).min(BLOCK))])
        })
    }

    fn fill(&self, buf: &mut [u8], offset: u64) {
        buf.fill(0);
        for (number, within, part) in pieces(offset, buf.len()) {
            if let Some(block) = self.blocks.get(&number) {
                let len = part.len();
                buf[part].copy_from_slice(&block[within..within + len]);
            }
        }
    }

    fn put(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        for (number, within, part) in pieces(offset, buf.len()) {
            if self.blocks.len() >= MAX_BLOCKS && !self.blocks.contains_key(&number) {
                return Err(ErrorKind::StorageFull.into());
            }
            let block = self.blocks.entry(number).or_insert_with(|| Box::new([0; BLOCK_LEN]));
            let len = part.len();
            block[within..within + len].copy_from_slice(&buf[part]);
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) {
        let whole = range.start.div_ceil(BLOCK)..range.end / BLOCK;
        let mut edge = |range: Range<u64>| {
            for (number, within, part) in pieces(range.start, usize_of(range.end - range.start)) {
                if let Some(block) = self.blocks.get_mut(&number) {
                    block[within..within + part.len()].fill(0);
                }
            }
        };
        if whole.is_empty() {
            return edge(range);
        }
        edge(range.start..whole.start * BLOCK);
        edge(whole.end * BLOCK..range.end);
        let after = self.blocks.split_off(&whole.start);
        self.blocks.extend(after.into_iter().filter(|(number, _)| *number >= whole.end));
    }
}

impl PartialEq for SparseContent {
    fn eq(&self, other: &Self) -> bool {
        let stored = |content: &Self| {
            let blocks = content.blocks.iter().filter(|(_, block)| ***block != [0; BLOCK_LEN]);
            blocks.map(|(number, block)| (*number, block.clone())).collect::<Vec<_>>()
        };
        self.len == other.len && stored(self) == stored(other)
    }
}

impl Eq for SparseContent {}

impl Storage for SparseStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read().len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.read();
        let end = offset.checked_add(buf.len() as u64);
        if !buf.is_empty() && end.is_none_or(|end| end > content.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        content.fill(buf, offset);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let content = &mut *self.write();
        self.grow(content, offset.checked_add(buf.len() as u64))?;
        content.put(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let content = &mut *self.write();
        if len < content.len && self.growth == Growth::Zeros {
            content.zero(len..content.len);
            content.len = len;
        }
        self.grow(content, Some(len))?;
        if content.len == len { Ok(()) } else { Err(ErrorKind::Unsupported.into()) }
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
        content.zero(range.start.min(content.len)..range.end.min(content.len));
        Ok(true)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let content = self.read();
        if self.growth == Growth::Stale {
            return Ok(StorageRun { len: content.len.saturating_sub(at), kind: RunKind::Data });
        }
        let first = at / BLOCK;
        let mut next = content.blocks.range(first..).map(|(number, _)| *number).peekable();
        let (kind, end) = match next.peek() {
            Some(number) if *number == first => {
                let run = (first..).zip(next).take_while(|(here, next)| here == next);
                (RunKind::Data, (first + run.count() as u64).saturating_mul(BLOCK))
            }
            Some(number) => (RunKind::Hole, number * BLOCK),
            None => (RunKind::Hole, content.len),
        };
        Ok(StorageRun { len: end.min(content.len).saturating_sub(at), kind })
    }

    fn growth(&self) -> Growth {
        self.growth
    }

    fn lock(&self, _lock: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}

/// A range of `len` bytes from `offset` block by block: the block, the byte in it, and the part of
/// the range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = usize_of(at % BLOCK);
        let start = done;
        done = len.min(start + BLOCK_LEN - within);
        Some((at / BLOCK, within, start..done))
    })
}

#[cfg(test)]
mod tests {
    use qed_io::MemoryStorage;

    use super::*;
    use crate::random::Random;

    /// Lengths and offsets of the comparison lie below.
    const MOST: u64 = 6 * BLOCK;

    #[test]
    fn does_what_memory_does() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (sparse, memory) = (SparseStorage::new(0), MemoryStorage::default());
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
        let storage = SparseStorage::new(1 << 40);
        storage.write_at(&7_u64.to_le_bytes(), 8 * BLOCK - 8).unwrap();
        storage.write_at(&9_u64.to_le_bytes(), 9 * BLOCK).unwrap();
        let words = |range| storage.content().words(range).collect::<Vec<_>>();
        assert_eq!(words(0..1 << 40), [(8 * 512 - 1, 7), (9 * 512, 9)]);
        assert_eq!(words(8 * BLOCK..9 * BLOCK), []);
        assert_eq!(words(8 * BLOCK..9 * BLOCK + 8), [(512, 9)]);
    }

    #[test]
    fn a_device_keeps_its_length() {
        let device = SparseStorage::new(BLOCK).into_device();
        assert!(device.write_at(&[1], BLOCK).is_err());
        assert!(device.set_len(0).is_err() && device.set_len(BLOCK).is_ok());
    }
}
