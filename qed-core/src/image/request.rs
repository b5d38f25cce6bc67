//! One request to a writable image: plan here, perform anywhere, commit here.
//!
//! The caller may do the data I/O itself. While a [`Request`] lives, the host offsets it gave out
//! stay what they are.

use std::ops::{Deref, Range};

use qed_spec::{GuestOffset, HostCluster, HostOffset, L1Entry, L2Entry};

use crate::error::ImageError;
use crate::image::Image;
use crate::map::tables::{Extent, ExtentKind};
use crate::space::alloc::Space;
use crate::space::claims::{Claim, InFlight, Wait};
use crate::space::guards::{Drain, RequestGuard};

/// A request in progress; see [`Image::request`].
///
/// `I` is a reference to the image, or an `Arc` in a request that keeps its image open.
#[derive(Debug)]
pub struct Request<I: Deref<Target = Image>> {
    image: I,
    guard: RequestGuard<DrainOf<I>>,
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
    pub(crate) image: I,
    /// None inside this crate, where the request always lives longer.
    guard: Option<RequestGuard<DrainOf<I>>>,
    #[expect(dead_code, reason = "held until the allocation ends")]
    claim: Claim<ClaimsOf<I>>,
    guest: Range<u64>,
    pub(crate) space: Space,
    /// What the first and the last cluster were, for their fill.
    pub(crate) first_was: L2Entry,
    pub(crate) last_was: L2Entry,
    /// What the guest bytes leave of the clusters is written, or the caller's to write.
    pub(crate) is_filled: bool,
    committed: bool,
}

/// The drain of an image, by what holds the image.
#[derive(Debug, Clone)]
struct DrainOf<I>(I);

impl<I: Deref<Target = Image>> Deref for DrainOf<I> {
    type Target = Drain;

    fn deref(&self) -> &Drain {
        &self.0.view.drain
    }
}

/// The claims on an image, by what holds the image.
#[derive(Debug, Clone)]
struct ClaimsOf<I>(I);

impl<I: Deref<Target = Image>> Deref for ClaimsOf<I> {
    type Target = InFlight;

    fn deref(&self) -> &InFlight {
        &self.0.writer.in_flight
    }
}

impl<I: Deref<Target = Image> + Clone> Request<I> {
    /// As [`Image::request`], by a reference or an `Arc`.
    #[must_use]
    pub fn new(image: I) -> Self {
        Self { guard: RequestGuard::enter(DrainOf(image.clone())), image }
    }

    /// As [`Image::try_request`], by a reference or an `Arc`.
    #[must_use]
    pub fn try_new(image: I) -> Option<Self> {
        Some(Self { guard: RequestGuard::try_enter(DrainOf(image.clone()))?, image })
    }

    /// Maps a range as [`crate::ReadOnlyImage::map`] does; the offsets hold while the request
    /// lives.
    ///
    /// # Errors
    /// As [`crate::ReadOnlyImage::map`].
    pub fn map(&self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        self.image.view.check_range(at, len)?;
        self.image.view.run(at, len)
    }

    /// Reads as [`crate::ReadOnlyImage::read_at`] does.
    ///
    /// # Errors
    /// As [`crate::ReadOnlyImage::read_at`].
    pub fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<(), ImageError> {
        self.image.view.read_in_request(buf, at)
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

    /// As [`Request::prepare`], but none while another allocation has one of the clusters. For who
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
        self.image.view.check_range(at, len)
    }
}

/// As [`Request::prepare`], for a caller that has checked the range and holds a request; none if the
/// clusters are claimed and that is not waited for.
fn find_place<I: Deref<Target = Image> + Clone>(
    image: &I,
    at: GuestOffset,
    len: u64,
    wait: Wait,
) -> Result<Option<Prepared<I>>, ImageError> {
    loop {
        let extent = image.view.tables.run(at, len)?;
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

/// Space for the first part of a range, of which so many clusters are claimed; none if another
/// write was faster to give it a place.
fn allocate<I: Deref<Target = Image> + Clone>(
    image: &I,
    at: GuestOffset,
    len: u64,
    mut claim: Claim<ClaimsOf<I>>,
    clusters: u64,
) -> Result<Option<Allocation<I>>, ImageError> {
    let tables = &image.view.tables;
    image.ensure_table(at)?;
    let (mut first_was, mut last_was) = (None, L2Entry::Unallocated);
    let run = tables.entries(at, clusters, |entry| {
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
    let run_len = space.count * tables.geometry.cluster_size_bytes() - tables.within_cluster(at);
    Ok(Some(Allocation {
        image: image.clone(),
        guard: None,
        claim,
        guest: at.get()..at.get() + run_len.min(len),
        space,
        first_was,
        // Less than the run is a single cluster, or there is no backing file that could show.
        last_was: if space.count == run { last_was } else { first_was },
        is_filled: false,
        committed: false,
    }))
}

const WAITED: &str = "a claim that is waited for is made";

impl Image {
    /// As [`Request::prepare`], for a caller that has checked the range and holds a request.
    pub(crate) fn prepare(&self, at: GuestOffset, len: u64) -> Result<Prepared<&Self>, ImageError> {
        Ok(find_place(&self, at, len, Wait::Yes)?.expect(WAITED))
    }

    /// The clusters of a range as far as the slice of the first goes, to claim them; and how many.
    pub(crate) fn to_claim(&self, at: GuestOffset, len: u64) -> (Range<u64>, u64) {
        let tables = &self.view.tables;
        let clusters = tables.geometry.clusters_for(tables.within_cluster(at) + len).get();
        let clusters = clusters.min(tables.clusters_left_in_slice(at));
        let first = tables.geometry.guest_cluster(at).get();
        (first..first + clusters, clusters)
    }

    /// Allocates the L2 table that maps `at`, unless it exists.
    // spec: QED-TBL-06
    pub(crate) fn ensure_table(&self, at: GuestOffset) -> Result<(), ImageError> {
        let tables = &self.view.tables;
        let l1 = tables.l1_index(at);
        if tables.table(l1)?.is_some() {
            return Ok(());
        }
        let mut pending = self.writer.pending_l1();
        if tables.table(l1)?.is_some() {
            return Ok(());
        }
        let count = tables.geometry.table_size_clusters();
        let space = self.writer.alloc.reserve_fresh(&*tables.storage, count)?;
        let entry = L1Entry::Table(space.first);
        pending.insert(l1.get(), entry.encode(tables.geometry));
        tables.l1.set(l1, entry);
        Ok(())
    }
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
        self.fill()?;
        let first = self.space.first.get();
        let clusters = first..first + self.space.count;
        let entries = clusters
            .map(|number| HostCluster::new(number).map_or(L2Entry::Unallocated, L2Entry::Data));
        // Without a backing file the clusters read as zeros before: a crash that keeps the entry
        // and loses the data shows zeros in fresh space, which is what was there. spec: QED-RW-06
        let data_first = self.image.view.is_backed() || !self.space.fresh;
        self.image.view.tables.publish(GuestOffset::new(self.guest.start), entries, data_first)?;
        self.committed = true;
        Ok(())
    }

    /// Bytes of the first cluster before the guest bytes.
    pub(crate) fn head_len(&self) -> u64 {
        self.image.view.tables.within_cluster(GuestOffset::new(self.guest.start))
    }
}

impl<I: Deref<Target = Image>> Drop for Allocation<I> {
    fn drop(&mut self) {
        if !self.committed {
            self.image.writer.alloc.give_back(self.space);
        }
    }
}
