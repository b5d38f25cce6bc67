//! Reading an open image, writable or not: the owners that take part, and how they do.

use std::io::IoSliceMut;
use std::sync::Arc;

use qed_io::Storage;
use qed_spec::GuestOffset;

use crate::data::DataPath;
use crate::data::disk::{BackingError, GuestExtent, GuestExtentKind};
use crate::error::ImageError;
use crate::head::Head;
use crate::map::mapping::{Extent, ExtentKind};
use crate::map::tables::Tables;

/// What a read works with.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) head: &'a Head,
    pub(crate) map: &'a Tables,
    pub(crate) data: &'a DataPath,
}

impl<'a> View<'a> {
    pub(crate) fn check_range(self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        let image_size = self.head.image_size();
        match at.checked_add(len) {
            Some(end) if end.get() <= image_size => Ok(()),
            _ => Err(ImageError::out_of_range(at, len, image_size)),
        }
    }

    /// The longest run from `at` with one mapping; the range is checked.
    pub(crate) fn run(self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        if len == 0 {
            return Ok(Extent { len: 0, kind: ExtentKind::Unallocated });
        }
        self.map.run(at, len)
    }

    pub(crate) fn map(self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        self.check_range(at, len)?;
        self.run(at, len)
    }

    /// Fills `buf` with the guest's bytes from `at`.
    // spec: QED-RW-01
    pub(crate) fn read(self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        self.check_range(at, buf.len() as u64)?;
        let (mut rest, mut at) = (buf, at);
        while !rest.is_empty() {
            let extent = self.run(at, rest.len() as u64)?;
            let len = usize::try_from(extent.len).expect("at most the buffer's length");
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            match extent.kind {
                ExtentKind::Data(host) => self.data.read(now, host)?,
                ExtentKind::Zero => now.fill(0),
                ExtentKind::Unallocated => self.data.read_backing(now, at)?,
            }
            at = at.checked_add(extent.len).expect("inside the virtual disk");
            rest = later;
        }
        Ok(())
    }

    /// Fills `bufs`, one after the other, with the guest's bytes from `at`: in one call of the storage
    /// where all of them lie together.
    pub(crate) fn read_vectored(
        self,
        bufs: &mut [IoSliceMut<'_>],
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        let len = total_len(bufs.iter().map(|buf| buf.len()));
        self.check_range(at, len)?;
        let extent = self.run(at, len)?;
        if let ExtentKind::Data(host) = extent.kind
            && extent.len == len
        {
            return self.data.read_vectored(bufs, host);
        }
        let mut at = at;
        for buf in bufs {
            self.read(buf, at)?;
            at = at.checked_add(buf.len() as u64).expect("inside the virtual disk");
        }
        Ok(())
    }

    /// As [`VirtualDisk::extent_at`].
    pub(crate) fn extent_at(self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let max_len = max_len.min(self.head.image_size().saturating_sub(offset));
        let guest = GuestOffset::new(offset);
        let mut extent = self.map(guest, max_len).map_err(|error| at(offset, error))?;
        if extent.kind == ExtentKind::Unallocated {
            extent.len = self.map.unallocated_len(guest, extent.len, max_len);
        }
        let of_this_image = |kind| GuestExtent { len: extent.len, depth: 0, kind };
        let backing = self.data.backing().filter(|backing| offset < backing.len());
        Ok(match (extent.kind, backing) {
            (ExtentKind::Data(host), _) => {
                of_this_image(GuestExtentKind::Data { host_offset: host.get() })
            }
            (ExtentKind::Zero, _) => of_this_image(GuestExtentKind::Zero),
            (ExtentKind::Unallocated, Some(backing)) => {
                let below = backing.extent_at(offset, extent.len)?;
                GuestExtent { depth: below.depth.saturating_add(1), ..below }
            }
            // No backing file, or the end of a shorter one is behind.
            (ExtentKind::Unallocated, None) => of_this_image(GuestExtentKind::Unallocated),
        })
    }

    /// As [`VirtualDisk::data_storage`].
    pub(crate) fn data_storage(self, offset: u64, depth: u32) -> Option<&'a Arc<dyn Storage>> {
        match depth.checked_sub(1) {
            None => self.data.direct(),
            Some(below) => self.data.backing()?.data_storage(offset, below),
        }
    }
}

/// Bytes in several buffers; more than any disk has where the sum overflows.
pub(crate) fn total_len(lens: impl Iterator<Item = usize>) -> u64 {
    lens.fold(0_u64, |sum, len| sum.saturating_add(len as u64))
}

/// The error of a virtual disk.
pub(crate) fn at(offset: u64, error: ImageError) -> BackingError {
    BackingError::new(offset, error.kind(), error)
}
