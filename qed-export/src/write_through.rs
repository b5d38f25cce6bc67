//! A disk whose clients see no cache: what changes it is durable when the request returns.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Instant;

use qed_io::{Piece, PieceMut};

use crate::device::{
    Activity, BlockDevice, BlockSizes, Compaction, DeviceError, Durability, Extent, Shrink,
    SpaceUsage, TakeOver, Zeroing,
};

/// A disk that makes every change durable before it says that it is done.
#[derive(Debug)]
pub struct WriteThrough(Arc<dyn BlockDevice>);

impl WriteThrough {
    /// The same disk, with every change durable at once.
    #[must_use]
    pub fn new(disk: Arc<dyn BlockDevice>) -> Self {
        Self(disk)
    }
}

impl BlockDevice for WriteThrough {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn is_read_only(&self) -> bool {
        self.0.is_read_only()
    }

    fn block_sizes(&self) -> BlockSizes {
        self.0.block_sizes()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        self.0.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64, _durability: Durability) -> Result<(), DeviceError> {
        self.0.write_at(buf, at, Durability::AtReturn)
    }

    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], at: u64) -> Result<(), DeviceError> {
        self.0.read_vectored_at(pieces, at)
    }

    fn write_vectored_at(
        &self,
        pieces: &[Piece<'_>],
        at: u64,
        _durability: Durability,
    ) -> Result<(), DeviceError> {
        self.0.write_vectored_at(pieces, at, Durability::AtReturn)
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        self.0.write_zeroes(at, len, Zeroing { durability: Durability::AtReturn, ..how })
    }

    fn trim(&self, at: u64, len: u64, _durability: Durability) -> Result<(), DeviceError> {
        self.0.trim(at, len, Durability::AtReturn)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.0.flush()
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        self.0.extent_at(at, max_len)
    }

    fn each_extent(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), DeviceError> {
        self.0.each_extent(range, visit)
    }

    fn space_usage(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        self.0.space_usage()
    }

    fn check(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        self.0.check()
    }

    fn resize(&self, new_size: u64, shrink: Shrink) -> Result<(), DeviceError> {
        self.0.resize(new_size, shrink)
    }

    fn activity(&self) -> Activity {
        self.0.activity()
    }

    fn activate(&self, take_over: TakeOver) -> Result<(), DeviceError> {
        self.0.activate(take_over)
    }

    fn deactivate(&self) -> Result<(), DeviceError> {
        self.0.deactivate()
    }

    fn compact(&self) -> Result<Option<Box<dyn Compaction>>, DeviceError> {
        self.0.compact()
    }

    fn maintain(&self, now: Instant) -> Result<Option<Instant>, DeviceError> {
        self.0.maintain(now)
    }

    fn close(&self) -> Result<(), DeviceError> {
        self.0.close()
    }
}
