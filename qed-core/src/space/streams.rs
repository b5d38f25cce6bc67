//! Reservation windows: keeps sequential guest writes contiguous in the image file, even when concurrent
//! requests of one stream allocate out of order.
//!
//! A request that is a little ahead of its stream reserves the space of those between as well; one whose
//! stream takes turns with another reserves some more, for those that follow. What is set aside is fresh
//! space that nothing names. Knows no tables: the caller says which clusters have space already, and
//! places or gives back what no request acquired before the image is closed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qed_spec::{Geometry, GuestCluster, HostCluster};

use crate::error::ImageError;
use crate::space::free::HostRun;

/// Streams that are followed at a time.
const STREAMS: usize = 8;
/// Bytes that a request may be ahead of its stream, or behind.
const NEAR_BYTES: u64 = 4 << 20;
/// Requests of a stream before anything is set aside for it. Random ones rarely get there.
const STEADY: u32 = 4;

/// Requests of which it is known what they took.
const RECENT: usize = 256;

/// The streams of an image.
#[derive(Debug)]
pub(crate) struct Streams(Mutex<State>);

#[derive(Debug)]
struct State {
    streams: [Stream; STREAMS],
    /// The stream of the request before.
    last: usize,
    /// The stream that was begun last; the one behind it is the next to be forgotten.
    newest: usize,
    /// Guest clusters that no request has written yet, and the space set aside for them.
    windows: BTreeMap<u64, HostCluster>,
    /// Guest clusters that were given space lately: first and behind the last. Their entries may not
    /// tell of it yet.
    recent: [(u64, u64); RECENT],
    /// Of `recent`, the one that is replaced next.
    eldest: usize,
    /// There were several requests at a time once: only then may they overtake each other.
    is_shared: bool,
    limits: Limits,
}

/// Numbers of clusters.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// That a request may be ahead of its stream, or behind.
    near: u64,
    /// That a stream reserves at once when it takes turns with others.
    turn: u64,
    /// That are set aside at a time.
    windows: u64,
}

/// Where a stream is.
#[derive(Debug, Default, Clone, Copy)]
struct Stream {
    /// The guest cluster behind those that have space.
    next: u64,
    requests: u32,
}

/// What a request reserves besides its own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Extra {
    stream: usize,
    /// Clusters before its own and behind them, for others.
    before: u64,
    behind: u64,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    /// Guest clusters, from the first that needs space.
    pub(crate) guest: GuestCluster,
    pub(crate) count: u64,
    /// The guest cluster behind the last of the disk.
    pub(crate) end: GuestCluster,
}

/// What is set aside; while it lives nobody takes space.
pub(crate) struct Windows<'a>(MutexGuard<'a, State>);

impl Windows<'_> {
    pub(crate) fn clusters(&self) -> impl Iterator<Item = HostCluster> {
        self.0.windows.values().copied()
    }
}

impl Streams {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let near = (NEAR_BYTES >> geometry.cluster_bits()).clamp(2, 64);
        let limits = Limits { near, turn: near / 2, windows: 4 * near };
        let (streams, windows) = Default::default();
        Self(Mutex::new(State {
            streams,
            last: 0,
            newest: 0,
            windows,
            recent: [(0, 0); RECENT],
            eldest: 0,
            is_shared: false,
            limits,
        }))
    }

    /// Space for what is wanted, or for the first part of it: what was set aside for it, or what
    /// `used` has for a number of clusters, or what `reserve` makes of one: fresh space. Nothing is set
    /// aside before `is_shared` says that there are several requests at a time; `may_come` is asked how
    /// many of some guest clusters have no space.
    pub(crate) fn reserve(
        &self,
        want: Want,
        used: impl FnOnce(u64) -> Result<Option<HostRun>, ImageError>,
        is_shared: impl FnOnce() -> bool,
        may_come: impl Fn(u64, u64) -> Result<u64, ImageError>,
        reserve: impl Fn(u64) -> Result<HostRun, ImageError>,
    ) -> Result<HostRun, ImageError> {
        let (guest, count) = (want.guest.get(), want.count);
        let mut state = self.state();
        if let Some(space) = state.take(guest, count) {
            state.remember(guest, space.count);
            return Ok(space);
        }
        // Space that is used again lies anywhere: none of it is for others.
        if let Some(space) = used(count)? {
            state.remember(guest, space.count);
            return Ok(space);
        }
        state.is_shared = state.is_shared || is_shared();
        let mut extra = state.extra(want);
        let between = guest - extra.before..guest;
        if extra.before > 0
            && (state.has_given(&between) || may_come(between.start, extra.before)? < extra.before)
        {
            extra.before = 0;
        }
        let after = guest + count..guest + count + extra.behind;
        if extra.behind > 0 {
            extra.behind =
                if state.has_given(&after) { 0 } else { may_come(after.start, extra.behind)? };
        }
        let wanted = extra.before + count + extra.behind;
        let mut space = reserve(wanted);
        if space.is_err() && wanted > count {
            // A request does not fail for the sake of others.
            (extra.before, extra.behind) = (0, 0);
            space = reserve(count);
        }
        let space = state.divide(extra, guest, count, space?);
        state.remember(guest, space.count);
        Ok(space)
    }

    /// What is set aside, while nobody takes space.
    pub(crate) fn windows(&self) -> Windows<'_> {
        Windows(self.state())
    }

    /// All that is set aside: guest clusters and their space.
    pub(crate) fn take_windows(&self) -> BTreeMap<u64, HostCluster> {
        std::mem::take(&mut self.state().windows)
    }

    /// As [`Streams::take_windows`], and nothing is set aside from now on.
    pub(crate) fn end(&self) -> BTreeMap<u64, HostCluster> {
        let mut state = self.state();
        state.limits.windows = 0;
        std::mem::take(&mut state.windows)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What was set aside for the first of `count` clusters from `guest`, and for those after it as far
    /// as it lies behind.
    fn take(&mut self, guest: u64, count: u64) -> Option<HostRun> {
        let first = self.windows.remove(&guest)?;
        let mut taken = 1;
        let follows = |next: &HostCluster, taken| next.get() == first.get() + taken;
        while taken < count
            && self.windows.get(&(guest + taken)).is_some_and(|next| follows(next, taken))
        {
            self.windows.remove(&(guest + taken));
            taken += 1;
        }
        Some(HostRun { first, count: taken, fresh: true })
    }

    fn remember(&mut self, guest: u64, count: u64) {
        self.recent[self.eldest] = (guest, guest + count);
        self.eldest = (self.eldest + 1) % RECENT;
    }

    /// Whether one of the clusters has space set aside, or space that no entry may tell of yet.
    fn has_given(&self, clusters: &Range<u64>) -> bool {
        let overlaps = |(start, end): &(u64, u64)| *start < clusters.end && clusters.start < *end;
        self.windows.range(clusters.clone()).next().is_some() || self.recent.iter().any(overlaps)
    }

    /// Goes on with the stream that the request belongs to, or begins one.
    fn extra(&mut self, want: Want) -> Extra {
        let (guest, limits) = (want.guest.get(), self.limits);
        let after_it = guest + want.count;
        let near =
            |stream: &Stream| stream.requests > 0 && stream.next.abs_diff(guest) <= limits.near;
        let Some(index) = self.streams.iter().position(near) else {
            self.newest = (self.newest + 1) % STREAMS;
            self.last = self.newest;
            self.streams[self.newest] = Stream { next: after_it, requests: 1 };
            return Extra::default();
        };
        let takes_turns = std::mem::replace(&mut self.last, index) != index;
        let stream = &mut self.streams[index];
        let next = stream.next;
        stream.next = next.max(after_it);
        stream.requests = stream.requests.saturating_add(1);
        let mut extra = Extra { stream: index, ..Extra::default() };
        if self.is_shared && stream.requests > STEADY && next <= guest {
            let room = limits.windows.saturating_sub(self.windows.len() as u64);
            extra.before = (guest - next).min(room);
            if takes_turns {
                let left = want.end.get().saturating_sub(after_it);
                extra.behind = limits.turn.min(left).min(room - extra.before);
            }
        }
        extra
    }

    /// Sets the extra space aside and moves the stream on.
    fn divide(&mut self, extra: Extra, guest: u64, count: u64, space: HostRun) -> HostRun {
        let host = |number| HostCluster::new(number).expect("behind the header's cluster");
        let first = space.first.get() + extra.before;
        let mut set_aside = |guest: u64, from: u64, count: u64| {
            self.windows.extend((0..count).map(|index| (guest + index, host(from + index))));
        };
        set_aside(guest - extra.before, space.first.get(), extra.before);
        set_aside(guest + count, first + count, extra.behind);
        if extra.behind > 0 {
            self.streams[extra.stream].next = guest + count + extra.behind;
        }
        HostRun { first: host(first), count, fresh: space.fresh }
    }
}

#[cfg(test)]
mod tests;
