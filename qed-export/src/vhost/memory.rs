//! The memory of a guest: the regions that a frontend shares, mapped, and places in them. Knows neither
//! rings nor requests.
//!
//! What lies in it changes at any time, so nothing here gives a reference to its bytes: they are copied,
//! or read and written as atomic words.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use thiserror::Error;
use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{AtomicInteger, FileOffset, MmapRegion, VolatileMemory};

/// As many regions as the kernel's own vhost takes.
pub const MAX_REGIONS: usize = 509;

/// What a frontend says of a region of guest memory; all bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionInfo {
    /// Where the guest has it.
    pub guest: u64,
    /// Its length.
    pub len: u64,
    /// Where the frontend has it: the addresses of rings are told so.
    pub frontend: u64,
    /// Where it begins in its file.
    pub file_offset: u64,
}

/// Why a region is not taken, or a place is none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A region of no bytes, or one that ends past 2^64.
    #[error("a region of {len} bytes at {guest:#x} is none")]
    NoRange {
        /// Where the guest would have it.
        guest: u64,
        /// Its length.
        len: u64,
    },
    /// Two regions share addresses of the guest or of the frontend.
    #[error("the region at {guest:#x} overlaps another")]
    Overlap {
        /// Where the guest would have it.
        guest: u64,
    },
    /// More regions than [`MAX_REGIONS`].
    #[error("more than {MAX_REGIONS} regions")]
    TooMany,
    /// The file ends before the region does: to touch what is missing would end the process.
    #[error("the file of {file_len} bytes ends before what is shared of it")]
    FileTooShort {
        /// Bytes of the file.
        file_len: u64,
    },
    /// What is shared is no file.
    #[error("what is shared is no regular file")]
    NoFile,
    /// The system refused.
    #[error("mapping shared memory")]
    Map(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No such region.
    #[error("there is no such region")]
    Unknown,
    /// A place that is in no region.
    #[error("{len} bytes at {at:#x} are not in the memory of the guest")]
    Outside {
        /// Where.
        at: u64,
        /// How many bytes.
        len: u64,
    },
    /// A place that is not aligned as what lies there has to be.
    #[error("{at:#x} is not aligned to {to} bytes")]
    Unaligned {
        /// Where.
        at: u64,
        /// The alignment.
        to: u64,
    },
}

/// The memory of a guest, as a value: a change of it is another one.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// By guest address.
    regions: Vec<Arc<Region>>,
}

#[derive(Debug)]
struct Region {
    info: RegionInfo,
    map: MmapRegion<()>,
}

/// A run of guest memory inside one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) len: u32,
}

impl Memory {
    /// The same memory with one region more.
    ///
    /// # Errors
    /// A region that cannot be, that overlaps another or that its file does not hold.
    pub fn with(&self, info: RegionInfo, file: File) -> Result<Self, MemoryError> {
        let none = || MemoryError::NoRange { guest: info.guest, len: info.len };
        let range = |at: u64| Some(at..at.checked_add(info.len)?);
        let (guest, frontend) = range(info.guest).zip(range(info.frontend)).ok_or_else(none)?;
        if guest.is_empty() {
            return Err(none());
        }
        if self.regions.len() == MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let overlaps = self
            .regions
            .iter()
            .any(|region| meet(&region.guest(), &guest) || meet(&region.frontend(), &frontend));
        if overlaps {
            return Err(MemoryError::Overlap { guest: info.guest });
        }
        let map = map(file, info.file_offset, info.len)?;
        let mut regions = self.regions.clone();
        let place = regions.partition_point(|region| region.info.guest < info.guest);
        regions.insert(place, Arc::new(Region { info, map }));
        Ok(Self { regions })
    }

    /// The same memory without a region.
    ///
    /// # Errors
    /// There is none of these addresses and length.
    pub fn without(&self, info: RegionInfo) -> Result<Self, MemoryError> {
        let is_it = |region: &Region| RegionInfo { file_offset: 0, ..region.info };
        let wanted = RegionInfo { file_offset: 0, ..info };
        let mut regions = self.regions.clone();
        let place = regions.iter().position(|region| is_it(region) == wanted);
        regions.remove(place.ok_or(MemoryError::Unknown)?);
        Ok(Self { regions })
    }

    /// Fills `buf` from a place of the guest.
    ///
    /// # Errors
    /// [`MemoryError::Outside`].
    pub fn read(&self, buf: &mut [u8], at: u64) -> Result<(), MemoryError> {
        let mut done = 0;
        self.each(at, buf.len() as u64, |slice, _| {
            slice.copy_to(&mut buf[done..]);
            done += slice.len();
        })
    }

    /// Writes `buf` to a place of the guest.
    ///
    /// # Errors
    /// [`MemoryError::Outside`], before anything is written.
    pub fn write(&self, buf: &[u8], at: u64) -> Result<(), MemoryError> {
        self.each(at, buf.len() as u64, |_, _| {})?;
        let mut done = 0;
        self.each(at, buf.len() as u64, |slice, _| {
            slice.copy_from(&buf[done..done + slice.len()]);
            done += slice.len();
        })
    }

    /// Cuts a run into pieces that lie in one region each.
    pub(super) fn cut(
        &self,
        at: u64,
        len: u32,
        mut to: impl FnMut(Piece),
    ) -> Result<(), MemoryError> {
        self.each(at, u64::from(len), |slice, at| {
            to(Piece { at, len: u32::try_from(slice.len()).unwrap_or(len) });
        })
    }

    /// The bytes of a piece.
    pub(super) fn slice(&self, piece: Piece) -> Result<VolatileSlice<'_>, MemoryError> {
        let outside = || MemoryError::Outside { at: piece.at, len: u64::from(piece.len) };
        let region = self.region_of(piece.at).ok_or_else(outside)?;
        region.slice(piece.at - region.info.guest, u64::from(piece.len)).ok_or_else(outside)
    }

    /// A place that the frontend names by its own address, whole in one region.
    pub(super) fn area(&self, frontend: u64, len: usize, align: u64) -> Result<Area, MemoryError> {
        let outside = MemoryError::Outside { at: frontend, len: len as u64 };
        let found = self.regions.iter().find(|region| region.frontend().contains(&frontend));
        let Some(region) = found else { return Err(outside) };
        let within = frontend - region.info.frontend;
        if region.slice(within, len as u64).is_none() {
            return Err(outside);
        }
        // Mappings begin at pages.
        if !within.is_multiple_of(align) {
            return Err(MemoryError::Unaligned { at: frontend, to: align });
        }
        let start = usize::try_from(within).unwrap_or(usize::MAX);
        Ok(Area { region: Arc::clone(region), start, len })
    }

    fn region_of(&self, guest: u64) -> Option<&Region> {
        let after = self.regions.partition_point(|region| region.info.guest <= guest);
        let region = self.regions.get(after.checked_sub(1)?)?;
        region.guest().contains(&guest).then_some(region)
    }

    /// Shows the parts of a run, region by region.
    fn each<'m>(
        &'m self,
        at: u64,
        len: u64,
        mut visit: impl FnMut(VolatileSlice<'m>, u64),
    ) -> Result<(), MemoryError> {
        let outside = || MemoryError::Outside { at, len };
        let (mut place, mut left) = (at, len);
        while left > 0 {
            let region = self.region_of(place).ok_or_else(outside)?;
            let part = left.min(region.guest().end - place);
            let slice = region.slice(place - region.info.guest, part).ok_or_else(outside)?;
            visit(slice, place);
            left -= part;
            place = if left > 0 { place.checked_add(part).ok_or_else(outside)? } else { place };
        }
        Ok(())
    }
}

impl Region {
    fn guest(&self) -> Range<u64> {
        self.info.guest..self.info.guest + self.info.len
    }

    fn frontend(&self) -> Range<u64> {
        self.info.frontend..self.info.frontend + self.info.len
    }

    fn slice(&self, at: u64, len: u64) -> Option<VolatileSlice<'_>> {
        self.map.get_slice(usize::try_from(at).ok()?, usize::try_from(len).ok()?).ok()
    }
}

/// A part of guest memory that stays mapped, as of a ring.
#[derive(Debug)]
pub(super) struct Area {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl Area {
    pub(super) fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut buf = [0; N];
        self.region.map.get_slice(self.place(offset, N)?, N).ok()?.copy_to(&mut buf);
        Some(buf)
    }

    pub(super) fn u16_at(&self, offset: usize) -> Option<&AtomicU16> {
        word(&self.region.map, self.place(offset, 2)?)
    }

    pub(super) fn u32_at(&self, offset: usize) -> Option<&AtomicU32> {
        word(&self.region.map, self.place(offset, 4)?)
    }

    fn place(&self, offset: usize, len: usize) -> Option<usize> {
        (offset.checked_add(len)? <= self.len).then_some(self.start + offset)
    }
}

/// A file that is shared with the frontend for another purpose than to be memory of the guest.
#[derive(Debug)]
pub(super) struct Shared(MmapRegion<()>);

impl Shared {
    pub(super) fn new(file: File, offset: u64, len: u64) -> Result<Self, MemoryError> {
        Ok(Self(map(file, offset, len)?))
    }

    pub(super) fn u8_at(&self, offset: usize) -> Option<&AtomicU8> {
        word(&self.0, offset)
    }

    pub(super) fn u16_at(&self, offset: usize) -> Option<&AtomicU16> {
        word(&self.0, offset)
    }

    pub(super) fn u64_at(&self, offset: usize) -> Option<&AtomicU64> {
        word(&self.0, offset)
    }
}

fn word<T: AtomicInteger>(map: &MmapRegion<()>, offset: usize) -> Option<&T> {
    map.get_atomic_ref(offset).ok()
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// A new file in memory to share, all zeros, that nobody can cut or lengthen.
///
/// # Errors
/// The system's.
pub fn memory_file(len: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("qed-shared", flags)?);
    file.set_len(len)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Maps a part of a file that is there as a whole.
///
/// A file that is cut afterwards is the frontend's doing, and ends the process that touches what is gone.
fn map(file: File, offset: u64, len: u64) -> Result<MmapRegion<()>, MemoryError> {
    let found = file.metadata().map_err(|error| MemoryError::Map(error.into()))?;
    if !found.is_file() {
        return Err(MemoryError::NoFile);
    }
    let short = MemoryError::FileTooShort { file_len: found.len() };
    let bytes = match offset.checked_add(len) {
        Some(end) if end <= found.len() => usize::try_from(len),
        _ => return Err(short),
    };
    let bytes = bytes.map_err(|error| MemoryError::Map(error.into()))?;
    MmapRegion::from_file(FileOffset::new(file, offset), bytes)
        .map_err(|error| MemoryError::Map(error.into()))
}

#[cfg(test)]
mod tests;
