//! Reading the file as both formats before the commit: with sector 0 as it is, and as it will be.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use qed_core::{GuestExtentKind, LockPolicy, ReadContext, ReadOnlyImage, VirtualDisk};
use qed_io::{Growth, ImageLock, LockError, Storage, StorageRun};

use crate::in_place::error::InPlaceError;
use crate::in_place::step::{SECTOR, Sector};
use crate::in_place::to_qcow2::NoteFormat;
use crate::in_place::to_qcow2::sources::{Source, for_each_run};
use crate::qcow2::{Qcow2Image, Qcow2Options};

/// Step "verify": walks both tables in lock step.
pub(super) fn both_views_agree(
    storage: &Arc<dyn Storage>,
    sector: Sector,
) -> Result<(), InPlaceError> {
    let gate = NoteFormat::default();
    let context = ReadContext::new(&gate, LockPolicy::None);
    let old = ReadOnlyImage::open(storage.clone(), &context)?;
    let view: Arc<dyn Storage> = Arc::new(WithSector { storage: storage.clone(), sector });
    let new = Qcow2Image::open(view, &Qcow2Options::new(&gate, LockPolicy::None));
    let new = new.map_err(|error| InPlaceError::Unreadable(Box::new(error)))?;
    if new.image_size() != old.image_size() {
        return Err(InPlaceError::Differ { at: old.image_size().min(new.image_size()) });
    }
    let mut next = 0;
    for_each_run(&old, 0..old.image_size(), |at, len, source| {
        expect(&new, next..at, None)?;
        next = at + len;
        expect(&new, at..next, Some(source))
    })?;
    expect(&new, next..old.image_size(), None)
}

/// Whether all of `range` has the mapping `source` in `new`.
fn expect(new: &Qcow2Image, range: Range<u64>, source: Option<Source>) -> Result<(), InPlaceError> {
    let mut at = range.start;
    while at < range.end {
        let extent = new.extent_at(at, range.end - at);
        let extent = extent.map_err(InPlaceError::UnreadableTable)?;
        let wanted = match source {
            Some(Source::Data(host)) => {
                GuestExtentKind::Data { host_offset: host + (at - range.start) }
            }
            Some(Source::Zero) => GuestExtentKind::Zero,
            None => GuestExtentKind::Unallocated,
        };
        if extent.kind != wanted {
            return Err(InPlaceError::Differ { at });
        }
        at += extent.len;
    }
    Ok(())
}

/// A file as it will read once its first sector is written.
#[derive(Debug)]
struct WithSector {
    storage: Arc<dyn Storage>,
    sector: Sector,
}

impl Storage for WithSector {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.storage.read_at(buf, offset)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(SECTOR);
        let changed = &self.sector[from..];
        for (byte, new) in buf.iter_mut().zip(changed) {
            *byte = *new;
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _: Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn punch_hole(&self, _: Range<u64>) -> io::Result<bool> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.storage.run_at(at)
    }

    fn growth(&self) -> Growth {
        self.storage.growth()
    }

    fn lock(&self, _: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}
