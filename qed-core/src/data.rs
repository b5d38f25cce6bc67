//! The one door for guest bytes: what the guest reads and writes goes to the storage here, and nowhere
//! else. Knows host offsets and the backing file; which mapping a range has, and which order its entries
//! keep, is others'.

pub(crate) mod cow;
pub(crate) mod disk;
pub(crate) mod raw;
pub(crate) mod transform;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qed_io::{Piece, PieceMut, Storage, StorageRun, fill_pieces, show_pieces};
use qed_spec::{GuestOffset, HostOffset};

use crate::data::disk::{GuestExtentKind, VirtualDisk, read_backing_pieces};
use crate::data::transform::Transform;
use crate::error::{ImageError, IoAction};

/// Zeros of the guest, to be written where the file has none of them.
pub(crate) static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The guest bytes of an image and of its backing file.
#[derive(Debug)]
pub(crate) struct DataPath {
    storage: Arc<dyn Storage>,
    transform: Transform,
    backing: Option<Arc<dyn VirtualDisk>>,
    /// A backing file is open, or the header names one that the next open may find.
    is_backed: AtomicBool,
}

impl DataPath {
    /// The bytes in `storage`, over `backing`; `is_named` says that the header names a backing file,
    /// which may not be open.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        backing: Option<Arc<dyn VirtualDisk>>,
        is_named: bool,
    ) -> Self {
        let is_backed = AtomicBool::new(is_named || backing.is_some());
        Self { storage, transform: Transform::of_new_image(), backing, is_backed }
    }

    /// Reads the bytes that are stored from `host` on.
    pub(crate) fn read(&self, buf: &mut [u8], host: HostOffset) -> Result<(), ImageError> {
        let read = self.storage.read_at(buf, host.get());
        read.map_err(ImageError::io(IoAction::ReadData, host))?;
        self.transform.decode(buf, host.get());
        Ok(())
    }

    /// As [`DataPath::read`], into several pieces one after the other.
    #[inline]
    pub(crate) fn read_pieces(
        &self,
        pieces: &mut [PieceMut<'_>],
        host: HostOffset,
    ) -> Result<(), ImageError> {
        match pieces {
            [PieceMut::Own(buf)] => self.read(buf, host),
            _ if !self.transform.is_plain() => {
                fill_pieces(pieces, host.get(), |buf, at| self.read(buf, HostOffset::new(at)))
            }
            _ => {
                let read = self.storage.read_vectored_at(pieces, host.get());
                read.map_err(ImageError::io(IoAction::ReadData, host))
            }
        }
    }

    /// Writes bytes to `host` and behind.
    pub(crate) fn write(&self, buf: &[u8], host: HostOffset) -> Result<(), ImageError> {
        let written = self.storage.write_at(&self.transform.encode(buf, host.get()), host.get());
        written.map_err(ImageError::io(IoAction::WriteData, host))
    }

    /// As [`DataPath::write`], from several pieces one after the other.
    #[inline]
    pub(crate) fn write_pieces(
        &self,
        pieces: &[Piece<'_>],
        host: HostOffset,
    ) -> Result<(), ImageError> {
        match pieces {
            [Piece::Own(buf)] => self.write(buf, host),
            _ if !self.transform.is_plain() => {
                show_pieces(pieces, host.get(), |buf, at| self.write(buf, HostOffset::new(at)))
            }
            _ => {
                let written = self.storage.write_vectored_at(pieces, host.get());
                written.map_err(ImageError::io(IoAction::WriteData, host))
            }
        }
    }

    /// Makes bytes of the file read as zeros of the guest.
    pub(crate) fn write_zeroes(&self, range: Range<u64>) -> Result<(), ImageError> {
        if !self.transform.is_plain() {
            return range.clone().step_by(ZEROS.len()).try_for_each(|at| {
                let len = (range.end - at).min(ZEROS.len() as u64);
                let len = usize::try_from(len).expect("at most 64 KiB");
                self.write(&ZEROS[..len], HostOffset::new(at))
            });
        }
        let fault = ImageError::io(IoAction::WriteData, HostOffset::new(range.start));
        self.storage.write_zeroes(range).map_err(fault)
    }

    /// What the storage knows of the bytes from `host` on.
    pub(crate) fn run_at(&self, host: HostOffset) -> Result<StorageRun, ImageError> {
        self.storage.run_at(host.get()).map_err(ImageError::io(IoAction::ReadData, host))
    }

    /// Whether zeros in the file are zeros of the guest: fresh space then needs no bytes to read as
    /// zeros, which decides copy-on-write, data order and reservation windows.
    pub(crate) fn zeros_are_zeros(&self) -> bool {
        self.transform.is_plain()
    }

    /// The storage in which host offsets hold the guest's bytes as they are, for a caller that reads and
    /// writes them there itself; `None` where only this door may.
    pub(crate) fn direct(&self) -> Option<&Arc<dyn Storage>> {
        self.transform.is_plain().then_some(&self.storage)
    }

    /// The backing file that is open.
    pub(crate) fn backing(&self) -> Option<&Arc<dyn VirtualDisk>> {
        self.backing.as_ref()
    }

    /// Whether what is unallocated may read as something else than zeros, now or when the image is
    /// opened again.
    pub(crate) fn is_backed(&self) -> bool {
        self.is_backed.load(Ordering::Acquire)
    }

    /// The same, for a step that asks when it comes to it.
    pub(crate) fn is_backed_flag(&self) -> &AtomicBool {
        &self.is_backed
    }

    /// The header is about to name a backing file.
    pub(crate) fn will_be_backed(&self) {
        self.is_backed.store(true, Ordering::Release);
    }

    /// Whether an unallocated byte at or after `at` may read as something else than zero.
    pub(crate) fn backing_covers(&self, at: GuestOffset) -> bool {
        self.backing.as_ref().is_some_and(|backing| at.get() < backing.len())
    }

    /// Whether the backing file may hold something else than zeros in `len` bytes from `at`. What it
    /// knows to be zeros need not be read, nor written where zeros are.
    pub(crate) fn backing_may_show(&self, at: GuestOffset, len: u64) -> Result<bool, ImageError> {
        let Some(backing) = self.backing.as_ref().filter(|backing| at.get() < backing.len()) else {
            return Ok(false);
        };
        let len = len.min(backing.len() - at.get());
        let extent = backing.extent_at(at.get(), len)?;
        let is_zero = matches!(extent.kind, GuestExtentKind::Zero | GuestExtentKind::Unallocated);
        Ok(!is_zero || extent.len < len)
    }

    /// Reads what shows where the image has nothing.
    pub(crate) fn read_backing(
        &self,
        pieces: &mut [PieceMut<'_>],
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        Ok(read_backing_pieces(self.backing.as_deref(), pieces, at.get())?)
    }
}
