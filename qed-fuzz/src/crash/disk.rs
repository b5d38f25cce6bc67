//! A disk that a crash can happen to: pages and a length, cheap to copy.
//!
//! Knows nothing of images.

use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qed_io::{Growth, ImageLock, LockError, Operation, RunKind, Storage, StorageRun};

use crate::size::usize_of;

/// Bytes of a sector: what a crash leaves old or new, each on its own.
pub const SECTOR: u64 = 512;

/// The bytes of one sector.
pub type Sector = [u8; SECTOR_LEN];

const SECTOR_LEN: usize = 512;
pub(crate) const EMPTY: Sector = [0; SECTOR_LEN];
const PAGE_LEN: usize = 4096;
const PAGE: u64 = PAGE_LEN as u64;
type Page = [u8; PAGE_LEN];
static ZEROS: Page = [0; PAGE_LEN];

/// What a file holds. Copies share the pages that neither has changed since.
#[derive(Debug, Clone, Default)]
pub struct DiskContent {
    /// Pages that are not there are zeros.
    pages: Vec<Option<Arc<Page>>>,
    /// Bytes. Nothing is kept past it.
    len: u64,
}

impl DiskContent {
    /// These bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        for (page, bytes) in (0..).zip(bytes.chunks(PAGE_LEN)) {
            if bytes.iter().any(|byte| *byte != 0) {
                content.write(bytes, page * PAGE);
            }
        }
        content.len = bytes.len() as u64;
        content
    }

    /// `len` bytes, of which the first `used` are `byte`: what a used block device holds.
    #[must_use]
    pub fn stale(used: u64, len: u64, byte: u8) -> Self {
        let pages = used.div_ceil(PAGE);
        let mut content = Self { pages: vec![None; usize_of(pages)], len };
        content.pages.fill(Some(Arc::new([byte; PAGE_LEN])));
        content
    }

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

    /// Whether every byte is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.pages().all(|page| *page == ZEROS)
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize_of(self.len)];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Changes the byte at `offset`, as a disk that rots does.
    pub fn rot(&mut self, offset: u64) {
        self.page_mut(offset)[within(offset)] ^= 0x55;
    }

    /// Fills `buf` from `offset`; zeros past the end.
    pub fn read(&self, buf: &mut [u8], offset: u64) {
        let mut at = offset;
        for part in pieces(buf, offset) {
            let from = within(at);
            match self.pages.get(usize_of(at / PAGE)) {
                Some(Some(page)) => part.copy_from_slice(&page[from..from + part.len()]),
                _ => part.fill(0),
            }
            at += part.len() as u64;
        }
    }

    /// Writes `bytes` at `offset`, where the file may grow.
    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        self.len = self.len.max(offset + bytes.len() as u64);
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let to = within(at);
            let part = rest.len().min(PAGE_LEN - to);
            self.page_mut(at)[to..to + part].copy_from_slice(&rest[..part]);
            rest = &rest[part..];
            at += part as u64;
        }
    }

    pub(crate) fn sector(&self, number: u64) -> Sector {
        let mut sector = EMPTY;
        self.read(&mut sector, number * SECTOR);
        sector
    }

    /// Replaces a sector; the length stays, and past it nothing changes.
    pub(crate) fn set_sector(&mut self, number: u64, sector: &Sector) {
        let len = self.len;
        let kept = len.saturating_sub(number * SECTOR).min(SECTOR);
        self.write(&sector[..usize_of(kept)], number * SECTOR);
        self.len = len;
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { offset, bytes } => self.write(bytes, *offset),
            Operation::WriteZeroes(range) => self.zero(range.clone()),
            Operation::PunchHole(range) => self.zero(range.start..range.end.min(self.len)),
            Operation::SetLen(len) => self.set_len(*len),
            Operation::Flush => {}
        }
    }

    /// The sectors that an operation may change.
    pub(crate) fn touched(&self, operation: &Operation) -> Range<u64> {
        match operation {
            Operation::Write { offset, bytes } => sectors(&(*offset..offset + bytes.len() as u64)),
            Operation::WriteZeroes(range) | Operation::PunchHole(range) => sectors(range),
            Operation::SetLen(len) => {
                let held = self.pages.len() as u64 * PAGE / SECTOR;
                *len / SECTOR..held.max(len / SECTOR)
            }
            Operation::Flush => 0..0,
        }
    }

    /// The sectors that may be other than zeros.
    pub(crate) fn held_sectors(&self) -> impl Iterator<Item = u64> {
        let held = self.pages.iter().enumerate().filter(|(_, page)| page.is_some());
        held.flat_map(|(number, _)| {
            let first = number as u64 * (PAGE / SECTOR);
            first..first + PAGE / SECTOR
        })
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.pages.truncate(usize_of(len.div_ceil(PAGE)));
        let cut = usize_of(len / PAGE);
        if let Some(Some(page)) = self.pages.get_mut(cut) {
            Arc::make_mut(page)[within(len)..].fill(0);
        }
        self.len = len;
    }

    fn zero(&mut self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let end = (at / PAGE + 1).saturating_mul(PAGE).min(range.end);
            if let Some(Some(page)) = self.pages.get_mut(usize_of(at / PAGE)) {
                Arc::make_mut(page)[within(at)..][..usize_of(end - at)].fill(0);
            }
            at = end;
        }
        if !range.is_empty() {
            self.len = self.len.max(range.end);
        }
    }

    fn page_mut(&mut self, offset: u64) -> &mut Page {
        let number = usize_of(offset / PAGE);
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        Arc::make_mut(self.pages[number].get_or_insert_with(|| Arc::new(ZEROS)))
    }

    /// The pages up to the last that is there.
    fn pages(&self) -> impl Iterator<Item = &Page> {
        self.pages.iter().map(|page| page.as_deref().unwrap_or(&ZEROS))
    }
}

impl PartialEq for DiskContent {
    fn eq(&self, other: &Self) -> bool {
        let page = |content: &Self, number: usize| content.pages.get(number)?.clone();
        let same = |number| match (page(self, number), page(other, number)) {
            (None, None) => true,
            (Some(page), None) | (None, Some(page)) => *page == ZEROS,
            (Some(a), Some(b)) => Arc::ptr_eq(&a, &b) || a == b,
        };
        self.len == other.len && (0..self.pages.len().max(other.pages.len())).all(same)
    }
}

impl Eq for DiskContent {}

impl Hash for DiskContent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        for (number, page) in self.pages().enumerate().filter(|(_, page)| **page != ZEROS) {
            number.hash(state);
            page.hash(state);
        }
    }
}

/// Cuts a buffer that belongs at `offset` where pages end.
fn pieces(buf: &mut [u8], offset: u64) -> impl Iterator<Item = &mut [u8]> {
    let first = (PAGE_LEN - within(offset)).min(buf.len());
    let (first, rest) = buf.split_at_mut(first);
    std::iter::once(first).chain(rest.chunks_mut(PAGE_LEN))
}

/// The byte of its page that lies at `offset`.
fn within(offset: u64) -> usize {
    usize_of(offset % PAGE)
}

fn sectors(range: &Range<u64>) -> Range<u64> {
    range.start / SECTOR..range.end.div_ceil(SECTOR)
}

/// A [`DiskContent`] as a storage.
#[derive(Debug)]
pub struct CrashDisk {
    content: Mutex<DiskContent>,
    growth: Growth,
}

impl CrashDisk {
    /// A regular file with this content.
    #[must_use]
    pub const fn new(content: DiskContent) -> Self {
        Self { content: Mutex::new(content), growth: Growth::Zeros }
    }

    /// A block device with this content, whose length is its capacity.
    #[must_use]
    pub const fn device(content: DiskContent) -> Self {
        Self { content: Mutex::new(content), growth: Growth::Stale }
    }

    /// A copy of what it holds.
    #[must_use]
    pub fn content(&self) -> DiskContent {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, DiskContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.locked().len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.locked();
        if offset + buf.len() as u64 > content.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(buf, offset);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.locked().write(buf, offset);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.locked();
        if self.growth == Growth::Stale && content.len != len {
            return Err(io::ErrorKind::Unsupported.into());
        }
        content.set_len(len);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.locked().zero(range);
        Ok(())
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        let mut content = self.locked();
        let end = range.end.min(content.len);
        content.zero(range.start..end);
        Ok(true)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let content = self.locked();
        let left = content.len.saturating_sub(at);
        if self.growth == Growth::Stale {
            return Ok(StorageRun { len: left, kind: RunKind::Data });
        }
        let is_hole = |number: u64| !matches!(content.pages.get(usize_of(number)), Some(Some(_)));
        let last = content.pages.len() as u64;
        let hole = is_hole(at / PAGE);
        let end = (at / PAGE..last).find(|number| is_hole(*number) != hole);
        let end = match end {
            Some(number) => number * PAGE,
            None if hole => content.len,
            None => last * PAGE,
        };
        let kind = if hole { RunKind::Hole } else { RunKind::Data };
        Ok(StorageRun { len: end.saturating_sub(at).min(left), kind })
    }

    fn growth(&self) -> Growth {
        self.growth
    }

    fn lock(&self, _lock: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}
