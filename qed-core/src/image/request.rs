//! One request to a writable image: plan here, perform anywhere, commit here.
//!
//! The caller may do the data I/O itself. While a [`Request`] lives, the host offsets it gave out
//! stay what they are.

use std::io::IoSlice;
use std::ops::{Deref, Range};

use qed_spec::{GuestOffset, HostOffset, L2Entry};

use crate::change::Change;
use crate::data::cow::Edge;
use crate::error::ImageError;
use crate::image::Image;
use crate::map::mapping::{Extent, ExtentKind};
use crate::space::alloc::HostRun;
use crate::space::claims::{Claim, Claims, Wait};
use crate::space::guards::{Drain, RequestGuard};

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

/// New clusters for a range of the guest, claimed by one write and visible to nobody.
///
/// Dropping it gives the clusters back; no I/O of the caller on them may be under way then. Other
/// allocating writes to the same guest clusters wait until it is committed or dropped. It is part
/// of its request, and may outlive the [`Request`] that it came from.
#[derive(Debug)]
pub struct Allocation<I: Deref<Target = Image>> {
    image: I,
    /// `None` inside this crate, where the request always lives longer.
    guard: Option<RequestGuard<GuardsOf<I>>>,
    #[expect(dead_code, reason = "held until the allocation ends")]
    claim: Claim<ClaimsOf<I>>,
    guest: Range<u64>,
    space: HostRun,
    /// Whether the first and the last cluster were unallocated, for head and tail.
    was_unallocated: [bool; 2],
    /// Head and tail are written, or the caller's to write.
    is_filled: bool,
    committed: bool,
}

/// The request guards of an image, by what holds the image.
#[derive(Debug, Clone)]
struct GuardsOf<I>(I);

impl<I: Deref<Target = Image>> Deref for GuardsOf<I> {
    type Target = Drain;

    fn deref(&self) -> &Drain {
        &self.0.space.guards
    }
}

/// The claims on an image, by what holds the image.
#[derive(Debug, Clone)]
struct ClaimsOf<I>(I);

impl<I: Deref<Target = Image>> Deref for ClaimsOf<I> {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.0.space.claims
    }
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

    /// Finds or allocates a place for the guest bytes `at..at + len`, or for the first part of
    /// them; the caller goes on with the rest.
    ///
    /// Waits while another allocation has one of the clusters, so a thread that keeps an
    /// [`Allocation`] asks [`Request::try_prepare`] for a second: two that wait here could wait for
    /// each other.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`], [`ImageError::WritesStopped`], no space, or a table that cannot
    /// be read or is corrupt. Nothing has changed then.
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
            allocation.guard = Some(self.guard.again());
        }
        prepared
    }

    fn check(&self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        assert!(len > 0, "a write has at least one byte");
        self.image.begin_write()?;
        self.image.view().check_range(at, len)
    }
}

impl Image {
    /// Begins a request whose data I/O the caller does itself.
    ///
    /// While it lives the virtual disk keeps its size and clusters keep their places; waits only
    /// while the disk is being resized. Hold one for a short time, and use no other method of the
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

    /// The clusters of a range as far as the slice of the first goes, to claim them; and how many.
    pub(super) fn to_claim(&self, at: GuestOffset, len: u64) -> (Range<u64>, u64) {
        let map = &self.map;
        let clusters = map.geometry.clusters_for(map.within_cluster(at) + len).get();
        let clusters = clusters.min(map.clusters_left_in_slice(at));
        let first = map.geometry.guest_cluster(at).get();
        (first..first + clusters, clusters)
    }

    /// Allocates the L2 table that maps `at`, unless it exists.
    pub(super) fn ensure_table(&self, at: GuestOffset) -> Result<(), ImageError> {
        self.pending.link(self.map.l1_index(at), &self.map, || {
            let run = self.space.alloc.reserve_fresh(self.map.geometry.table_size_clusters())?;
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

/// Space for the first part of a range, of which so many clusters are claimed; `None` if another
/// write was faster to give it a place.
fn allocate<I: Deref<Target = Image> + Clone>(
    image: &I,
    at: GuestOffset,
    len: u64,
    mut claim: Claim<ClaimsOf<I>>,
    clusters: u64,
) -> Result<Option<Allocation<I>>, ImageError> {
    let map = &image.map;
    image.ensure_table(at)?;
    let (mut first_was, mut last_was) = (None, L2Entry::Unallocated);
    let run = map.entries(at, clusters, |entry| {
        let wanted = !matches!(entry, L2Entry::Data(_));
        if wanted {
            first_was.get_or_insert(entry);
            last_was = entry;
        }
        wanted
    })?;
    let (Some(run), Some(first_was)) = (run, first_was) else {
        return Ok(None);
    };
    let space = image.reserve(at, run)?;
    claim.shorten(space.count);
    let run_len = space.count * map.geometry.cluster_size_bytes() - map.within_cluster(at);
    Ok(Some(Allocation {
        image: image.clone(),
        guard: None,
        claim,
        guest: at.get()..at.get() + run_len.min(len),
        space,
        was_unallocated: [
            first_was == L2Entry::Unallocated,
            // Less than the run is a single cluster, or there is no backing file that could show.
            if space.count == run { last_was } else { first_was } == L2Entry::Unallocated,
        ],
        is_filled: false,
        committed: false,
    }))
}

impl<I: Deref<Target = Image>> Allocation<I> {
    /// The guest bytes to write, as offsets in the virtual disk.
    #[must_use]
    pub fn guest(&self) -> Range<u64> {
        self.guest.clone()
    }

    /// Bytes to write.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.guest.end - self.guest.start
    }

    /// Always false: an allocation has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guest.is_empty()
    }

    /// Where in the image file the first guest byte goes; the others follow it.
    #[must_use]
    pub fn host(&self) -> HostOffset {
        let start = self.image.geometry().host_offset(self.space.first);
        start.checked_add(self.head_len()).expect("reserved space lies below 2^63")
    }

    /// Publishes the clusters: from now on the guest's reads find what was written.
    ///
    /// The guest bytes have been written at [`Allocation::host`]; what they leave of the first and
    /// the last cluster is written here: the backing file's bytes, or zeros. Durable after the next
    /// [`Image::flush`].
    ///
    /// # Errors
    /// Reading the backing file or a table, or writing the rest of the clusters; they are then
    /// given back.
    pub fn commit(mut self) -> Result<(), ImageError> {
        self.image.head.writing().check()?;
        if !self.is_filled {
            for edge in self.edges()? {
                self.image.data.fill(&edge)?;
            }
        }
        let at = GuestOffset::new(self.guest.start);
        Change::allocated(at, self.space, &self.image.data).publish(&self.image.map)?;
        self.committed = true;
        Ok(())
    }

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
        Ok(self.zeros_filled()?.map(|edge| edge.copied()))
    }

    /// Writes the guest bytes with head and tail of their clusters, in one call of the storage.
    pub(super) fn write(&mut self, parts: &mut [IoSlice<'_>]) -> Result<(), ImageError> {
        let edges = self.zeros_filled()?;
        self.image.data.write_with(parts, self.host(), &edges)
    }

    /// Head and tail; where they are zeros that is written, and what is left is the caller's.
    fn zeros_filled(&mut self) -> Result<[Edge; 2], ImageError> {
        let edges = self.edges()?;
        for edge in &edges {
            self.image.data.fill_zeros(edge)?;
        }
        self.is_filled = true;
        Ok(edges)
    }

    /// The head before the guest bytes and the tail behind them.
    fn edges(&self) -> Result<[Edge; 2], ImageError> {
        let (guest, host, head) = (self.guest(), self.host(), self.head_len());
        let cluster = self.image.map.geometry.cluster_size_bytes();
        let tail = guest.end.checked_next_multiple_of(cluster).map_or(0, |end| end - guest.end);
        let edge = |guest, host, len, was_unallocated| {
            let place = (GuestOffset::new(guest), HostOffset::new(host));
            self.image.data.edge(place, len, was_unallocated, self.space.fresh)
        };
        let [first, last] = self.was_unallocated;
        Ok([
            edge(guest.start - head, host.get() - head, head, first)?,
            edge(guest.end, host.get() + self.len(), tail, last)?,
        ])
    }

    /// Bytes of the first cluster before the guest bytes.
    fn head_len(&self) -> u64 {
        self.image.map.within_cluster(GuestOffset::new(self.guest.start))
    }
}

impl<I: Deref<Target = Image>> Drop for Allocation<I> {
    fn drop(&mut self) {
        if !self.committed {
            self.image.space.alloc.give_back(self.space);
        }
    }
}
