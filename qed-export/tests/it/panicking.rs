//! A disk some of whose calls panic, which no disk should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use qed_export::{BlockDevice, BlockSizes, DeviceError, Durability, Extent, Zeroing};

use crate::client::raw_disk;

/// What panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Size,
    /// A read of so many bytes.
    Read(usize),
    Maintain,
    Close,
}

#[derive(Debug)]
pub(crate) struct Panicking {
    disk: Box<dyn BlockDevice>,
    call: Call,
    closed: Arc<AtomicUsize>,
}

impl Panicking {
    /// A disk, one of whose calls panics, and which counts in `closed` that it was closed.
    pub(crate) fn disk(call: Call, closed: &Arc<AtomicUsize>) -> Box<dyn BlockDevice> {
        Box::new(Self { disk: raw_disk(), call, closed: Arc::clone(closed) })
    }

    fn meet(&self, call: Call) {
        assert!(self.call != call, "as the test wants it: {call:?}");
    }
}

impl BlockDevice for Panicking {
    fn size(&self) -> u64 {
        self.meet(Call::Size);
        self.disk.size()
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    fn block_sizes(&self) -> BlockSizes {
        self.disk.block_sizes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        self.meet(Call::Read(buf.len()));
        self.disk.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError> {
        self.disk.write_at(buf, at, durability)
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        self.disk.write_zeroes(at, len, how)
    }

    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError> {
        self.disk.trim(at, len, durability)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.disk.flush()
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        self.disk.extent_at(at, max_len)
    }

    fn maintain(&self, now: Instant) -> Result<Option<Instant>, DeviceError> {
        self.meet(Call::Maintain);
        self.disk.maintain(now)
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.meet(Call::Close);
        self.disk.close()
    }
}
