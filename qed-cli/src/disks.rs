//! Virtual disks made of other virtual disks: several in a row, and a stretch of one.

use std::sync::Arc;

use qed_core::{BackingError, GuestExtent, GuestExtentKind, VirtualDisk};
use qed_io::Storage;
use qed_spec::ErrorKind;

/// Disks one after the other, as one.
#[derive(Debug)]
pub(crate) struct Joined {
    parts: Vec<Arc<dyn VirtualDisk>>,
}

impl Joined {
    pub(crate) fn new(parts: Vec<Arc<dyn VirtualDisk>>) -> Self {
        Self { parts }
    }

    /// The part that holds `offset`, and the offset in it.
    fn part_at(&self, mut offset: u64) -> Option<(&dyn VirtualDisk, u64)> {
        for part in &self.parts {
            if offset < part.len() {
                return Some((&**part, offset));
            }
            offset -= part.len();
        }
        None
    }
}

impl VirtualDisk for Joined {
    fn len(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let Some((part, within)) = self.part_at(at) else {
                return Err(BackingError::new(at, ErrorKind::InvalidInput, "past the last disk"));
            };
            let len = usize::try_from(part.len() - within).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            part.read_at(now, within)?;
            rest = later;
            at += len as u64;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        match self.part_at(offset) {
            Some((part, within)) => part.extent_at(within, max_len.min(part.len() - within)),
            None => Ok(GuestExtent { len: 0, depth: 0, kind: GuestExtentKind::Unallocated }),
        }
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        let (part, within) = self.part_at(offset)?;
        part.data_storage(within, depth)
    }
}

/// A stretch of a disk, filled up with zeros to whole sectors.
#[derive(Debug)]
pub(crate) struct Window {
    disk: Arc<dyn VirtualDisk>,
    start: u64,
    /// Bytes of the disk that show.
    len: u64,
}

impl Window {
    /// Bytes `start..start + len` of `disk`, as far as it reaches.
    pub(crate) fn new(disk: Arc<dyn VirtualDisk>, start: u64, len: u64) -> Self {
        let len = len.min(disk.len().saturating_sub(start));
        Self { disk, start, len }
    }
}

impl VirtualDisk for Window {
    fn len(&self) -> u64 {
        self.len.next_multiple_of(512)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let there = self.len.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let (there, past_end) = buf.split_at_mut(there);
        past_end.fill(0);
        if there.is_empty() { Ok(()) } else { self.disk.read_at(there, self.start + offset) }
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        if offset < self.len {
            return self.disk.extent_at(self.start + offset, max_len.min(self.len - offset));
        }
        let len = max_len.min(self.len().saturating_sub(offset));
        Ok(GuestExtent { len, depth: 0, kind: GuestExtentKind::Zero })
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        self.disk.data_storage(self.start + offset, depth)
    }
}

#[cfg(test)]
mod tests {
    use qed_core::RawFile;
    use qed_io::MemoryStorage;

    use super::*;

    fn disk(byte: u8, len: usize) -> Arc<dyn VirtualDisk> {
        Arc::new(RawFile::open(Arc::new(MemoryStorage::new(vec![byte; len]))).unwrap())
    }

    fn bytes(disk: &dyn VirtualDisk) -> Vec<u8> {
        let mut all = vec![9; usize::try_from(disk.len()).unwrap()];
        disk.read_at(&mut all, 0).unwrap();
        all
    }

    fn extent_lens(disk: &dyn VirtualDisk) -> Vec<u64> {
        let (mut at, mut lens) = (0, Vec::new());
        while at < disk.len() {
            let extent = disk.extent_at(at, disk.len() - at).unwrap();
            lens.push(extent.len);
            at += extent.len;
        }
        lens
    }

    #[test]
    fn joined_disks_follow_each_other() {
        let joined = Joined::new(vec![disk(1, 512), disk(2, 0), disk(3, 1024)]);
        assert_eq!(bytes(&joined), [vec![1; 512], vec![3; 1024]].concat());
        assert_eq!(extent_lens(&joined), [512, 1024]);
        assert!(joined.read_at(&mut [0; 2], joined.len() - 1).is_err());
    }

    #[test]
    fn windows_end_in_zeros_on_a_sector() {
        let window = Window::new(disk(7, 4096), 1000, 600);
        assert_eq!(bytes(&window), [vec![7; 600], vec![0; 424]].concat());
        assert_eq!(extent_lens(&window), [600, 424]);
        assert_eq!(Window::new(disk(7, 512), 600, 10).len(), 0);
    }
}
