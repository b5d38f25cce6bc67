//! Whose each cluster of the image file is, and where new ones come from.
//!
//! Knows no tables, no cache and no image: a reader of tables asks here what an entry may name.

pub(crate) mod alloc;
pub(crate) mod claims;
pub(crate) mod cross_links;
pub(crate) mod device;
pub(crate) mod end;
pub(crate) mod free;
pub(crate) mod guards;
pub(crate) mod host_set;
pub(crate) mod moves;
pub(crate) mod owner;
pub(crate) mod streams;
pub(crate) mod sweep;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qed_io::Storage;
use qed_spec::{ErrorKind, Geometry};

use crate::error::{CorruptTable, ImageError, IoAction};
use crate::options::DiscardMode;
use crate::space::alloc::Allocator;
use crate::space::claims::Claims;
use crate::space::free::HostRun;
use crate::space::guards::{Drain, RequestGuard};
use crate::space::host_set::HostSet;
use crate::space::moves::Moves;
use crate::space::owner::SpaceMap;
use crate::space::streams::Streams;
use crate::space::sweep::{STEP, Sweep};

/// Bytes that are punched at a time, as long as other changes may have to wait.
const PUNCH_BYTES: u64 = 1 << 30;

/// The space of a writable image.
#[derive(Debug)]
pub(crate) struct Space {
    storage: Arc<dyn Storage>,
    geometry: Geometry,
    /// What becomes of space that is let go.
    pub(crate) mode: DiscardMode,
    /// What entries may name; the map asks it, too.
    pub(crate) owner: Arc<SpaceMap>,
    pub(crate) alloc: Allocator,
    pub(crate) streams: Streams,
    pub(crate) claims: Claims,
    pub(crate) guards: Drain,
    pub(crate) moves: Moves,
    /// The sweep that runs. Held by the thread that reads tables for it.
    sweep: Mutex<Option<Sweep>>,
    wants_sweep: AtomicBool,
    /// Changes that began in which clusters lose their names in another way than one by one, and how many
    /// of them are durable.
    unnamings: AtomicU64,
    durable_unnamings: AtomicU64,
    /// Sweeps that began.
    sweeps: AtomicU64,
    /// A table could not be read for a sweep: another one is for whoever asks for it by name.
    gave_up: AtomicBool,
}

impl Space {
    /// The space of an image that has `file_len` bytes when it is opened.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        geometry: Geometry,
        file_len: u64,
        owner: Arc<SpaceMap>,
        mode: DiscardMode,
    ) -> Self {
        let mut alloc = Allocator::new(storage.clone(), geometry, file_len);
        if let Some(device) = owner.device() {
            alloc.end.lies_on(device.clone(), owner.roots_end());
        }
        Self {
            alloc,
            storage,
            geometry,
            mode,
            owner,
            streams: Streams::new(geometry),
            claims: Claims::default(),
            guards: Drain::default(),
            moves: Moves::default(),
            sweep: Mutex::default(),
            wants_sweep: AtomicBool::new(false),
            unnamings: AtomicU64::new(0),
            durable_unnamings: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
            gave_up: AtomicBool::new(false),
        }
    }

    /// Takes `count` consecutive clusters at the end of the image. The first time that the file is to
    /// become longer, a sweep is to find out whether it has to.
    pub(crate) fn reserve_fresh(&self, count: u64) -> Result<HostRun, ImageError> {
        self.want_sweep();
        self.alloc.reserve_fresh(count)
    }

    /// Takes `count` consecutive clusters for a table, which read as zeros: at the end of the image, or
    /// where that has no room out of what a sweep found.
    // spec: QED-FREE-06
    pub(crate) fn reserve_table(&self, count: u64) -> Result<HostRun, ImageError> {
        let run = self.reserve_fresh(count).or_else(|error| self.reserve_swept(count, error))?;
        if run.fresh {
            return Ok(run);
        }
        let (first, bits) = (self.geometry.host_offset(run.first), self.geometry.cluster_bits());
        let zeroed = self.storage.write_zeroes(first.get()..first.get() + (count << bits));
        let zeroed = zeroed.map_err(ImageError::io(IoAction::WriteTable, first));
        zeroed.map(|()| run).inspect_err(|_| self.alloc.free.give_back(run))
    }

    /// Space for a table that a sweep found, where `error` says that there is none at the end.
    fn reserve_swept(&self, count: u64, error: ImageError) -> Result<HostRun, ImageError> {
        if error.kind() != ErrorKind::NoSpace {
            return Err(error);
        }
        let Some(run) = self.alloc.free.take_table(count) else { return Err(error) };
        // The seal comes before the look for a free tail: what was taken after that sees it here.
        if self.alloc.end.is_sealed() {
            self.alloc.free.give_back(run);
            return Err(ImageError::Closed);
        }
        Ok(run)
    }

    /// A flush that let clusters go is durable: they are free when requests in flight have ended.
    // spec: QED-FREE-02
    pub(crate) fn is_durable(&self, clusters: HostSet) {
        if !clusters.is_empty() {
            self.alloc.free.is_durable(clusters, self.guards.moment());
        }
    }

    /// Makes free what no request uses any more, and tells the storage of it where it is to be told, for
    /// a few milliseconds. Waits for no request.
    // spec: QED-FREE-03, QED-FREE-04
    pub(crate) fn reclaim(&self) {
        let free = &self.alloc.free;
        free.settle(&self.guards, self.mode);
        if !free.wants_punch() {
            return;
        }
        let (until, bits) = (Instant::now() + STEP, self.geometry.cluster_bits());
        while Instant::now() < until {
            // A request, so that a cut of the file, and the end of the lock after a close, come after it.
            let Some(_request) = RequestGuard::try_enter(&self.guards) else { return };
            if self.alloc.end.is_sealed() {
                return;
            }
            let Some((origin, run)) = free.to_punch(PUNCH_BYTES >> bits) else { return };
            // What the storage cannot give back it keeps: the space is free all the same.
            drop(self.storage.discard(run.start << bits..run.end << bits));
            free.is_punched(origin, run);
        }
    }

    /// A sweep is to run, unless one has ended since the image was opened.
    pub(crate) fn want_sweep(&self) {
        if !self.alloc.free.is_judged() && !self.gave_up.load(Ordering::Relaxed) {
            self.want_new_sweep();
        }
    }

    /// A change begins in which clusters lose their names in another way than one by one.
    pub(crate) fn begin_unnaming(&self) {
        self.unnamings.fetch_add(1, Ordering::SeqCst);
    }

    /// How many such changes began.
    pub(crate) fn unnamings(&self) -> u64 {
        self.unnamings.load(Ordering::SeqCst)
    }

    /// What that many of them un-named is durably so.
    pub(crate) fn unnamings_are_durable(&self, changes: u64) {
        self.durable_unnamings.fetch_max(changes, Ordering::SeqCst);
    }

    /// A sweep is to run: clusters lost their names in other ways than one by one.
    pub(crate) fn want_new_sweep(&self) {
        self.wants_sweep.store(true, Ordering::Relaxed);
    }

    pub(crate) fn wants_sweep(&self) -> bool {
        self.wants_sweep.load(Ordering::Relaxed)
    }

    /// The sweep that runs, if one does.
    pub(crate) fn sweep(&self) -> MutexGuard<'_, Option<Sweep>> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a sweep; none where the image is too large for one, or closed, or one has found something:
    /// the cluster of which one name is gone by now would look free to another.
    // spec: QED-FREE-07, QED-FREE-10
    pub(crate) fn begin_sweep(&self) -> Option<Sweep> {
        self.wants_sweep.store(false, Ordering::Relaxed);
        // A request that takes space for others as well holds the streams from there to where it has
        // set that aside.
        let kept = self.streams.windows();
        if self.alloc.end.is_sealed() || self.alloc.free.is_broken() {
            return None;
        }
        // Before the end is read: what is given back from here on does not lie behind it again.
        let unnamed = self.alloc.free.begin_sweep(kept.clusters());
        // A device that does not say how large it is, is not swept.
        let end = self.alloc.end.begin_sweep().ok();
        let (roots, began) = (self.owner.roots(), self.guards.moment());
        let number = self.sweeps.fetch_add(1, Ordering::Relaxed);
        let mut sweep =
            end.and_then(|end| Sweep::new(end, began, roots, self.geometry, unnamed, number));
        if let Some(sweep) = &mut sweep {
            let is_flushed = self.durable_unnamings.load(Ordering::SeqCst) == self.unnamings();
            sweep.is_flushed = is_flushed;
        }
        if sweep.is_none() {
            self.abandon_sweep(None);
        }
        sweep
    }

    /// The sweep has read all tables.
    pub(crate) fn end_sweep(&self, mut sweep: Sweep) {
        sweep.shorten(self.alloc.end.end_sweep(sweep.end(), sweep.named_end()));
        let is_first = sweep.is_first;
        if self.alloc.free.end_sweep(sweep.into_words(), is_first, self.mode) {
            self.want_new_sweep();
        }
    }

    /// The sweep has ended early: with a finding, or because a table could not be read.
    // spec: QED-FREE-10
    pub(crate) fn abandon_sweep(&self, finding: Option<CorruptTable>) {
        self.alloc.end.abandon_sweep();
        self.alloc.free.abandon_sweep(finding);
    }

    /// No sweep begins by itself any more: a table could not be read.
    pub(crate) fn give_up_sweeps(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    /// Starts again at the end of a file that was cut; nothing is in flight.
    pub(crate) fn restart(&self, file_len: u64) {
        // Held to the end: a sweep that begins sees all of it or nothing.
        let mut sweep = self.sweep();
        if sweep.take().is_some() {
            self.alloc.end.abandon_sweep();
            self.want_new_sweep();
        }
        self.alloc.restart(file_len);
    }
}
