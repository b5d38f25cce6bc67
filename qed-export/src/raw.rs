//! A raw disk image open for writing: the file is the disk.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use qed_engine::Engine;
use qed_io::{FileStorage, Piece, PieceMut, RunKind, Storage, pieces_len, pieces_mut_len};

use crate::device::{
    Allocation, BlockDevice, BlockSizes, DeviceError, Durability, Extent, Shrink, Space, Speed,
    Zeroing, check_range,
};
use crate::in_flight::InFlight;

/// Zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// The blocks of which file systems have holes: what suits any of them.
const BLOCK_BYTES: u32 = 4096;
/// What the sizes of disks are multiples of.
const SECTOR_BYTES: u64 = 512;

/// A file or block device whose bytes are those of the disk.
#[derive(Debug)]
pub struct RawDisk {
    storage: Arc<dyn Storage>,
    size: Arc<AtomicU64>,
    gives_back: bool,
}

impl RawDisk {
    /// The disk that `storage` is; takes no lock. Its size is the length that the storage has
    /// now, until it is resized.
    ///
    /// # Errors
    /// The storage's error when its length cannot be read.
    pub fn open(storage: Arc<dyn Storage>) -> std::io::Result<Self> {
        let size = Arc::new(storage.len()?.into());
        Ok(Self { storage, size, gives_back: false })
    }

    /// The same disk, whose trimmed and zeroed blocks become holes of the file, or are discarded on the
    /// device; else they keep their space.
    #[must_use]
    pub fn giving_back(self) -> Self {
        Self { gives_back: true, ..self }
    }

    fn settle(&self, durability: Durability) -> Result<(), DeviceError> {
        match durability {
            Durability::AfterFlush => Ok(()),
            Durability::AtReturn => self.flush(),
        }
    }

    fn write_stored_zeroes(&self, at: u64, len: u64) -> std::io::Result<()> {
        let (mut at, mut left) = (at, len);
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.storage.write_at(&ZEROS[..part], at)?;
            (at, left) = (at + part as u64, left - part as u64);
        }
        Ok(())
    }

    /// The blocks that lie in a range as wholes; the last one of the disk may be a part of one.
    fn whole_blocks(&self, at: u64, len: u64) -> Range<u64> {
        let (block, end) = (u64::from(BLOCK_BYTES), at + len);
        let start = at.next_multiple_of(block);
        let end = if end == self.size() { end } else { end - end % block };
        start..end.max(start)
    }

    fn write_zeroes_somehow(&self, range: Range<u64>) -> std::io::Result<()> {
        if self.gives_back && self.storage.punch_hole(range.clone())? {
            return Ok(());
        }
        self.storage.write_zeroes(range)
    }
}

impl BlockDevice for RawDisk {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn block_sizes(&self) -> BlockSizes {
        BlockSizes { minimum: 1, preferred: BLOCK_BYTES }
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        check_range(self.size(), at, buf.len() as u64)?;
        self.storage.read_at(buf, at).map_err(DeviceError::of_io)
    }

    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError> {
        check_range(self.size(), at, buf.len() as u64)?;
        self.storage.write_at(buf, at).map_err(DeviceError::of_io)?;
        self.settle(durability)
    }

    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], at: u64) -> Result<(), DeviceError> {
        check_range(self.size(), at, pieces_mut_len(pieces))?;
        self.storage.read_vectored_at(pieces, at).map_err(DeviceError::of_io)
    }

    fn write_vectored_at(
        &self,
        pieces: &[Piece<'_>],
        at: u64,
        durability: Durability,
    ) -> Result<(), DeviceError> {
        check_range(self.size(), at, pieces_len(pieces))?;
        self.storage.write_vectored_at(pieces, at).map_err(DeviceError::of_io)?;
        self.settle(durability)
    }

    fn in_flight(&self, depth: u32) -> Result<Option<InFlight>, DeviceError> {
        match FileStorage::shared(&self.storage).filter(|file| file.is_direct()) {
            Some(file) => InFlight::of(Engine::for_raw(file, depth), Some(Arc::clone(&self.size))),
            None => Ok(None),
        }
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        check_range(self.size(), at, len)?;
        let zeroed = match (how.space, how.speed) {
            // A file system that has no cheap way would write them.
            (_, Speed::FastOnly) => return Err(DeviceError::NotFast),
            (Space::Allocated, Speed::Any) => self.write_stored_zeroes(at, len),
            (Space::MayHaveHoles, Speed::Any) => self.write_zeroes_somehow(at..at + len),
        };
        zeroed.map_err(DeviceError::of_io)?;
        self.settle(how.durability)
    }

    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError> {
        check_range(self.size(), at, len)?;
        if self.gives_back {
            self.storage.discard(self.whole_blocks(at, len)).map_err(DeviceError::of_io)?;
        }
        self.settle(durability)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.storage.flush().map_err(DeviceError::of_io)
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        check_range(self.size(), at, 1)?;
        let left = max_len.min(self.size() - at);
        let run = self.storage.run_at(at).map_err(DeviceError::of_io)?;
        let (allocation, len) = match run.kind {
            // The file was cut behind our back.
            _ if run.len == 0 => (Allocation::Data, left),
            RunKind::Data => (Allocation::Data, run.len),
            RunKind::Hole => (Allocation::Hole, run.len),
        };
        Ok(Extent { len: len.min(left), allocation, depth: 1 })
    }

    fn resize(&self, new_size: u64, _shrink: Shrink) -> Result<(), DeviceError> {
        // A write that is under way could make a file longer again that was cut.
        if new_size < self.size() {
            return Err(DeviceError::Unsupported("a raw disk does not shrink while it is served"));
        }
        if !new_size.is_multiple_of(SECTOR_BYTES) {
            return Err(DeviceError::Unsupported("the size of a disk is a multiple of 512 bytes"));
        }
        self.storage.set_len(new_size).map_err(|error| match error.kind() {
            // A device is as long as it is.
            ErrorKind::Unsupported | ErrorKind::FileTooLarge => DeviceError::Refused(error.into()),
            _ => DeviceError::of_io(error),
        })?;
        self.flush()?;
        self.size.fetch_max(new_size, Ordering::AcqRel);
        Ok(())
    }

    fn maintain(&self, _now: Instant) -> Result<Option<Instant>, DeviceError> {
        Ok(None)
    }

    fn close(&self) -> Result<(), DeviceError> {
        self.flush()
    }
}
