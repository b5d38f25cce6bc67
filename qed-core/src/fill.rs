//! What a write leaves of the first and the last of its new clusters: the backing file's bytes, or
//! zeros.

use std::io::{self, IoSlice};

use qed_spec::{GuestOffset, HostOffset, L2Entry};

use crate::backing::GuestExtentKind;
use crate::error::{ImageError, IoAction};
use crate::read_only::ReadOnlyImage;
use crate::request::Allocation;

/// What lies before or behind the guest bytes in their clusters.
#[derive(Debug)]
struct Side {
    host: HostOffset,
    len: u64,
    fill: Fill,
}

/// How a side comes to read as it did.
#[derive(Debug)]
enum Fill {
    /// Fresh space reads as zeros already, and so does the side.
    Nothing,
    Zeros,
    Bytes(Vec<u8>),
}

impl Allocation<'_> {
    /// What else has to be written: the bytes right before the guest's and those right behind, to
    /// go with them in one write. Either may be empty.
    ///
    /// Reads the backing file. For a caller that wants neither [`Allocation::commit`] to do so nor
    /// to write: once they were asked for, these bytes are the caller's to write before it commits.
    ///
    /// # Errors
    /// Reading the backing file, or zeroing space that is used again.
    pub fn surroundings(&mut self) -> Result<[Vec<u8>; 2], ImageError> {
        let [head, tail] = self.sides()?;
        for side in [&head, &tail] {
            if let Fill::Zeros = side.fill {
                self.fill_side(side)?;
            }
        }
        self.is_filled = true;
        Ok([head, tail].map(Side::into_bytes))
    }

    /// Writes the guest bytes and what they leave of the clusters, in one call of the storage.
    pub(crate) fn write(&mut self, buf: &[u8]) -> Result<(), ImageError> {
        let [before, behind] = self.surroundings()?;
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
        let written: io::Result<()> = match &side.fill {
            Fill::Nothing => Ok(()),
            Fill::Zeros => storage.write_zeroes(at..at + side.len),
            Fill::Bytes(bytes) => storage.write_at(bytes, at),
        };
        written.map_err(ImageError::io(IoAction::WriteData, side.host))
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
        let (view, at) = (&self.image.view, GuestOffset::new(guest));
        let fill = if len == 0 {
            Fill::Nothing
        } else if was == L2Entry::Unallocated && view.backing_may_show(at, len)? {
            let mut bytes = vec![0; usize::try_from(len).expect("less than a cluster")];
            view.read_backing(&mut bytes, at)?;
            Fill::Bytes(bytes)
        } else if self.space.fresh {
            Fill::Nothing
        } else {
            Fill::Zeros
        };
        Ok(Side { host, len, fill })
    }
}

impl Side {
    fn into_bytes(self) -> Vec<u8> {
        match self.fill {
            Fill::Bytes(bytes) => bytes,
            Fill::Nothing | Fill::Zeros => Vec::new(),
        }
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
