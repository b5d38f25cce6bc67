//! An image file as a block device: its length is fixed, and what was not written holds anything.
//!
//! Owns nothing but that difference; a loop device would need root, and is no other to the libraries.

use std::io;
use std::ops::Range;

use qed_io::{FileStorage, Growth, ImageLock, LockError, Storage, StorageRun};

/// The file as a device of its length.
#[derive(Debug)]
pub(super) struct Device(pub(super) FileStorage);

impl Device {
    /// Refuses what ends past the device.
    fn check_end(&self, end: Option<u64>) -> io::Result<()> {
        let len = self.0.len()?;
        match end {
            Some(end) if end <= len => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl Storage for Device {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_end(offset.checked_add(buf.len() as u64))?;
        self.0.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len == self.0.len()? { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.check_end(Some(range.end))?;
        self.0.write_zeroes(range)
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        self.0.punch_hole(range)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.0.run_at(at)
    }

    fn growth(&self) -> Growth {
        Growth::Stale
    }

    fn lock(&self, lock: ImageLock) -> Result<(), LockError> {
        self.0.lock(lock)
    }
}
