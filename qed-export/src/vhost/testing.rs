//! What the tests of this server share: a disk that tells what was asked of it, and a guest that writes
//! what it likes into its ring.

use std::fs::File;
use std::sync::Mutex;
use std::time::Instant;

use super::memory::{Memory, RegionInfo};
use super::ring::RingAddress;
use super::wire::descriptor::{INDIRECT, NEXT, WRITE};
use crate::device::{
    Allocation, BlockDevice, BlockSizes, DeviceError, Durability, Extent, Space, Zeroing,
    check_range,
};

/// A file in memory, all zeros.
pub(super) fn memory_file(len: u64) -> File {
    super::memory::memory_file(len).unwrap()
}

/// What a disk was asked for, besides reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Write(u64, usize),
    Flush,
    Trim(u64, u64),
    Zero(u64, u64, Space),
}

/// A disk in memory.
#[derive(Debug)]
pub(super) struct TestDisk {
    bytes: Mutex<Vec<u8>>,
    size: u64,
    is_read_only: bool,
    fails: bool,
    asked: Mutex<Vec<Asked>>,
}

impl TestDisk {
    pub(super) fn new(len: usize) -> Self {
        let counted = (0..len).map(|at| u8::try_from((at / 512 + at) % 251).unwrap()).collect();
        let (bytes, size) = (Mutex::new(counted), len as u64);
        Self { bytes, size, is_read_only: false, fails: false, asked: Mutex::default() }
    }

    /// One without bytes, which only notes what it is asked for.
    pub(super) fn claiming(size: u64) -> Self {
        Self { size, ..Self::new(0) }
    }

    pub(super) fn read_only(len: usize) -> Self {
        Self { is_read_only: true, ..Self::new(len) }
    }

    pub(super) fn failing(len: usize) -> Self {
        Self { fails: true, ..Self::new(len) }
    }

    pub(super) fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        self.bytes.lock().unwrap()[at..at + len].to_vec()
    }

    /// What was asked since this was last called.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn change(&self, asked: Asked, at: u64, len: u64, act: impl Fn(&mut [u8])) -> Changed {
        check_range(self.size(), at, len)?;
        assert!(!self.is_read_only, "{asked:?} of a disk that says that it is read-only");
        self.asked.lock().unwrap().push(asked);
        if self.fails {
            return Err(DeviceError::Failed("as asked".into()));
        }
        let at = usize::try_from(at).unwrap();
        if let Some(bytes) =
            self.bytes.lock().unwrap().get_mut(at..at + usize::try_from(len).unwrap())
        {
            act(bytes);
        }
        Ok(())
    }
}

type Changed = Result<(), DeviceError>;

impl BlockDevice for TestDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn block_sizes(&self) -> BlockSizes {
        BlockSizes { minimum: 1, preferred: 4096 }
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Changed {
        check_range(self.size(), at, buf.len() as u64)?;
        if self.fails {
            return Err(DeviceError::Failed("as asked".into()));
        }
        buf.copy_from_slice(&self.bytes(usize::try_from(at).unwrap(), buf.len()));
        Ok(())
    }

    fn write_at(&self, buf: &[u8], at: u64, _durability: Durability) -> Changed {
        let asked = Asked::Write(at, buf.len());
        self.change(asked, at, buf.len() as u64, |bytes| bytes.copy_from_slice(buf))
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Changed {
        self.change(Asked::Zero(at, len, how.space), at, len, |bytes| bytes.fill(0))
    }

    fn trim(&self, at: u64, len: u64, _durability: Durability) -> Changed {
        self.change(Asked::Trim(at, len), at, len, |bytes| bytes.fill(0))
    }

    fn flush(&self) -> Changed {
        if !self.is_read_only {
            self.change(Asked::Flush, 0, 0, |_| {})?;
        }
        Ok(())
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        check_range(self.size(), at, 1)?;
        let len = max_len.min(self.size() - at);
        Ok(Extent { len, allocation: Allocation::Data, depth: 1 })
    }

    fn maintain(&self, _now: Instant) -> Result<Option<Instant>, DeviceError> {
        Ok(None)
    }

    fn close(&self) -> Changed {
        Ok(())
    }
}

/// A descriptor as a guest writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desc {
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// One that the device reads, and the last of its chain.
pub(super) fn out(at: u64, len: u32) -> Desc {
    Desc { at, len, flags: 0, next: 0 }
}

/// One that the device writes.
pub(super) fn into(at: u64, len: u32) -> Desc {
    Desc { at, len, flags: WRITE, next: 0 }
}

/// A table of further ones.
pub(super) fn table(at: u64, entries: u32) -> Desc {
    Desc { at, len: entries * 16, flags: INDIRECT, next: 0 }
}

impl Desc {
    pub(super) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.at.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A guest with a mebibyte of memory in two regions, and one queue in it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) memory: Memory,
    pub(super) size: u16,
    next: u16,
    seen: u16,
}

/// Where the frontend has the memory of the guest.
pub(super) const FRONTEND: u64 = 0x7000_0000;
/// Where the regions meet.
pub(super) const SEAM: u64 = 0x8_0000;
pub(super) const MEMORY: u64 = 0x10_0000;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x6000;
const USED: u64 = 0x8000;
/// Free for data.
pub(super) const DATA: u64 = 0x1_0000;

impl Guest {
    pub(super) fn new(size: u16) -> Self {
        let region = |guest: u64, len: u64| RegionInfo {
            guest,
            len,
            frontend: FRONTEND + guest * 2,
            file_offset: 0,
        };
        let memory =
            Memory::default().with(region(0, SEAM), memory_file(SEAM)).and_then(|memory| {
                memory.with(region(SEAM, MEMORY - SEAM), memory_file(MEMORY - SEAM))
            });
        Self { memory: memory.unwrap(), size, next: 0, seen: 0 }
    }

    pub(super) fn address(&self) -> RingAddress {
        RingAddress {
            descriptors: FRONTEND + TABLE,
            available: FRONTEND + AVAILABLE,
            used: FRONTEND + USED,
            used_log: None,
        }
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(bytes, at).unwrap();
    }

    pub(super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(&mut bytes, at).unwrap();
        bytes
    }

    pub(super) fn u16_at(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at, 2).try_into().unwrap())
    }

    /// Writes one descriptor of the table as it is.
    pub(super) fn describe(&self, index: u16, desc: Desc) {
        self.write(TABLE + u64::from(index) * 16, &desc.bytes());
    }

    /// Writes a chain that begins at `head` and takes the descriptors behind it.
    pub(super) fn chain(&self, head: u16, descs: &[Desc]) {
        self.chain_in(TABLE, head, descs);
    }

    /// Writes a chain into a table anywhere.
    pub(super) fn chain_in(&self, table: u64, head: u16, descs: &[Desc]) {
        for (index, desc) in (head..).zip(descs) {
            let is_last = usize::from(index - head) + 1 == descs.len();
            let more = if is_last { 0 } else { NEXT };
            let linked = Desc { flags: desc.flags | more, next: index + 1, ..*desc };
            self.write(table + u64::from(index) * 16, &linked.bytes());
        }
    }

    /// Offers a head.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next % self.size);
        self.write(AVAILABLE + 4 + slot * 2, &head.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        self.say_offered(self.next);
    }

    /// Says that so many heads were ever offered.
    pub(super) fn say_offered(&self, index: u16) {
        self.write(AVAILABLE + 2, &index.to_le_bytes());
    }

    pub(super) fn set_available_flags(&self, flags: u16) {
        self.write(AVAILABLE, &flags.to_le_bytes());
    }

    /// Wants an interrupt for what is given back after so many.
    pub(super) fn set_used_event(&self, index: u16) {
        self.write(AVAILABLE + 4 + u64::from(self.size) * 2, &index.to_le_bytes());
    }

    pub(super) fn available_event(&self) -> u16 {
        self.u16_at(USED + 4 + u64::from(self.size) * 8)
    }

    pub(super) fn used_flags(&self) -> u16 {
        self.u16_at(USED)
    }

    pub(super) fn used_index(&self) -> u16 {
        self.u16_at(USED + 2)
    }

    pub(super) fn set_used_index(&self, index: u16) {
        self.write(USED + 2, &index.to_le_bytes());
    }

    /// Heads that came back since this was last called, with the bytes that were written for each.
    pub(super) fn returned(&mut self) -> Vec<(u32, u32)> {
        let mut returned = Vec::new();
        while self.seen != self.used_index() {
            let at = USED + 4 + u64::from(self.seen % self.size) * 8;
            let word = |at| u32::from_le_bytes(self.read(at, 4).try_into().unwrap());
            returned.push((word(at), word(at + 4)));
            self.seen = self.seen.wrapping_add(1);
        }
        returned
    }
}
