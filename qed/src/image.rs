//! An open image, by offsets that are numbers.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use qed_core::{GuestExtent, ReadOnlyImage, Shrink, SpaceUsage, VirtualDisk, ZeroMode};
use qed_io::{ImageLock, Piece, PieceMut};
use qed_spec::GuestOffset;

use crate::error::Error;
use crate::options::Options;

/// An open image: any thread may call any of these at any time, and clones are the same image.
///
/// Offsets and lengths are bytes of the virtual disk. What was written is durable after the next
/// [`Image::flush`]; the last clone that is dropped closes the image, but cannot say what failed.
#[derive(Debug, Clone)]
pub struct Image {
    open: Open,
    /// The lock was taken when the image was opened; else the caller has it.
    owns_lock: bool,
}

#[derive(Debug, Clone)]
enum Open {
    ForReading(Arc<ReadOnlyImage>),
    ForWriting(Arc<qed_core::Image>),
}

impl Image {
    /// What there is to state before an image is created or opened.
    pub fn options<'a>() -> Options<'a> {
        Options::new()
    }

    pub(crate) fn for_reading(image: ReadOnlyImage) -> Self {
        Self { open: Open::ForReading(Arc::new(image)), owns_lock: false }
    }

    pub(crate) fn for_writing(image: qed_core::Image) -> Self {
        Self { open: Open::ForWriting(Arc::new(image)), owns_lock: false }
    }

    /// The same image, whose lock is given back when it is closed.
    pub(crate) fn with_lock(self, owns_lock: bool) -> Self {
        Self { owns_lock, ..self }
    }

    /// Bytes of the virtual disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.disk().len()
    }

    /// Fills `buf` from byte `at`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] past the end of the disk; else what kept the bytes from being
    /// read.
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> Result<(), Error> {
        let at = GuestOffset::new(at);
        Ok(match &self.open {
            Open::ForReading(image) => image.read_at(buf, at),
            Open::ForWriting(image) => image.read_at(buf, at),
        }?)
    }

    /// Fills the buffers one after the other from byte `at`.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], at: u64) -> Result<(), Error> {
        let at = GuestOffset::new(at);
        let mut pieces: Vec<_> = bufs.iter_mut().map(|buf| PieceMut::Own(buf)).collect();
        Ok(match &self.open {
            Open::ForReading(image) => image.read_vectored_at(&mut pieces, at),
            Open::ForWriting(image) => image.read_vectored_at(&mut pieces, at),
        }?)
    }

    /// Writes `buf` to byte `at`; every read that starts after it returns finds the bytes.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; as [`Image::read_at`]; no space. Part of the bytes may then be written.
    pub fn write_at(&self, buf: &[u8], at: u64) -> Result<(), Error> {
        Ok(self.writable()?.write_at(buf, GuestOffset::new(at))?)
    }

    /// Writes the buffers one after the other from byte `at`.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn write_vectored_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), Error> {
        let pieces: Vec<_> = bufs.iter().map(|buf| Piece::Own(buf)).collect();
        Ok(self.writable()?.write_vectored_at(&pieces, GuestOffset::new(at))?)
    }

    /// Makes `len` bytes from `at` read as zeros.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn write_zeroes(&self, at: u64, len: u64) -> Result<(), Error> {
        Ok(self.writable()?.write_zeroes(GuestOffset::new(at), len, ZeroMode::IfNeeded)?)
    }

    /// Says that nobody wants `len` bytes from `at` any more: whole clusters give up their space as
    /// [`Options::discard`] has it and read as zeros, parts of clusters keep their bytes.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn discard(&self, at: u64, len: u64) -> Result<(), Error> {
        Ok(self.writable()?.discard(GuestOffset::new(at), len)?)
    }

    /// Where the space of the image stands; `None` if it is open for reading only.
    ///
    /// # Errors
    /// The length of a block device cannot be read.
    pub fn space_usage(&self) -> Result<Option<SpaceUsage>, Error> {
        Ok(self.core().map(|image| image.space_usage()).transpose()?)
    }

    /// Makes every write durable that completed before; nothing is to be done for an image that is
    /// open for reading.
    ///
    /// # Errors
    /// What the system says; no more writes are taken then ([`crate::ErrorKind::ReadOnly`]).
    pub fn flush(&self) -> Result<(), Error> {
        Ok(self.core().map_or(Ok(()), |image| image.flush())?)
    }

    /// Does what is due at `now` while nobody waits for it; the time when the next is due, or none.
    ///
    /// # Errors
    /// As [`Image::flush`].
    pub fn maintain(&self, now: Instant) -> Result<Option<Instant>, Error> {
        Ok(self.core().map_or(Ok(None), |image| image.maintain(now))?)
    }

    /// Flushes, marks the image as closed, and gives its lock back: others may open it. What is written
    /// or flushed afterwards, by a clone or a thread that was at it, fails.
    ///
    /// The lock stays until the last clone is dropped where a request is in flight at this moment, since
    /// that may still touch the file, and where the caller had locked the storage.
    ///
    /// # Errors
    /// As [`Image::flush`]. The image stays open then, and closing can be tried again.
    pub fn close(&self) -> Result<(), Error> {
        let (storage, is_idle) = match &self.open {
            Open::ForReading(image) => (image.storage(), true),
            Open::ForWriting(image) => {
                image.close()?;
                (image.storage(), !image.has_requests())
            }
        };
        if self.owns_lock && is_idle {
            // A lock that cannot be given back ends with the file.
            let _ = storage.lock(ImageLock::NONE);
        }
        Ok(())
    }

    /// Changes the size of the virtual disk to `size` bytes, a multiple of 512.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Refused`] if that would cut and `shrink` does not allow it; else as
    /// [`Image::write_at`].
    pub fn resize(&self, size: u64, shrink: Shrink) -> Result<(), Error> {
        Ok(self.writable()?.resize(size, shrink)?)
    }

    /// The longest run from `at` with one mapping, at most `max_len` bytes; empty at the end of the
    /// disk. Asking again from where it ends walks the disk.
    ///
    /// # Errors
    /// What kept the tables from being read.
    pub fn extent_at(&self, at: u64, max_len: u64) -> Result<GuestExtent, Error> {
        Ok(self.disk().extent_at(at, max_len)?)
    }

    /// The virtual disk for reading, as a backing file of others, or as the source of a conversion.
    #[must_use]
    pub fn disk(&self) -> &dyn VirtualDisk {
        match &self.open {
            Open::ForReading(image) => &**image,
            Open::ForWriting(image) => &**image,
        }
    }

    /// The image itself, for a caller that does its data I/O: `qed_core::Request`, or `qed-engine`. `None`
    /// if it is open for reading only.
    #[must_use]
    pub fn core(&self) -> Option<&Arc<qed_core::Image>> {
        match &self.open {
            Open::ForReading(_) => None,
            Open::ForWriting(image) => Some(image),
        }
    }

    fn writable(&self) -> Result<&Arc<qed_core::Image>, Error> {
        self.core().ok_or(Error::ReadOnly)
    }
}
