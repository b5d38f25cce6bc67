//! Reservation windows of an open image: space for a request out of them, and what becomes of those that
//! no request came for.

use qed_spec::{Geometry, GuestCluster, GuestOffset, HostCluster, L2Entry};

use crate::change::Change;
use crate::error::ImageError;
use crate::image::Image;
use crate::map::mapping::ExtentKind;
use crate::space::claims::{Claim, Wait};
use crate::space::free::HostRun;
use crate::space::streams::Want;

impl Image {
    /// Space for `count` clusters of the guest from the one at `at`, or for the first of them.
    pub(super) fn reserve(&self, at: GuestOffset, count: u64) -> Result<HostRun, ImageError> {
        let used = |count| self.space.alloc.reserve_used(count);
        let reserve = |count| self.space.reserve_fresh(count);
        // Space that no request comes for is placed as zeros, which a backing file would show through,
        // a cipher would not leave zeros and a device may not hold.
        // spec: QED-DEV-04
        if self.data.is_backed()
            || !self.data.zeros_are_zeros()
            || self.space.alloc.end.is_on_device()
        {
            return used(count)?.map_or_else(|| reserve(count), Ok);
        }
        let geometry = self.map.geometry;
        let end = geometry.clusters_for(self.head.image_size()).get();
        let want = Want { guest: geometry.guest_cluster(at), count, end: GuestCluster::new(end) };
        let is_shared = || self.space.guards.is_shared();
        let may_come = |first, count| self.without_space(first, count);
        self.space.streams.reserve(want, used, is_shared, may_come, reserve)
    }

    /// How many of `count` guest clusters from `first` on have no space yet.
    fn without_space(&self, first: u64, count: u64) -> Result<u64, ImageError> {
        let mut free = 0;
        while free < count {
            let at = offset_of(self.map.geometry, first + free);
            let is_free = |entry| !matches!(entry, L2Entry::Data(_));
            match self.map.entries(at, count - free, is_free)? {
                Some(found) if found > 0 => free += found,
                _ => break,
            }
        }
        Ok(free)
    }

    /// Step "place windows": space that no request came for becomes the data of its guest clusters,
    /// which read as zeros before and after, or where these have data by now, that of others. Nothing is
    /// in flight.
    ///
    /// # Errors
    /// The first that kept space from being placed; the other space is placed.
    pub(super) fn place_windows(&self) -> Result<(), ImageError> {
        let windows = self.space.streams.take_windows().into_iter();
        windows.map(|(guest, host)| self.place(guest, host)).fold(Ok(()), Result::and)
    }

    /// Gives all windows back, and opens none any more: the image gets a backing file, and what was not
    /// written is to show it.
    // spec: QED-BACK-06
    pub(super) fn end_windows(&self) {
        // A sweep that begins on the way would find them.
        let _sweep = self.space.sweep();
        self.space
            .streams
            .end()
            .into_values()
            .for_each(|host| self.space.alloc.free.give_back(one(host)));
    }

    /// Gives all windows back that are open now.
    pub(super) fn give_windows_back(&self) {
        let _sweep = self.space.sweep();
        let windows = self.space.streams.take_windows();
        windows.into_values().for_each(|host| self.space.alloc.free.give_back(one(host)));
    }

    fn place(&self, guest: u64, host: HostCluster) -> Result<(), ImageError> {
        let at = offset_of(self.map.geometry, guest);
        let placed = self
            .next_without_data(at)
            .and_then(|at| at.map_or(Ok(false), |at| self.place_at(at, one(host))));
        if !matches!(placed, Ok(true)) {
            self.space.alloc.free.give_back(one(host));
        }
        placed.map(drop)
    }

    /// Whether space became the data of a cluster: not if another request is about to give it some.
    fn place_at(&self, at: GuestOffset, run: HostRun) -> Result<bool, ImageError> {
        let (range, clusters) = self.to_claim(at, 1);
        let claim = Claim::take(&self.space.claims, range, Wait::No);
        let has_none = |entry| !matches!(entry, L2Entry::Data(_));
        if claim.is_none() || self.map.entries(at, clusters, has_none)? != Some(clusters) {
            return Ok(false);
        }
        // The caller holds what a flush takes.
        let Some(mut room) = self.pending.room(1) else { return Ok(false) };
        Change::placed(at, run).publish(&self.map, &mut room)?;
        Ok(true)
    }

    /// The first cluster from `from`, or else from the start of the disk, that has a table and no data.
    fn next_without_data(&self, from: GuestOffset) -> Result<Option<GuestOffset>, ImageError> {
        let size = self.head.image_size();
        for (mut at, end) in [(from.get(), size), (0, from.get().min(size))] {
            while at < end {
                let place = GuestOffset::new(at);
                let run = self.map.run(place, end - at)?;
                let has_table = || self.map.table(self.map.l1_index(place));
                if !matches!(run.kind, ExtentKind::Data(_)) && has_table()?.is_some() {
                    return Ok(Some(place));
                }
                at += run.len;
            }
        }
        Ok(None)
    }
}

fn one(first: HostCluster) -> HostRun {
    HostRun { first, count: 1, fresh: true }
}

fn offset_of(geometry: Geometry, cluster: u64) -> GuestOffset {
    let offset = geometry.guest_cluster_offset(GuestCluster::new(cluster));
    offset.expect("a cluster of the disk")
}
