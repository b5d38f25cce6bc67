//! A disk that a crash can happen to: sectors and a length, cheap to copy.
//!
//! Knows nothing of images.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qed_io::{Growth, ImageLock, LockError, Operation, RunKind, Storage, StorageRun};

/// Bytes of a sector: what a crash leaves old or new, each on its own.
pub const SECTOR: u64 = 512;

/// The bytes of one sector.
pub type Sector = [u8; SECTOR_LEN];

const SECTOR_LEN: usize = 512;
const EMPTY: Sector = [0; SECTOR_LEN];

/// What a file holds; sectors that are not there are zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DiskContent {
    pub(crate) sectors: BTreeMap<u64, Sector>,
    /// Bytes.
    pub(crate) len: u64,
}

impl DiskContent {
    /// `len` bytes, of which the first `used` are `byte`: what a used block device holds.
    #[must_use]
    pub fn stale(used: u64, len: u64, byte: u8) -> Self {
        let sectors = (0..used.div_ceil(SECTOR)).map(|number| (number, [byte; SECTOR_LEN]));
        Self { sectors: sectors.collect(), len }
    }

    /// Whether every byte is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.sectors.values().all(|sector| *sector == EMPTY)
    }

    /// Changes the byte at `offset`, as a disk that rots does.
    pub fn rot(&mut self, offset: u64) {
        let sector = self.sectors.entry(offset / SECTOR).or_insert(EMPTY);
        sector[within(offset)] ^= 0x55;
    }

    pub(crate) fn sector(&self, number: u64) -> Sector {
        self.sectors.get(&number).copied().unwrap_or(EMPTY)
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
    pub(crate) fn touched(&self, operation: &Operation) -> Vec<u64> {
        match operation {
            Operation::Write { offset, bytes } => sectors(&(*offset..offset + bytes.len() as u64)),
            Operation::WriteZeroes(range) | Operation::PunchHole(range) => sectors(range),
            Operation::SetLen(len) => {
                let cut = *len / SECTOR..;
                self.sectors.range(cut).map(|(number, _)| *number).collect()
            }
            Operation::Flush => Vec::new(),
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) {
        let mut at = offset;
        for part in pieces(buf, offset) {
            let sector = self.sectors.get(&(at / SECTOR));
            let within = within(at);
            match sector {
                Some(sector) => part.copy_from_slice(&sector[within..within + part.len()]),
                None => part.fill(0),
            }
            at += part.len() as u64;
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        self.len = self.len.max(offset + bytes.len() as u64);
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let within = within(at);
            let part = rest.len().min(SECTOR_LEN - within);
            let sector = self.sectors.entry(at / SECTOR).or_insert(EMPTY);
            sector[within..within + part].copy_from_slice(&rest[..part]);
            rest = &rest[part..];
            at += part as u64;
        }
    }

    fn zero(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.write(&vec![0; to_len(range.end - range.start)], range.start);
        }
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.sectors.split_off(&len.div_ceil(SECTOR));
        if let Some(last) = self.sectors.get_mut(&(len / SECTOR)) {
            last[within(len)..].fill(0);
        }
        self.len = len;
    }
}

/// Cuts a buffer that belongs at `offset` where sectors end.
fn pieces(buf: &mut [u8], offset: u64) -> impl Iterator<Item = &mut [u8]> {
    let first = (SECTOR_LEN - within(offset)).min(buf.len());
    let (first, rest) = buf.split_at_mut(first);
    std::iter::once(first).chain(rest.chunks_mut(SECTOR_LEN))
}

/// The byte of its sector that lies at `offset`.
fn within(offset: u64) -> usize {
    to_len(offset % SECTOR)
}

fn to_len(len: u64) -> usize {
    usize::try_from(len).expect("a test disk fits in memory")
}

fn sectors(range: &Range<u64>) -> Vec<u64> {
    (range.start / SECTOR..range.end.div_ceil(SECTOR)).collect()
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
        Ok(StorageRun { len: self.locked().len.saturating_sub(at), kind: RunKind::Data })
    }

    fn growth(&self) -> Growth {
        self.growth
    }

    fn lock(&self, _lock: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}
