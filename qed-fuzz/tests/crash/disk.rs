//! A disk that a crash can happen to: sectors and a length, cheap to copy.
//!
//! Knows nothing of images.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use qed_io::{Growth, ImageLock, LockError, Operation, RunKind, Storage, StorageRun};

pub(crate) const SECTOR: u64 = 512;

pub(crate) type Sector = [u8; SECTOR as usize];

/// What a file holds; sectors that are not there are zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) sectors: BTreeMap<u64, Sector>,
    pub(crate) len: u64,
}

impl Content {
    pub(crate) fn sector(&self, number: u64) -> Sector {
        self.sectors.get(&number).copied().unwrap_or([0; SECTOR as usize])
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
            let within = (at % SECTOR) as usize;
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
            let within = (at % SECTOR) as usize;
            let part = rest.len().min(SECTOR as usize - within);
            let sector = self.sectors.entry(at / SECTOR).or_insert([0; SECTOR as usize]);
            sector[within..within + part].copy_from_slice(&rest[..part]);
            rest = &rest[part..];
            at += part as u64;
        }
    }

    fn zero(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.write(&vec![0; (range.end - range.start) as usize], range.start);
        }
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.sectors.split_off(&len.div_ceil(SECTOR));
        if let Some(last) = self.sectors.get_mut(&(len / SECTOR)) {
            last[(len % SECTOR) as usize..].fill(0);
        }
        self.len = len;
    }
}

/// Cuts a buffer that belongs at `offset` where sectors end.
fn pieces(buf: &mut [u8], offset: u64) -> impl Iterator<Item = &mut [u8]> {
    let first = ((SECTOR - offset % SECTOR) as usize).min(buf.len());
    let (first, rest) = buf.split_at_mut(first);
    std::iter::once(first).chain(rest.chunks_mut(SECTOR as usize))
}

fn sectors(range: &Range<u64>) -> Vec<u64> {
    (range.start / SECTOR..range.end.div_ceil(SECTOR)).collect()
}

/// A [`Content`] as a storage.
#[derive(Debug, Default)]
pub(crate) struct Disk(Mutex<Content>);

impl Disk {
    pub(crate) fn new(content: Content) -> Self {
        Self(Mutex::new(content))
    }

    pub(crate) fn content(&self) -> Content {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }
}

impl Storage for Disk {
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
        self.locked().set_len(len);
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
        Growth::Zeros
    }

    fn lock(&self, _lock: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}
