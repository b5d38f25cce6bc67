//! The file that shows a disk: what each call of a program means for the disk. Knows no kernel messages
//! and no mount.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::Errno;

use super::errno::FileError;
use super::gate::Gate;
use crate::device::{
    Allocation, BlockDevice, DeviceError, Durability, Shrink, Space, Speed, Zeroing,
};
use crate::server::Export;

/// The most that one read or write may have; the kernel was told so.
pub(super) const MAX_REQUEST_BYTES: u32 = 1 << 20;
/// Disks have a multiple of this.
const SECTOR_BYTES: u64 = 512;
/// Zeroed or looked through at a time; between two steps others have their turn, and a server that has
/// to end can.
const STEP_BYTES: u64 = 4 << 30;
/// Written at a time where space is to be allocated.
const ALLOCATION_STEP_BYTES: u64 = 1 << 20;

/// What `fallocate` is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fallocate {
    /// What becomes of the range.
    pub(super) change: RangeChange,
    /// Whether the size of the file stays, however far the range reaches.
    pub(super) keeps_size: bool,
}

/// What becomes of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RangeChange {
    /// It keeps what it has, with space of its own.
    Allocate,
    /// It reads as zeros and need have no space.
    PunchHole,
    /// It reads as zeros and has space of its own.
    Zero,
}

impl Fallocate {
    const KEEP_SIZE: i32 = 1;
    const PUNCH_HOLE: i32 = 2;
    const ZERO_RANGE: i32 = 16;

    /// What the flags of the call mean.
    pub(super) fn of_flags(flags: i32) -> Result<Self, FileError> {
        let keeps_size = flags & Self::KEEP_SIZE != 0;
        let change = match flags & !Self::KEEP_SIZE {
            0 => RangeChange::Allocate,
            Self::PUNCH_HOLE if keeps_size => RangeChange::PunchHole,
            Self::ZERO_RANGE => RangeChange::Zero,
            _ => return Err(Errno::EOPNOTSUPP.into()),
        };
        Ok(Self { change, keeps_size })
    }
}

/// What is looked for in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seek {
    /// Stored bytes.
    Data,
    /// Zeros without any; the end of the file counts as one.
    Hole,
}

/// The file.
#[derive(Debug)]
pub(super) struct DiskFile {
    export: Arc<Export>,
    disk: Arc<dyn BlockDevice>,
    how: FileOptions,
    growing: Mutex<()>,
    pub(super) gate: Gate,
}

/// How the file behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileOptions {
    /// What is written past its end makes it longer.
    pub(super) is_growable: bool,
    /// Others write to the disk too.
    pub(super) is_shared: bool,
}

impl DiskFile {
    /// The file of a disk.
    pub(super) fn new(export: &Arc<Export>, how: FileOptions) -> Self {
        let (export, disk) = (Arc::clone(export), Arc::clone(export.device()));
        Self { export, disk, how, growing: Mutex::default(), gate: Gate::default() }
    }

    pub(super) fn disk(&self) -> &dyn BlockDevice {
        &*self.disk
    }

    pub(super) fn options(&self) -> FileOptions {
        self.how
    }

    /// Fills `buf` from `at`, as far as the file reaches; how much that is.
    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> Result<usize, FileError> {
        let _inside = self.gate.enter()?;
        let left = self.disk.size().saturating_sub(at);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if len > 0 {
            self.disk.read_at(&mut buf[..len], at)?;
        }
        Ok(len)
    }

    /// Writes `data` at `at`, as far as the file reaches; how much that is.
    ///
    /// A write that begins at the end or past it finds no space, as on a block device.
    pub(super) fn write(
        &self,
        data: &[u8],
        at: u64,
        durability: Durability,
    ) -> Result<u32, FileError> {
        let _inside = self.gate.enter()?;
        let end = at.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        let left = self.size_for(end)?.saturating_sub(at);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        match len {
            0 if data.is_empty() => {}
            0 => return Err(Errno::ENOSPC.into()),
            _ => self.disk.write_at(&data[..len], at, durability)?,
        }
        u32::try_from(len).map_err(|_| Errno::EINVAL.into())
    }

    /// Makes what was written before durable.
    pub(super) fn sync(&self) -> Result<(), FileError> {
        let _inside = self.gate.enter()?;
        Ok(self.disk.flush()?)
    }

    /// Gives the file another size: only a longer one, and only if it is growable.
    pub(super) fn truncate(&self, size: u64) -> Result<(), FileError> {
        let _inside = self.gate.enter()?;
        match size.cmp(&self.disk.size()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater if self.size_for(size)? >= size => Ok(()),
            _ => Err(Errno::EPERM.into()),
        }
    }

    /// Changes a range.
    pub(super) fn fallocate(&self, at: u64, len: u64, how: Fallocate) -> Result<(), FileError> {
        let end = at.checked_add(len).ok_or(Errno::EFBIG)?;
        if len == 0 {
            return Err(Errno::EINVAL.into());
        }
        let size = match how.keeps_size {
            true => self.disk.size(),
            false => {
                let _inside = self.gate.enter()?;
                self.size_for(end)?
            }
        };
        if !how.keeps_size && end > size {
            return Err(Errno::ENOSPC.into());
        }
        let range = at.min(size)..end.min(size);
        match how.change {
            RangeChange::Allocate if self.how.is_shared => Err(Errno::EOPNOTSUPP.into()),
            RangeChange::Allocate => self.allocate(range),
            RangeChange::PunchHole => self.zero(range, Space::MayHaveHoles, STEP_BYTES),
            RangeChange::Zero => self.zero(range, Space::Allocated, ALLOCATION_STEP_BYTES),
        }
    }

    /// The next place from `at` that has what is looked for.
    pub(super) fn seek(&self, at: u64, what: Seek) -> Result<u64, FileError> {
        let size = self.disk.size();
        if at >= size {
            return Err(Errno::ENXIO.into());
        }
        let mut found = None;
        self.in_steps(at..size, STEP_BYTES, |step| {
            let _inside = self.gate.enter()?;
            let mut here = step.start;
            self.disk.each_extent(step, &mut |extent| {
                let is_data = extent.allocation == Allocation::Data;
                if is_data == (what == Seek::Data) {
                    found = Some(here);
                    return ControlFlow::Break(());
                }
                here += extent.len;
                ControlFlow::Continue(())
            })?;
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        match (found, what) {
            (Some(found), _) => Ok(found),
            (None, Seek::Hole) => Ok(size),
            (None, Seek::Data) => Err(Errno::ENXIO.into()),
        }
    }

    fn zero(&self, range: Range<u64>, space: Space, step: u64) -> Result<(), FileError> {
        let how = Zeroing { space, speed: Speed::Any, durability: Durability::AfterFlush };
        self.in_steps(range, step, |step| {
            let _inside = self.gate.enter()?;
            self.disk.write_zeroes(step.start, step.end - step.start, how)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Writes again what is there wherever it has no space of its own, while nobody else writes to the
    /// file; so it is not for disks that are shared.
    fn allocate(&self, range: Range<u64>) -> Result<(), FileError> {
        let mut buf = Vec::new();
        self.in_steps(range, ALLOCATION_STEP_BYTES, |step| {
            let _alone = self.gate.enter_alone()?;
            let mut missing = Vec::new();
            let mut here = step.start;
            self.disk.each_extent(step, &mut |extent| {
                if extent.allocation != Allocation::Data || extent.depth != 1 {
                    missing.push(here..here + extent.len);
                }
                here += extent.len;
                ControlFlow::Continue(())
            })?;
            for part in missing {
                // At most a step.
                buf.resize(usize::try_from(part.end - part.start).unwrap_or(usize::MAX), 0);
                self.disk.read_at(&mut buf, part.start)?;
                self.disk.write_at(&buf, part.start, Durability::AfterFlush)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The size of the file, which reaches `end` if it is growable.
    fn size_for(&self, end: u64) -> Result<u64, FileError> {
        let size = self.disk.size();
        if end <= size || !self.how.is_growable {
            return Ok(size);
        }
        let _one = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if end > self.disk.size() {
            let whole = end.checked_next_multiple_of(SECTOR_BYTES).ok_or(Errno::EFBIG)?;
            // Other servers of the disk are told.
            self.export.resize(whole, Shrink::Refuse).map_err(|error| match error {
                DeviceError::Failed(_) | DeviceError::NoSpace(_) => FileError::from(error),
                // A size that no image of its kind has, or a disk that keeps its own.
                _ => Errno::EFBIG.into(),
            })?;
        }
        Ok(self.disk.size())
    }

    /// Goes through a range in steps, until one breaks off; a file that has to be closed ends it early.
    fn in_steps(
        &self,
        range: Range<u64>,
        step: u64,
        mut act: impl FnMut(Range<u64>) -> Result<ControlFlow<()>, FileError>,
    ) -> Result<(), FileError> {
        let mut at = range.start;
        while at < range.end {
            if self.gate.is_closing() {
                return Err(Errno::ESHUTDOWN.into());
            }
            let end = (at - at % step).saturating_add(step).min(range.end);
            if act(at..end)?.is_break() {
                break;
            }
            at = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
