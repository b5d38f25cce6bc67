//! Reading an open image, writable or not: the owners that take part, and how they do.

use std::sync::Arc;

use qed_io::{PieceMut, Storage, pieces_mut_len, with_part_mut};
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
    #[inline]
    pub(crate) fn check_range(self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        let image_size = self.head.image_size();
        match at.checked_add(len) {
            Some(end) if end.get() <= image_size => Ok(()),
            _ => Err(ImageError::out_of_range(at, len, image_size)),
        }
    }

    /// The longest run from `at` with one mapping; the range is checked.
    #[inline]
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
    pub(crate) fn read(self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        self.read_pieces(&mut [PieceMut::Own(buf)], at)
    }

    /// Fills `pieces`, one after the other, with the guest's bytes from `at`: what lies together in the
    /// file in one call of the storage.
    // spec: QED-RW-01
    #[inline(always)]
    pub(crate) fn read_pieces(
        self,
        pieces: &mut [PieceMut<'_>],
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        let len = pieces_mut_len(pieces);
        self.check_range(at, len)?;
        let extent = self.run(at, len)?;
        if extent.len == len {
            return self.read_extent(pieces, at, extent);
        }
        self.read_extents(pieces, at, extent)
    }

    /// As [`View::read_pieces`], of which `extent` is the first part.
    #[inline(never)]
    fn read_extents(
        self,
        pieces: &mut [PieceMut<'_>],
        at: GuestOffset,
        mut extent: Extent,
    ) -> Result<(), ImageError> {
        let (len, mut done) = (pieces_mut_len(pieces), 0);
        loop {
            let here = at.checked_add(done).expect("inside the virtual disk");
            let read = |part: &mut [PieceMut<'_>]| self.read_extent(part, here, extent);
            with_part_mut(pieces, done, extent.len, read)?;
            done += extent.len;
            if done == len {
                return Ok(());
            }
            let here = at.checked_add(done).expect("inside the virtual disk");
            extent = self.run(here, len - done)?;
        }
    }

    /// Fills the pieces with what an extent at `at` has.
    #[inline(always)]
    fn read_extent(
        self,
        pieces: &mut [PieceMut<'_>],
        at: GuestOffset,
        extent: Extent,
    ) -> Result<(), ImageError> {
        match extent.kind {
            ExtentKind::Data(host) => self.data.read_pieces(pieces, host)?,
            ExtentKind::Zero => pieces.iter_mut().for_each(PieceMut::fill_zeroes),
            ExtentKind::Unallocated => self.data.read_backing(pieces, at)?,
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

/// The error of a virtual disk.
pub(crate) fn at(offset: u64, error: ImageError) -> BackingError {
    BackingError::new(offset, error.kind(), error)
}
