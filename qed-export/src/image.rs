//! Images of `qed-core` as block devices: the one file of this crate that names it.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Instant;

use qed_core::{
    BackingError, CompactOptions, CompactStep, ExtentKind, Extents, GuestExtent, GuestExtentKind,
    Image, ImageError, ResizeError, VirtualDisk, ZeroMode,
};
use qed_engine::Engine;
use qed_io::{FileStorage, Piece, PieceMut, pieces_mut_len};
use qed_spec::{Geometry, GuestOffset};

use crate::device::{
    Allocation, BlockDevice, BlockSizes, Compacted, Compaction, CompactionStep, DeviceError,
    Durability, Extent, Shrink, Space, SpaceUsage, Speed, Zeroing, check_range, walk,
};
use crate::in_flight::InFlight;

/// Zeros for space that has to be allocated.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// What suits any file below.
const PAGE_BYTES: u32 = 4096;

/// A QED image open for writing.
#[derive(Debug)]
pub struct QedDisk(Arc<Image>);

impl QedDisk {
    /// The disk that an image holds; others may use the image too, until the disk is closed.
    #[must_use]
    pub fn new(image: impl Into<Arc<Image>>) -> Self {
        Self(image.into())
    }

    fn settle(&self, durability: Durability) -> Result<(), DeviceError> {
        match durability {
            Durability::AfterFlush => Ok(()),
            Durability::AtReturn => self.flush(),
        }
    }

    /// Zeros with their space: written where nothing is stored yet.
    fn write_stored_zeroes(&self, at: u64, len: u64) -> Result<(), DeviceError> {
        let (mut at, end) = (at, at + len);
        while at < end {
            let guest = GuestOffset::new(at);
            let extent = self.0.map(guest, end - at)?;
            at += match extent.kind {
                ExtentKind::Data(_) => {
                    self.0.write_zeroes(guest, extent.len, ZeroMode::IfNeeded)?;
                    extent.len
                }
                ExtentKind::Zero | ExtentKind::Unallocated => {
                    let part = extent.len.min(ZEROS.len() as u64);
                    let zeros = &ZEROS[..usize::try_from(part).unwrap_or(ZEROS.len())];
                    self.0.write_at(zeros, guest)?;
                    zeros.len() as u64
                }
            };
        }
        Ok(())
    }

    /// Whether no data has to be written to zero a range: whole clusters give up their space or are
    /// zeroed where they lie. The clusters at its ends are the only ones that may be zeroed in part,
    /// and a part of one that only the backing file has is copied.
    fn zeroes_fast(&self, at: u64, len: u64) -> Result<bool, DeviceError> {
        let (size, cluster) = (self.size(), self.0.geometry().cluster_size_bytes());
        let end = at + len;
        let head = !at.is_multiple_of(cluster);
        let tail = !end.is_multiple_of(cluster) && end != size;
        let ends = [(head, at), (tail, end.saturating_sub(1))];
        for (_, place) in ends.into_iter().filter(|(partial, _)| *partial && len > 0) {
            let kind = self.0.map(GuestOffset::new(place), 1)?.kind;
            let backed = self.0.backing().is_some_and(|backing| place < backing.len());
            if kind == ExtentKind::Unallocated && backed {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl BlockDevice for QedDisk {
    fn size(&self) -> u64 {
        self.0.image_size()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn block_sizes(&self) -> BlockSizes {
        let cluster = u32::try_from(self.0.geometry().cluster_size_bytes()).unwrap_or(PAGE_BYTES);
        BlockSizes { minimum: 1, preferred: cluster }
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        Ok(self.0.read_at(buf, GuestOffset::new(at))?)
    }

    fn write_at(&self, buf: &[u8], at: u64, durability: Durability) -> Result<(), DeviceError> {
        self.0.write_at(buf, GuestOffset::new(at))?;
        self.settle(durability)
    }

    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], at: u64) -> Result<(), DeviceError> {
        Ok(self.0.read_vectored_at(pieces, GuestOffset::new(at))?)
    }

    fn write_vectored_at(
        &self,
        pieces: &[Piece<'_>],
        at: u64,
        durability: Durability,
    ) -> Result<(), DeviceError> {
        self.0.write_vectored_at(pieces, GuestOffset::new(at))?;
        self.settle(durability)
    }

    fn in_flight(&self, depth: u32) -> Result<Option<InFlight>, DeviceError> {
        if !self
            .0
            .direct()
            .and_then(|it| FileStorage::of(&**it))
            .is_some_and(FileStorage::is_direct)
        {
            return Ok(None);
        }
        InFlight::of(Engine::for_image(Arc::clone(&self.0), depth), None)
    }

    fn write_zeroes(&self, at: u64, len: u64, how: Zeroing) -> Result<(), DeviceError> {
        check_range(self.size(), at, len)?;
        match (how.space, how.speed) {
            (Space::Allocated, Speed::FastOnly) => return Err(DeviceError::NotFast),
            (Space::Allocated, Speed::Any) => self.write_stored_zeroes(at, len)?,
            (Space::MayHaveHoles, speed) => {
                if speed == Speed::FastOnly && !self.zeroes_fast(at, len)? {
                    return Err(DeviceError::NotFast);
                }
                self.0.write_zeroes(GuestOffset::new(at), len, ZeroMode::Unmap)?;
            }
        }
        self.settle(how.durability)
    }

    fn trim(&self, at: u64, len: u64, durability: Durability) -> Result<(), DeviceError> {
        self.0.discard(GuestOffset::new(at), len)?;
        self.settle(durability)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(self.0.flush()?)
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        extent_of(&*self.0, at, max_len)
    }

    fn each_extent(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), DeviceError> {
        // Space that is told to be a hole must not be that of other bytes by then, nor their new place.
        let request = self.0.request();
        request.pin(GuestOffset::new(range.start), range.end.saturating_sub(range.start))?;
        each_extent_of(&request, range, visit)
    }

    fn space_usage(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        let usage = self.0.space_usage()?;
        let finding = usage.finding.map(|finding| finding.to_string());
        let (end, free, capacity) = (usage.end, usage.free, usage.capacity);
        Ok(Some(SpaceUsage { end, free, capacity, finding }))
    }

    fn check(&self) -> Result<Option<SpaceUsage>, DeviceError> {
        match self.0.sweep_again() {
            // What a sweep finds wrong is told with the space.
            Ok(true) | Err(ImageError::Corrupt(_)) => self.space_usage(),
            Ok(false) => Err(DeviceError::Unsupported(
                "not all tables could be read in time: the disk goes on with it",
            )),
            Err(error) => Err(error.into()),
        }
    }

    fn resize(&self, new_size: u64, shrink: Shrink) -> Result<(), DeviceError> {
        let shrink = match shrink {
            Shrink::Refuse => qed_core::Shrink::Refuse,
            Shrink::Allow => qed_core::Shrink::Allow,
        };
        Ok(self.0.resize(new_size, shrink)?)
    }

    fn compact(&self) -> Result<Option<Box<dyn Compaction>>, DeviceError> {
        let geometry = self.0.geometry();
        let image = Arc::clone(&self.0);
        let compaction = qed_core::Compaction::new(image, CompactOptions::default());
        Ok(Some(Box::new(QedCompaction { compaction, geometry })))
    }

    fn maintain(&self, now: Instant) -> Result<Option<Instant>, DeviceError> {
        Ok(self.0.maintain(now)?)
    }

    fn close(&self) -> Result<(), DeviceError> {
        Ok(self.0.close()?)
    }
}

struct QedCompaction {
    compaction: qed_core::Compaction<Arc<Image>>,
    geometry: Geometry,
}

impl Compaction for QedCompaction {
    fn step(&mut self) -> Result<CompactionStep, DeviceError> {
        let done = match self.compaction.step()? {
            CompactStep::GoesOn { moved_bytes: moved, to_move_bytes: total } => {
                return Ok(CompactionStep::Moving { moved, total });
            }
            CompactStep::Done(done) => done,
        };
        Ok(CompactionStep::Done(Compacted {
            end_before: done.end_before,
            end: done.end_after,
            moved: done.moved_bytes,
            busy: done.held_back.busy_clusters * self.geometry.cluster_size_bytes(),
            tables: done.held_back.tables * self.geometry.table_size_bytes(),
        }))
    }
}

/// Any virtual disk that can be read, whatever its format.
#[derive(Debug)]
pub struct ReadOnlyDisk(Arc<dyn VirtualDisk>);

impl ReadOnlyDisk {
    /// The disk, through its whole chain.
    #[must_use]
    pub fn new(disk: Arc<dyn VirtualDisk>) -> Self {
        Self(disk)
    }
}

impl BlockDevice for ReadOnlyDisk {
    fn size(&self) -> u64 {
        self.0.len()
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn block_sizes(&self) -> BlockSizes {
        BlockSizes { minimum: 1, preferred: PAGE_BYTES }
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), DeviceError> {
        check_range(self.size(), at, buf.len() as u64)?;
        Ok(self.0.read_at(buf, at)?)
    }

    fn read_vectored_at(&self, pieces: &mut [PieceMut<'_>], at: u64) -> Result<(), DeviceError> {
        check_range(self.size(), at, pieces_mut_len(pieces))?;
        Ok(self.0.read_vectored_at(pieces, at)?)
    }

    fn in_flight(&self, depth: u32) -> Result<Option<InFlight>, DeviceError> {
        let file = self.0.data_storage(0, 0).and_then(FileStorage::shared);
        match file.filter(|file| file.is_direct()) {
            Some(file) => InFlight::of(Engine::for_reading(Arc::clone(&self.0), file, depth), None),
            None => Ok(None),
        }
    }

    fn write_at(&self, _buf: &[u8], _at: u64, _durability: Durability) -> Result<(), DeviceError> {
        Err(DeviceError::ReadOnly)
    }

    fn write_zeroes(&self, _at: u64, _len: u64, _how: Zeroing) -> Result<(), DeviceError> {
        Err(DeviceError::ReadOnly)
    }

    fn trim(&self, _at: u64, _len: u64, _durability: Durability) -> Result<(), DeviceError> {
        Err(DeviceError::ReadOnly)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn extent_at(&self, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
        extent_of(&*self.0, at, max_len)
    }

    fn each_extent(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), DeviceError> {
        each_extent_of(&*self.0, range, visit)
    }

    fn maintain(&self, _now: Instant) -> Result<Option<Instant>, DeviceError> {
        Ok(None)
    }

    fn close(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn extent_of(disk: &dyn VirtualDisk, at: u64, max_len: u64) -> Result<Extent, DeviceError> {
    check_range(disk.len(), at, 1)?;
    Ok(extent_from(disk.extent_at(at, max_len.min(disk.len() - at))?))
}

fn each_extent_of(
    disk: &dyn VirtualDisk,
    range: Range<u64>,
    visit: &mut dyn FnMut(Extent) -> ControlFlow<()>,
) -> Result<(), DeviceError> {
    check_range(disk.len(), range.start, range.end.saturating_sub(range.start))?;
    // One walk for one call: what it knows of the file's holes must not outlive a write.
    let mut extents = Extents::of(disk);
    walk(range, visit, |at, _| Ok(extent_from(extents.at(at)?)))
}

fn extent_from(found: GuestExtent) -> Extent {
    let stored = found.depth.saturating_add(1);
    let (allocation, depth) = match found.kind {
        GuestExtentKind::Data { .. } | GuestExtentKind::Compressed => (Allocation::Data, stored),
        GuestExtentKind::Hole { .. } => (Allocation::Zero, stored),
        GuestExtentKind::Zero => (Allocation::Hole, stored),
        GuestExtentKind::Unallocated => (Allocation::Hole, 0),
    };
    Extent { len: found.len, allocation, depth }
}

impl From<ImageError> for DeviceError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::OutOfRange { at, len, .. } => Self::OutOfRange { at, len },
            error => Self::of(error.kind(), error),
        }
    }
}

impl From<ResizeError> for DeviceError {
    fn from(error: ResizeError) -> Self {
        match error {
            ResizeError::Image(error) => error.into(),
            error => Self::Refused(error.into()),
        }
    }
}

impl From<BackingError> for DeviceError {
    fn from(error: BackingError) -> Self {
        Self::Failed(error.into())
    }
}
