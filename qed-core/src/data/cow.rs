//! What a write leaves of the first and the last of its new clusters: the backing file's bytes, or
//! zeros.

use std::io::{self, IoSlice};
use std::ops::{Deref, Range};

use qed_spec::{GuestOffset, HostOffset, L2Entry};

use crate::data::disk::GuestExtentKind;
use crate::error::{ImageError, IoAction};
use crate::image::Image;
use crate::image::read_only::ReadOnlyImage;
use crate::image::request::Allocation;

/// What lies before or behind the guest bytes in their clusters.
#[derive(Debug, Clone, Copy)]
struct Side {
    guest: GuestOffset,
    host: HostOffset,
    len: u64,
    fill: Fill,
}

/// How a side comes to read as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// Fresh space reads as zeros already, and so does the side.
    Nothing,
    Zeros,
    /// By what the backing file has there.
    Copied,
}

impl<I: Deref<Target = Image>> Allocation<I> {
    /// What else has to be written: bytes of the disk right before the guest's and right behind, to
    /// go with them in one write. Either range may be empty. What they hold is what the backing file
    /// has there, as [`crate::read_backing`] reads it.
    ///
    /// For a caller that wants [`Allocation::commit`] neither to read them nor to write: once they
    /// were asked for, these bytes are the caller's to write before it commits.
    ///
    /// # Errors
    /// Mapping the backing file, or zeroing space that is used again.
    pub fn surroundings(&mut self) -> Result<[Range<u64>; 2], ImageError> {
        let sides = self.sides()?;
        for side in &sides {
            if side.fill == Fill::Zeros {
                self.fill_side(side)?;
            }
        }
        self.is_filled = true;
        Ok(sides.map(|side| {
            let start = side.guest.get();
            let len = if side.fill == Fill::Copied { side.len } else { 0 };
            start..start + len
        }))
    }

    /// Writes the guest bytes and what they leave of the clusters, in one call of the storage.
    pub(crate) fn write(&mut self, buf: &[u8]) -> Result<(), ImageError> {
        let [before, behind] = self.surroundings()?;
        let (before, behind) = (self.copied(before)?, self.copied(behind)?);
        let host = HostOffset::new(self.host().get() - before.len() as u64);
        let storage = &*self.image.view.tables.storage;
        let written = if before.is_empty() && behind.is_empty() {
            storage.write_at(buf, host.get())
        } else {
            let mut parts = [&before, buf, &behind].map(IoSlice::new);
            storage.write_vectored_at(&mut parts, host.get())
        };
        written.map_err(ImageError::io(IoAction::WriteData, host))
    }

    /// Writes what the guest bytes leave, unless the caller does.
    // spec: QED-RW-05
    pub(crate) fn fill(&self) -> Result<(), ImageError> {
        if self.is_filled {
            return Ok(());
        }
        self.sides()?.iter().try_for_each(|side| self.fill_side(side))
    }

    fn fill_side(&self, side: &Side) -> Result<(), ImageError> {
        let storage = &*self.image.view.tables.storage;
        let at = side.host.get();
        let written: io::Result<()> = match side.fill {
            Fill::Nothing => Ok(()),
            Fill::Zeros => storage.write_zeroes(at..at + side.len),
            Fill::Copied => {
                let guest = side.guest.get();
                storage.write_at(&self.copied(guest..guest + side.len)?, at)
            }
        };
        written.map_err(ImageError::io(IoAction::WriteData, side.host))
    }

    /// What the backing file has there.
    fn copied(&self, range: Range<u64>) -> Result<Vec<u8>, ImageError> {
        let len = range.end - range.start;
        let mut bytes = vec![0; usize::try_from(len).expect("less than a cluster")];
        self.image.view.read_backing(&mut bytes, GuestOffset::new(range.start))?;
        Ok(bytes)
    }

    /// The sides before and behind the guest bytes.
    fn sides(&self) -> Result<[Side; 2], ImageError> {
        let (guest, host) = (self.guest(), self.host());
        let head = self.head_len();
        let before = HostOffset::new(host.get() - head);
        let behind = HostOffset::new(host.get() + self.len());
        let cluster = self.image.geometry().cluster_size_bytes();
        let tail = guest.end.checked_next_multiple_of(cluster).map_or(0, |end| end - guest.end);
        Ok([
            self.side(guest.start - head, before, head, self.first_was)?,
            self.side(guest.end, behind, tail, self.last_was)?,
        ])
    }

    /// The side of `len` bytes from `guest` on, in a cluster that was as `was` says.
    fn side(
        &self,
        guest: u64,
        host: HostOffset,
        len: u64,
        was: L2Entry,
    ) -> Result<Side, ImageError> {
        let guest = GuestOffset::new(guest);
        let fill = if len == 0 {
            Fill::Nothing
        } else if was == L2Entry::Unallocated && self.image.view.backing_may_show(guest, len)? {
            Fill::Copied
        } else if self.space.fresh {
            Fill::Nothing
        } else {
            Fill::Zeros
        };
        Ok(Side { guest, host, len, fill })
    }
}

impl ReadOnlyImage {
    /// Whether the backing file may hold something else than zeros in `len` bytes from `at`. What it
    /// knows to be zeros need not be read, nor written where zeros are.
    fn backing_may_show(&self, at: GuestOffset, len: u64) -> Result<bool, ImageError> {
        let Some(backing) = self.backing().filter(|backing| at.get() < backing.len()) else {
            return Ok(false);
        };
        let len = len.min(backing.len() - at.get());
        let extent = backing.extent_at(at.get(), len)?;
        let is_zero = matches!(extent.kind, GuestExtentKind::Zero | GuestExtentKind::Unallocated);
        Ok(!is_zero || extent.len < len)
    }
}
