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

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qed_io::Storage;
use qed_spec::Geometry;

use crate::error::{CorruptTable, ImageError, IoAction};
use crate::options::DiscardMode;
use crate::space::alloc::Allocator;
use crate::space::claims::Claims;
use crate::space::free::HostRun;
use crate::space::guards::Drain;
use crate::space::host_set::HostSet;
use crate::space::moves::Moves;
use crate::space::owner::SpaceMap;
use crate::space::streams::Streams;
use crate::space::sweep::Sweep;

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
        let run = self.reserve_fresh(count);
        let run = run.or_else(|error| self.alloc.free.take_table(count).ok_or(error))?;
        if run.fresh {
            return Ok(run);
        }
        let (first, bits) = (self.geometry.host_offset(run.first), self.geometry.cluster_bits());
        let zeroed = self.storage.write_zeroes(first.get()..first.get() + (count << bits));
        let zeroed = zeroed.map_err(ImageError::io(IoAction::WriteTable, first));
        zeroed.map(|()| run).inspect_err(|_| self.alloc.free.give_back(run))
    }

    /// A flush that let clusters go is durable: they are free when requests in flight have ended.
    // spec: QED-FREE-02
    pub(crate) fn is_durable(&self, clusters: HostSet) {
        if !clusters.is_empty() {
            self.alloc.free.is_durable(clusters, self.guards.moment());
        }
    }

    /// Makes free what no request uses any more, and tells the storage of it where it is to be told.
    /// Waits for no request.
    // spec: QED-FREE-03, QED-FREE-04
    pub(crate) fn reclaim(&self) {
        let free = &self.alloc.free;
        free.settle(&self.guards, self.mode);
        while let Some((origin, clusters)) = free.to_punch() {
            for run in clusters.runs() {
                let bits = self.geometry.cluster_bits();
                // What the storage cannot give back it keeps: the space is free all the same.
                drop(self.storage.discard(run.start << bits..run.end << bits));
            }
            free.is_punched(origin, &clusters);
        }
    }

    /// A sweep is to run, unless one has ended since the image was opened.
    pub(crate) fn want_sweep(&self) {
        if !self.alloc.free.is_judged() {
            self.want_new_sweep();
        }
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
        // A device that does not say how large it is, is not swept.
        let end = self.alloc.end.begin_sweep().ok()?;
        let only_name = self.alloc.free.begin_sweep(kept.clusters());
        let roots = self.owner.roots();
        let sweep = Sweep::new(end, self.guards.moment(), roots, self.geometry, only_name.as_ref());
        if sweep.is_none() {
            self.alloc.end.abandon_sweep();
        }
        sweep
    }

    /// The sweep has read all tables.
    pub(crate) fn end_sweep(&self, mut sweep: Sweep) {
        sweep.shorten(self.alloc.end.end_sweep(sweep.end(), sweep.named_end()));
        self.alloc.free.end_sweep(sweep.into_words(), self.mode);
        self.reclaim();
    }

    /// The sweep has ended early: with a finding, or because a table could not be read.
    // spec: QED-FREE-10
    pub(crate) fn abandon_sweep(&self, finding: Option<CorruptTable>) {
        self.alloc.end.abandon_sweep();
        self.alloc.free.abandon_sweep(finding);
    }

    /// Starts again at the end of a file that was cut; nothing is in flight.
    pub(crate) fn restart(&self, file_len: u64) {
        if self.sweep().take().is_some() {
            self.alloc.end.abandon_sweep();
            self.want_new_sweep();
        }
        self.alloc.restart(file_len);
    }
}
