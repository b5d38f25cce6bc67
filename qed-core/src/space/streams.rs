//! Keeps what is written in order in order: several requests that go through the disk together ask
//! for space in any order, and what lies side by side for the guest is to lie side by side in the file.
//!
//! A request that is a little ahead of such a run takes the space of those between as well and keeps
//! it for them; one whose run takes turns with another run takes some more, for those that follow. Kept
//! space is fresh, and named by nothing. What nobody came for is given to its guest clusters, as the
//! zeros that they read as, before the image is closed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qed_spec::{Geometry, GuestCluster, GuestOffset, HostCluster, L2Entry};

use crate::error::ImageError;
use crate::image::Image;
use crate::map::tables::ExtentKind;
use crate::space::alloc::Space;

/// Runs that are followed at a time.
const RUNS: usize = 8;
/// Bytes that a request may be ahead of its run, or behind.
const NEAR_BYTES: u64 = 4 << 20;
/// Requests that have to go on with a run before anything is kept for it. Random ones rarely do.
const STEADY: u32 = 4;

/// Requests of which it is known what they took.
const RECENT: usize = 256;

/// The runs of an image.
#[derive(Debug)]
pub(crate) struct Runs(Mutex<State>);

#[derive(Debug)]
struct State {
    runs: [Run; RUNS],
    /// The run that was gone on with last.
    last: usize,
    /// The run that was begun last; the one behind it is the next to be forgotten.
    newest: usize,
    /// Guest clusters that have space and have not come yet.
    kept: BTreeMap<u64, HostCluster>,
    /// Guest clusters that were given space lately: first and behind the last. Their entries may not
    /// tell of it yet.
    recent: [(u64, u64); RECENT],
    /// Of `recent`, the one that is replaced next.
    eldest: usize,
    /// There were several requests at a time once. Whoever sends one after the other gets no more than
    /// it asks for.
    is_shared: bool,
    limits: Limits,
}

/// Numbers of clusters.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// That a request may be ahead of its run, or behind.
    near: u64,
    /// That a run takes at once when it takes turns with others.
    turn: u64,
    /// That are kept at a time.
    kept: u64,
}

/// Where a run is.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    /// The guest cluster behind those that have space.
    next: u64,
    requests: u32,
}

/// What a request is to take.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Share {
    run: usize,
    /// Clusters before its own and behind them, for others.
    before: u64,
    behind: u64,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Guest clusters, from the first that needs space.
    pub(crate) guest: GuestCluster,
    pub(crate) count: u64,
    /// The guest cluster behind the last of the disk.
    pub(crate) end: GuestCluster,
}

impl Runs {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let near = (NEAR_BYTES >> geometry.cluster_bits()).clamp(2, 64);
        let limits = Limits { near, turn: near / 2, kept: 4 * near };
        let (runs, kept) = Default::default();
        Self(Mutex::new(State {
            runs,
            last: 0,
            newest: 0,
            kept,
            recent: [(0, 0); RECENT],
            eldest: 0,
            is_shared: false,
            limits,
        }))
    }

    /// Space for what is wished for, or for the first part of it: what is kept, or what `reserve`
    /// makes of a number of clusters. Nothing is kept before `is_shared` says that there are several
    /// requests at a time; `may_come` is asked how many of some guest clusters have
    /// no space.
    pub(crate) fn reserve(
        &self,
        wish: Wish,
        is_shared: impl FnOnce() -> bool,
        may_come: impl Fn(u64, u64) -> Result<u64, ImageError>,
        reserve: impl Fn(u64) -> Result<Space, ImageError>,
    ) -> Result<Space, ImageError> {
        let (guest, count) = (wish.guest.get(), wish.count);
        let mut state = self.state();
        if let Some(space) = state.take(guest, count) {
            state.remember(guest, space.count);
            return Ok(space);
        }
        state.is_shared = state.is_shared || is_shared();
        let mut share = state.share(wish);
        let between = guest - share.before..guest;
        if share.before > 0
            && (state.has_given(&between) || may_come(between.start, share.before)? < share.before)
        {
            share.before = 0;
        }
        let after = guest + count..guest + count + share.behind;
        if share.behind > 0 {
            share.behind =
                if state.has_given(&after) { 0 } else { may_come(after.start, share.behind)? };
        }
        let mut wanted = share.before + count + share.behind;
        let mut space = reserve(wanted);
        if space.is_err() && wanted > count {
            // A request does not fail for the sake of others.
            (share.before, share.behind, wanted) = (0, 0, count);
            space = reserve(count);
        }
        let space = space?;
        // What was used before lies anywhere.
        let space = if space.count < wanted {
            Space { count: space.count.min(count), ..space }
        } else {
            state.divide(share, guest, count, space)
        };
        state.remember(guest, space.count);
        Ok(space)
    }

    /// All that is kept: guest clusters and their space.
    fn take_kept(&self) -> BTreeMap<u64, HostCluster> {
        std::mem::take(&mut self.state().kept)
    }

    /// As [`Runs::take_kept`], and nothing is kept from now on.
    fn end(&self) -> BTreeMap<u64, HostCluster> {
        let mut state = self.state();
        state.limits.kept = 0;
        std::mem::take(&mut state.kept)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is kept for the first of `count` clusters from `guest`, and for those after it as far as
    /// it lies behind.
    fn take(&mut self, guest: u64, count: u64) -> Option<Space> {
        let first = self.kept.remove(&guest)?;
        let mut taken = 1;
        let follows = |next: &HostCluster, taken| next.get() == first.get() + taken;
        while taken < count
            && self.kept.get(&(guest + taken)).is_some_and(|next| follows(next, taken))
        {
            self.kept.remove(&(guest + taken));
            taken += 1;
        }
        Some(Space { first, count: taken, fresh: true })
    }

    fn remember(&mut self, guest: u64, count: u64) {
        self.recent[self.eldest] = (guest, guest + count);
        self.eldest = (self.eldest + 1) % RECENT;
    }

    /// Whether one of the clusters has space that is kept, or that no entry may tell of yet.
    fn has_given(&self, clusters: &Range<u64>) -> bool {
        let overlaps = |(start, end): &(u64, u64)| *start < clusters.end && clusters.start < *end;
        self.kept.range(clusters.clone()).next().is_some() || self.recent.iter().any(overlaps)
    }

    /// Goes on with the run that the request belongs to, or begins one.
    fn share(&mut self, wish: Wish) -> Share {
        let (guest, limits) = (wish.guest.get(), self.limits);
        let behind_it = guest + wish.count;
        let near = |run: &Run| run.requests > 0 && run.next.abs_diff(guest) <= limits.near;
        let Some(index) = self.runs.iter().position(near) else {
            self.newest = (self.newest + 1) % RUNS;
            self.last = self.newest;
            self.runs[self.newest] = Run { next: behind_it, requests: 1 };
            return Share::default();
        };
        let takes_turns = std::mem::replace(&mut self.last, index) != index;
        let run = &mut self.runs[index];
        let next = run.next;
        run.next = next.max(behind_it);
        run.requests = run.requests.saturating_add(1);
        let mut share = Share { run: index, ..Share::default() };
        if self.is_shared && run.requests > STEADY && next <= guest {
            let room = limits.kept.saturating_sub(self.kept.len() as u64);
            share.before = (guest - next).min(room);
            if takes_turns {
                let left = wish.end.get().saturating_sub(behind_it);
                share.behind = limits.turn.min(left).min(room - share.before);
            }
        }
        share
    }

    /// Keeps the share of others and moves the run on.
    fn divide(&mut self, share: Share, guest: u64, count: u64, space: Space) -> Space {
        let host = |number| HostCluster::new(number).expect("behind the header's cluster");
        let first = space.first.get() + share.before;
        let mut keep = |guest: u64, from: u64, count: u64| {
            self.kept.extend((0..count).map(|index| (guest + index, host(from + index))));
        };
        keep(guest - share.before, space.first.get(), share.before);
        keep(guest + count, first + count, share.behind);
        if share.behind > 0 {
            self.runs[share.run].next = guest + count + share.behind;
        }
        Space { first: host(first), count, fresh: space.fresh }
    }
}

impl Image {
    /// Space for `count` clusters of the guest from the one at `at`, or for the first of them.
    pub(crate) fn reserve(&self, at: GuestOffset, count: u64) -> Result<Space, ImageError> {
        let (tables, alloc) = (&self.view.tables, &self.writer.alloc);
        let reserve = |count| alloc.reserve(&*tables.storage, count);
        // Over a backing file the zeros of clusters that nobody came for would not be neutral.
        if self.view.is_backed() {
            return reserve(count);
        }
        let geometry = tables.geometry;
        let end = geometry.clusters_for(self.view.image_size()).get();
        let wish = Wish { guest: geometry.guest_cluster(at), count, end: GuestCluster::new(end) };
        let is_shared = || self.view.drain.is_shared();
        let may_come = |first, count| self.without_space(first, count);
        self.writer.runs.reserve(wish, is_shared, may_come, reserve)
    }

    /// How many of `count` guest clusters from `first` on have no space yet.
    fn without_space(&self, first: u64, count: u64) -> Result<u64, ImageError> {
        let tables = &self.view.tables;
        let mut free = 0;
        while free < count {
            let at = offset_of(tables.geometry, first + free);
            let is_free = |entry| !matches!(entry, L2Entry::Data(_));
            match tables.entries(at, count - free, is_free)? {
                Some(found) if found > 0 => free += found,
                _ => break,
            }
        }
        Ok(free)
    }

    /// Step "place kept": what nobody came for becomes the data of its guest clusters, which read as
    /// zeros before and after, or where these have data by now, that of others. Nothing is in flight.
    ///
    /// # Errors
    /// The first of those that kept space from being placed; the other space is placed.
    pub(crate) fn place_kept(&self) -> Result<(), ImageError> {
        let kept = self.writer.runs.take_kept().into_iter();
        kept.map(|(guest, host)| self.place(guest, host)).fold(Ok(()), Result::and)
    }

    /// Gives back all that is kept, and keeps nothing any more: the image gets a backing file, and
    /// what was not written is to show it.
    // spec: QED-BACK-06
    pub(crate) fn give_back_kept(&self) {
        self.writer.runs.end().into_values().for_each(|host| self.give_back_one(host));
    }

    fn place(&self, guest: u64, host: HostCluster) -> Result<(), ImageError> {
        let tables = &self.view.tables;
        let placed = self.next_without_data(offset_of(tables.geometry, guest)).and_then(|at| {
            let publish = |at| tables.publish(at, std::iter::once(L2Entry::Data(host)), false);
            at.map(publish).transpose()
        });
        if !matches!(placed, Ok(Some(()))) {
            self.give_back_one(host);
        }
        placed.map(drop)
    }

    fn give_back_one(&self, host: HostCluster) {
        self.writer.alloc.give_back(Space { first: host, count: 1, fresh: true });
    }

    /// The first cluster from `from`, or else from the start of the disk, that has a table and no data.
    fn next_without_data(&self, from: GuestOffset) -> Result<Option<GuestOffset>, ImageError> {
        let (tables, size) = (&self.view.tables, self.view.image_size());
        for (mut at, end) in [(from.get(), size), (0, from.get().min(size))] {
            while at < end {
                let place = GuestOffset::new(at);
                let run = tables.run(place, end - at)?;
                if !matches!(run.kind, ExtentKind::Data(_)) && self.has_table(place)? {
                    return Ok(Some(place));
                }
                at += run.len;
            }
        }
        Ok(None)
    }

    fn has_table(&self, at: GuestOffset) -> Result<bool, ImageError> {
        let tables = &self.view.tables;
        Ok(tables.table(tables.l1_index(at))?.is_some())
    }
}

fn offset_of(geometry: Geometry, cluster: u64) -> GuestOffset {
    let offset = geometry.guest_cluster_offset(GuestCluster::new(cluster));
    offset.expect("a cluster of the disk")
}

#[cfg(test)]
mod tests;
