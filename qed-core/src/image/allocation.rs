//! New clusters of one allocating write: claimed and reserved, written by the image or by the caller, then
//! committed or given back.

use std::ops::{Deref, Range};

use qed_io::Piece;
use qed_spec::{GuestOffset, HostOffset, L2Entry};

use crate::change::Change;
use crate::data::cow::Edge;
use crate::error::ImageError;
use crate::image::Image;
use crate::space::claims::{Claim, Claims};
use crate::space::free::HostRun;
use crate::space::guards::{Drain, RequestGuard};

/// New clusters for a range of the guest, claimed by one write and visible to nobody.
///
/// Dropping it gives the clusters back; no I/O of the caller on them may be under way then. Other
/// allocating writes to the same guest clusters wait until it is committed or dropped. It is part
/// of its request, and may outlive the [`crate::Request`] that it came from.
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
pub(super) struct GuardsOf<I>(pub(super) I);

impl<I: Deref<Target = Image>> Deref for GuardsOf<I> {
    type Target = Drain;

    fn deref(&self) -> &Drain {
        &self.0.space.guards
    }
}

/// The claims on an image, by what holds the image.
#[derive(Debug, Clone)]
pub(super) struct ClaimsOf<I>(pub(super) I);

impl<I: Deref<Target = Image>> Deref for ClaimsOf<I> {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.0.space.claims
    }
}

/// Space for the first part of a range, of which so many clusters are claimed; `None` if another
/// write was faster to give it a place.
pub(super) fn allocate<I: Deref<Target = Image> + Clone>(
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
    /// Makes it part of the request that has this guard.
    pub(super) fn hold(&mut self, guard: RequestGuard<GuardsOf<I>>) {
        self.guard = Some(guard);
    }

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
        let change = Change::allocated(at, self.space, &self.image.data);
        change.publish(&self.image.map, &mut self.image.room(self.space.count)?)?;
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
        let edges = self.edges()?;
        for edge in &edges {
            self.image.data.fill_zeros(edge)?;
        }
        self.is_filled = true;
        Ok(edges.map(|edge| edge.copied()))
    }

    /// Writes the guest bytes with head and tail of their clusters, in one call of the storage.
    pub(super) fn write(&mut self, pieces: &[Piece<'_>]) -> Result<(), ImageError> {
        let edges = self.edges()?;
        self.is_filled = true;
        self.image.data.write_with(pieces, self.host(), &edges)
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
            self.image.space.alloc.free.give_back(self.space);
        }
    }
}
