//! One request to a writable image: plan here, perform anywhere, commit here.
//!
//! The caller may do the data I/O itself. While a [`Request`] lives, the host offsets it gave out
//! stay what they are.

use std::fmt::Debug;
use std::ops::{Deref, Range};
use std::sync::Arc;

use qed_io::{PieceMut, Storage};
use qed_spec::{GuestOffset, HostOffset};

use crate::data::disk::{BackingError, GuestExtent, VirtualDisk};
use crate::error::ImageError;
use crate::image::Image;
use crate::image::allocation::{Allocation, ClaimsOf, GuardsOf, allocate};
use crate::image::view::at as backing_error;
use crate::map::mapping::{Extent, ExtentKind};
use crate::space::claims::{Claim, Wait};
use crate::space::guards::RequestGuard;

/// A request in progress; see [`Image::request`].
///
/// `I` is a reference to the image, or an `Arc` in a request that keeps its image open.
#[derive(Debug)]
pub struct Request<I: Deref<Target = Image>> {
    image: I,
    guard: RequestGuard<GuardsOf<I>>,
}

/// How a write can go on from its first byte.
#[derive(Debug)]
pub enum Prepared<I: Deref<Target = Image>> {
    /// The bytes have a place: write them there, and the write is done.
    InPlace {
        /// Where in the image file.
        host: HostOffset,
        /// Bytes that fit, at least one.
        len: u64,
    },
    /// The bytes get new clusters: write them, then commit.
    Allocating(Allocation<I>),
}

impl<I: Deref<Target = Image> + Clone> Request<I> {
    /// As [`Image::request`], by a reference or an `Arc`.
    #[must_use]
    pub fn new(image: I) -> Self {
        Self { guard: RequestGuard::enter(GuardsOf(image.clone())), image }
    }

    /// As [`Image::try_request`], by a reference or an `Arc`.
    #[must_use]
    pub fn try_new(image: I) -> Option<Self> {
        Some(Self { guard: RequestGuard::try_enter(GuardsOf(image.clone()))?, image })
    }

    /// Maps a range as [`crate::ReadOnlyImage::map`] does; the offsets hold while the request
    /// lives.
    ///
    /// # Errors
    /// As [`crate::ReadOnlyImage::map`].
    pub fn map(&self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        self.image.view().map(at, len)
    }

    /// Reads as [`crate::ReadOnlyImage::read_at`] does.
    ///
    /// # Errors
    /// As [`crate::ReadOnlyImage::read_at`].
    pub fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        self.image.view().read(buf, at)
    }

    /// Keeps the data of a range where it is while the request lives: a compaction passes it by. For a
    /// caller that compares what lies where in the file, as a walk for its holes does.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`].
    pub fn pin(&self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        self.image.view().check_range(at, len)?;
        // Marks that are set from now on wait for this request.
        self.image.space.moves.turn_away(|| self.image.clusters_of(at, len));
        Ok(())
    }

    /// Finds or allocates a place for the guest bytes `at..at + len`, or for the first part of
    /// them; the caller goes on with the rest.
    ///
    /// Waits while another allocation has one of the clusters, so a thread that keeps an
    /// [`Allocation`] asks [`Request::try_prepare`] for a second: two that wait here could wait for
    /// each other.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`], [`ImageError::WritesStopped`], no space, or a table that cannot
    /// be read or is corrupt. Nothing has changed then. Where there is no space, [`Image::sweep`]
    /// without a request may find some, and on a block device may have to before the first.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn prepare(&self, at: GuestOffset, len: u64) -> Result<Prepared<I>, ImageError> {
        self.check(at, len)?;
        let prepared = find_place(&self.image, at, len, Wait::Yes)?;
        Ok(self.part(prepared.expect(WAITED)))
    }

    /// As [`Request::prepare`], but `None` while another allocation has one of the clusters. For a caller that
    /// keeps many requests in flight from one thread.
    ///
    /// # Errors
    /// As [`Request::prepare`].
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn try_prepare(
        &self,
        at: GuestOffset,
        len: u64,
    ) -> Result<Option<Prepared<I>>, ImageError> {
        self.check(at, len)?;
        let prepared = find_place(&self.image, at, len, Wait::No)?;
        Ok(prepared.map(|prepared| self.part(prepared)))
    }

    /// Makes an allocation part of this request.
    fn part(&self, mut prepared: Prepared<I>) -> Prepared<I> {
        if let Prepared::Allocating(allocation) = &mut prepared {
            allocation.hold(self.guard.again());
        }
        prepared
    }

    fn check(&self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        assert!(len > 0, "a write has at least one byte");
        self.image.begin_write()?;
        self.image.view().check_range(at, len)
    }
}

/// The disk as one request sees it: for a walk, which begins no other.
impl<I: Deref<Target = Image> + Debug + Send + Sync> VirtualDisk for Request<I> {
    fn len(&self) -> u64 {
        self.image.image_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let read = self.image.view().read(buf, GuestOffset::new(offset));
        read.map_err(|error| backing_error(offset, error))
    }

    fn read_vectored_at(
        &self,
        pieces: &mut [PieceMut<'_>],
        offset: u64,
    ) -> Result<(), BackingError> {
        let read = self.image.view().read_pieces(pieces, GuestOffset::new(offset));
        read.map_err(|error| backing_error(offset, error))
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        self.image.view().extent_at(offset, max_len)
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        self.image.view().data_storage(offset, depth)
    }
}

impl Image {
    /// Begins a request whose data I/O the caller does itself.
    ///
    /// While it lives the virtual disk keeps its size, and what it found in a place stays there, whatever
    /// else is discarded or moved; waits only while the image changes its shape. Hold one for a short time, and use no other method of the
    /// image on the same thread meanwhile: a waiting resize goes before new requests.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use qed_core::*;
    /// # use qed_io::{MemoryStorage, Storage};
    /// # use qed_spec::GuestOffset;
    /// # let storage = Arc::new(MemoryStorage::default());
    /// # create(&*storage, &CreateOptions::new(1 << 30))?;
    /// # let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    /// # let image = Image::open(storage.clone(), &context)?;
    /// let data = [7; 512];
    /// let request = image.request();
    /// match request.prepare(GuestOffset::new(4096), 512)? {
    ///     Prepared::InPlace { host, .. } => storage.write_at(&data, host.get())?,
    ///     Prepared::Allocating(allocation) => {
    ///         storage.write_at(&data, allocation.host().get())?;
    ///         allocation.commit()?;
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn request(&self) -> Request<&Self> {
        Request::new(self)
    }

    /// As [`Image::request`], but none while the image changes its size or a change waits for
    /// requests to end. For a caller that keeps many requests in flight from one thread.
    #[must_use]
    pub fn try_request(&self) -> Option<Request<&Self>> {
        Request::try_new(self)
    }

    /// As [`Request::prepare`], for a caller that has checked the range and holds a request.
    pub(super) fn prepare(&self, at: GuestOffset, len: u64) -> Result<Prepared<&Self>, ImageError> {
        Ok(find_place(&self, at, len, Wait::Yes)?.expect(WAITED))
    }

    /// The clusters of a range.
    pub(super) fn clusters_of(&self, at: GuestOffset, len: u64) -> Range<u64> {
        let geometry = self.map.geometry;
        let first = geometry.guest_cluster(at).get();
        first..first + geometry.clusters_for(self.map.within_cluster(at) + len).get()
    }

    /// The clusters of a range as far as the slice of the first goes, to claim them; and how many.
    pub(super) fn to_claim(&self, at: GuestOffset, len: u64) -> (Range<u64>, u64) {
        let Range { start, end } = self.clusters_of(at, len);
        let clusters = (end - start).min(self.map.clusters_left_in_slice(at));
        (start..start + clusters, clusters)
    }

    /// Allocates the L2 table that maps `at`, unless it exists.
    pub(super) fn ensure_table(&self, at: GuestOffset) -> Result<(), ImageError> {
        self.pending.link(self.map.l1_index(at), &self.map, || {
            let run = self.space.reserve_table(self.map.geometry.table_size_clusters())?;
            self.space.owner.is_table(self.map.geometry.host_offset(run.first));
            Ok(run)
        })
    }
}

const WAITED: &str = "a claim that is waited for is made";

/// As [`Request::prepare`], for a caller that has checked the range and holds a request; `None` if the
/// clusters are claimed and that is not waited for.
fn find_place<I: Deref<Target = Image> + Clone>(
    image: &I,
    at: GuestOffset,
    len: u64,
    wait: Wait,
) -> Result<Option<Prepared<I>>, ImageError> {
    loop {
        image.space.moves.turn_away(|| image.clusters_of(at, len));
        let extent = image.map.run(at, len)?;
        if let ExtentKind::Data(host) = extent.kind {
            return Ok(Some(Prepared::InPlace { host, len: extent.len }));
        }
        let (range, clusters) = image.to_claim(at, len);
        let Some(claim) = Claim::take(ClaimsOf(image.clone()), range, wait) else {
            return Ok(None);
        };
        if let Some(allocation) = allocate(image, at, len, claim, clusters)? {
            return Ok(Some(Prepared::Allocating(allocation)));
        }
    }
}
