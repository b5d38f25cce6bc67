//! Reads, writes and write-zeroes of the guest, built on [`crate::Request`].

use std::sync::Arc;

use qed_io::{Piece, PieceMut, Storage, pieces_len, with_part};
use qed_spec::{GuestOffset, L2Entry};

use crate::change::Change;
use crate::data::ZEROS;
use crate::data::disk::{BackingError, GuestExtent, VirtualDisk};
use crate::error::ImageError;
use crate::image::Image;
use crate::image::request::Prepared;
use crate::image::view::{View, at as backing_error};
use crate::map::mapping::{Extent, ExtentKind};
use crate::options::DiscardMode;
use crate::space::claims::{Claim, Wait};

/// What a write-zeroes makes of whole clusters that are not allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroMode {
    /// Zero clusters where the backing file could show through; elsewhere they read as zeros already.
    IfNeeded,
    /// Zero clusters always: they read as zeros whatever backing file the image has later.
    Explicit,
    /// As [`ZeroMode::IfNeeded`], and whole clusters that are allocated give up their space, unless
    /// discards are ignored.
    Unmap,
}

impl Image {
    /// Maps the longest run of guest bytes from `at` that one mapping of this image serves, at
    /// most `len` bytes; see [`crate::ReadOnlyImage::map`]. A host offset stays valid until the guest
    /// discards the bytes, a compaction moves them or the virtual disk shrinks: [`Image::request`]
    /// keeps what it found from being given to other bytes.
    ///
    /// # Errors
    /// As [`crate::ReadOnlyImage::map`].
    // spec: QED-MAP-01
    pub fn map(&self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        let _request = self.space.guards.enter();
        self.view().map(at, len)
    }

    /// Fills `buf` with the guest's bytes from `at`, through the backing chain.
    ///
    /// # Errors
    /// As [`crate::ReadOnlyImage::read_at`].
    // spec: QED-RW-01
    pub fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        let _request = self.space.guards.enter();
        self.view().read(buf, at)
    }

    /// As [`Image::read_at`], into several pieces one after the other, which may lie in memory that others
    /// use.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub fn read_vectored_at(
        &self,
        pieces: &mut [PieceMut<'_>],
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        let _request = self.space.guards.enter();
        self.view().read_pieces(pieces, at)
    }

    /// Writes `buf` to the virtual disk at `at`, allocating clusters as needed.
    ///
    /// Visible to every read that starts after it returns; durable after the next
    /// [`Image::flush`]. Allocating writes to different clusters run in parallel.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`] unless the whole range lies inside the virtual disk,
    /// [`ImageError::WritesStopped`] after a failed flush, [`ImageError::Closed`], no space, errors of
    /// tables, data and backing file. Part of the range may then hold the new bytes.
    // spec: QED-RW-02
    pub fn write_at(&self, buf: &[u8], at: GuestOffset) -> Result<(), ImageError> {
        self.write_vectored_at(&[Piece::Own(buf)], at)
    }

    /// As [`Image::write_at`], from several pieces one after the other, which may lie in memory that others
    /// use: they go to the storage in as few calls as the mapping allows.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn write_vectored_at(
        &self,
        pieces: &[Piece<'_>],
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        let mut done = 0;
        let written = self.write_from(pieces, &mut done, at);
        match written {
            // Outside of the request, which a sweep waits for.
            Err(error) if self.finds_space(&error) => self.write_from(pieces, &mut done, at),
            written => written,
        }
    }

    /// Makes `len` bytes of the virtual disk from `at` read as zeros; `mode` says what becomes of whole
    /// clusters. Else allocated bytes are zeroed in place. Durable after the next
    /// [`Image::flush`].
    ///
    /// # Errors
    /// As [`Image::write_at`].
    // spec: QED-RW-03
    pub fn write_zeroes(
        &self,
        at: GuestOffset,
        len: u64,
        mode: ZeroMode,
    ) -> Result<(), ImageError> {
        self.view().check_range(at, len)?;
        let mode = match (mode, self.space.mode) {
            (ZeroMode::Unmap, DiscardMode::Ignore) => ZeroMode::IfNeeded,
            _ => mode,
        };
        let (mut at, mut left) = (at, len);
        while left > 0 {
            let done = match self.zero_step(at, left, mode) {
                Err(error) if self.finds_space(&error) => self.zero_step(at, left, mode),
                done => done,
            }?;
            at = at.checked_add(done).expect("inside the virtual disk");
            left -= done;
        }
        Ok(())
    }

    /// A step of a write-zeroes, a request of its own: the range may be the whole disk, and a resize
    /// waits for requests.
    fn zero_step(&self, at: GuestOffset, len: u64, mode: ZeroMode) -> Result<u64, ImageError> {
        let _request = self.request();
        self.view().check_range(at, len)?;
        self.begin_write()?;
        self.zero_some(at, len, self.head.image_size(), mode)
    }

    /// What every step of a write begins with: makes room in the cache when too much is dirty.
    ///
    /// The caller may hold a request and claims: a flush waits for neither.
    pub(super) fn begin_write(&self) -> Result<(), ImageError> {
        self.head.writing().check()?;
        self.durability.make_room(self.cx())
    }

    pub(super) fn view(&self) -> View<'_> {
        View { head: &self.head, map: &self.map, data: &self.data }
    }

    /// Writes what is in `pieces` from byte `done` on, and counts it, to the disk from `at` on.
    fn write_from(
        &self,
        pieces: &[Piece<'_>],
        done: &mut u64,
        at: GuestOffset,
    ) -> Result<(), ImageError> {
        let _request = self.request();
        let len = pieces_len(pieces);
        self.view().check_range(at, len)?;
        while *done < len {
            self.begin_write()?;
            let at = at.checked_add(*done).expect("inside the virtual disk");
            *done += self.write_some(pieces, *done, at)?;
        }
        Ok(())
    }

    /// Writes the first part of what is in `pieces` from byte `from` on; how many bytes.
    fn write_some(
        &self,
        pieces: &[Piece<'_>],
        from: u64,
        at: GuestOffset,
    ) -> Result<u64, ImageError> {
        let len = pieces_len(pieces) - from;
        match self.prepare(at, len)? {
            Prepared::InPlace { host, len } => {
                with_part(pieces, from, len, |part| self.data.write_pieces(part, host))?;
                Ok(len)
            }
            Prepared::Allocating(mut allocation) => {
                let len = allocation.len();
                with_part(pieces, from, len, |part| allocation.write(part))?;
                allocation.commit()?;
                Ok(len)
            }
        }
    }

    /// Zeroes the first part of a range on a disk of `disk_end` bytes; how many bytes.
    pub(super) fn zero_some(
        &self,
        at: GuestOffset,
        len: u64,
        disk_end: u64,
        mode: ZeroMode,
    ) -> Result<u64, ImageError> {
        self.space.moves.turn_away(|| self.clusters_of(at, len));
        let extent = self.view().run(at, len)?;
        match extent.kind {
            ExtentKind::Data(host) => {
                let whole = self.whole_clusters(at, len, disk_end);
                if mode == ZeroMode::Unmap && whole > 0 {
                    return self.unmap_some(at, whole);
                }
                let cluster = self.map.geometry.cluster_size_bytes();
                let len = match mode {
                    // What comes behind a part of a cluster may be whole ones.
                    ZeroMode::Unmap => extent.len.min(cluster - self.map.within_cluster(at)),
                    ZeroMode::IfNeeded | ZeroMode::Explicit => extent.len,
                };
                self.data.write_zeroes(host.get()..host.get() + len)?;
                Ok(len)
            }
            ExtentKind::Zero => Ok(extent.len),
            ExtentKind::Unallocated
                if mode != ZeroMode::Explicit && !self.data.backing_covers(at) =>
            {
                Ok(extent.len)
            }
            ExtentKind::Unallocated => self.zero_unallocated(at, extent.len, disk_end),
        }
    }

    /// Makes the first part of a range of unallocated bytes zeros of this image; how many bytes.
    fn zero_unallocated(
        &self,
        at: GuestOffset,
        len: u64,
        disk_end: u64,
    ) -> Result<u64, ImageError> {
        let cluster = self.map.geometry.cluster_size_bytes();
        let within = self.map.within_cluster(at);
        let whole = self.whole_clusters(at, len, disk_end);
        if whole == 0 {
            let part = len.min(cluster - within).min(ZEROS.len() as u64);
            let part = usize::try_from(part).expect("at most 64 KiB");
            return self.write_some(&[Piece::Own(&ZEROS[..part])], 0, at);
        }
        let (range, clusters) = self.to_claim(at, whole);
        let _claim = Claim::take(&self.space.claims, range, Wait::Yes);
        self.ensure_table(at)?;
        let unallocated = |entry| entry == L2Entry::Unallocated;
        let count = self.map.entries(at, clusters, unallocated)?.unwrap_or(0);
        if count == 0 {
            // Another write was faster: look again.
            return Ok(0);
        }
        Change::zeros(at, count).publish(&self.map, &mut self.room(count)?)?;
        Ok((count * cluster).min(whole))
    }
}

impl Image {
    /// The first bytes of a range that are whole clusters of a disk of `disk_end` bytes: the last may be
    /// partial and still be replaced as a whole.
    fn whole_clusters(&self, at: GuestOffset, len: u64, disk_end: u64) -> u64 {
        match self.map.within_cluster(at) {
            0 if len == disk_end - at.get() => len,
            0 => len - len % self.map.geometry.cluster_size_bytes(),
            _ => 0,
        }
    }
}

impl VirtualDisk for Image {
    fn len(&self) -> u64 {
        self.image_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let read = Self::read_at(self, buf, GuestOffset::new(offset));
        read.map_err(|error| backing_error(offset, error))
    }

    fn read_vectored_at(
        &self,
        pieces: &mut [PieceMut<'_>],
        offset: u64,
    ) -> Result<(), BackingError> {
        let read = Self::read_vectored_at(self, pieces, GuestOffset::new(offset));
        read.map_err(|error| backing_error(offset, error))
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let _request = self.space.guards.enter();
        self.view().extent_at(offset, max_len)
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        self.view().data_storage(offset, depth)
    }
}
