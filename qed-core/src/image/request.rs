//! One request to a writable image: plan here, perform anywhere, commit here.
//!
//! The caller may do the data I/O itself. While a [`Request`] lives, the host offsets it gave out
//! stay what they are.

use std::ops::Range;

use qed_spec::{GuestOffset, HostCluster, HostOffset, L1Entry, L2Entry};

use crate::error::ImageError;
use crate::image::Image;
use crate::map::tables::{Extent, ExtentKind};
use crate::space::alloc::Space;
use crate::space::claims::{Claim, Wait};
use crate::space::guards::RequestGuard;

/// A request in progress; see [`Image::request`].
#[derive(Debug)]
pub struct Request<'a> {
    image: &'a Image,
    guard: RequestGuard<'a>,
}

/// How a write can go on from its first byte.
#[derive(Debug)]
pub enum Prepared<'a> {
    /// The bytes have a place: write them there, and the write is done.
    InPlace {
        /// Where in the image file.
        host: HostOffset,
        /// Bytes that fit, at least one.
        len: u64,
    },
    /// The bytes get new clusters: write them, then commit.
    Allocating(Allocation<'a>),
}

/// New clusters for a range of the guest, claimed by one write and visible to nobody.
///
/// Dropping it gives the clusters back; no I/O of the caller on them may be under way then. Other
/// allocating writes to the same guest clusters wait until it is committed or dropped. It is part
/// of its request, and may outlive the [`Request`] that it came from.
#[derive(Debug)]
pub struct Allocation<'a> {
    pub(crate) image: &'a Image,
    /// None inside this crate, where the request always lives longer.
    guard: Option<RequestGuard<'a>>,
    #[expect(dead_code, reason = "held until the allocation ends")]
    claim: Claim<'a>,
    guest: Range<u64>,
    pub(crate) space: Space,
    /// What the first and the last cluster were, for their fill.
    pub(crate) first_was: L2Entry,
    pub(crate) last_was: L2Entry,
    /// What the guest bytes leave of the clusters is written, or the caller's to write.
    pub(crate) is_filled: bool,
    committed: bool,
}

impl<'a> Request<'a> {
    pub(crate) fn new(image: &'a Image) -> Self {
        Self { image, guard: image.view.drain.enter() }
    }

    pub(crate) fn try_new(image: &'a Image) -> Option<Self> {
        Some(Self { image, guard: image.view.drain.try_enter()? })
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
    pub fn prepare(&self, at: GuestOffset, len: u64) -> Result<Prepared<'a>, ImageError> {
        self.check(at, len)?;
        Ok(self.part(self.image.prepare(at, len)?))
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
    ) -> Result<Option<Prepared<'a>>, ImageError> {
        self.check(at, len)?;
        let prepared = self.image.find_place(at, len, Wait::No)?;
        Ok(prepared.map(|prepared| self.part(prepared)))
    }

    /// Makes an allocation part of this request.
    fn part(&self, mut prepared: Prepared<'a>) -> Prepared<'a> {
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

impl Image {
    /// As [`Request::prepare`], for a caller that has checked the range and holds a request.
    pub(crate) fn prepare(&self, at: GuestOffset, len: u64) -> Result<Prepared<'_>, ImageError> {
        let prepared = self.find_place(at, len, Wait::Yes)?;
        Ok(prepared.expect("a claim that is waited for is made"))
    }

    /// As [`Image::prepare`]; none if the clusters are claimed and that is not waited for.
    fn find_place(
        &self,
        at: GuestOffset,
        len: u64,
        wait: Wait,
    ) -> Result<Option<Prepared<'_>>, ImageError> {
        loop {
            let extent = self.view.tables.run(at, len)?;
            if let ExtentKind::Data(host) = extent.kind {
                return Ok(Some(Prepared::InPlace { host, len: extent.len }));
            }
            let (range, clusters) = self.to_claim(at, len);
            let Some(claim) = self.writer.in_flight.claim(range, wait) else {
                return Ok(None);
            };
            if let Some(allocation) = self.allocate(at, len, claim, clusters)? {
                return Ok(Some(Prepared::Allocating(allocation)));
            }
        }
    }

    /// Space for the first part of a range, of which so many clusters are claimed; none if another
    /// write was faster to give it a place.
    fn allocate<'a>(
        &'a self,
        at: GuestOffset,
        len: u64,
        mut claim: Claim<'a>,
        clusters: u64,
    ) -> Result<Option<Allocation<'a>>, ImageError> {
        let tables = &self.view.tables;
        self.ensure_table(at)?;
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
        let space = self.reserve(at, run)?;
        claim.shorten(space.count);
        let run_len =
            space.count * tables.geometry.cluster_size_bytes() - tables.within_cluster(at);
        Ok(Some(Allocation {
            image: self,
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

impl Allocation<'_> {
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

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.image.writer.alloc.give_back(self.space);
        }
    }
}
