//! Space for new clusters at the end of the image file, owned before anything names it.
//!
//! The file length is raised in steps ahead of use, so that every cluster handed out lies inside
//! the file and reads as zeros without having been written.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use qed_io::{Growth, Storage};
use qed_spec::{Geometry, HostCluster, HostOffset};

use crate::error::{ImageError, IoAction};

/// The file grows by this many bytes at a time, or by sixteen clusters if that is more.
const GROWTH_STEP_BYTES: u64 = 4 << 20;

#[derive(Debug)]
pub(crate) struct Allocator {
    geometry: Geometry,
    /// Number of the first cluster that was never handed out.
    end: AtomicU64,
    /// Bytes of the file that are known to exist.
    file_len: AtomicU64,
    growing: Mutex<()>,
    /// Clusters whose allocation failed half-way: they may hold bytes of it.
    returned: Mutex<BTreeSet<HostCluster>>,
    any_returned: AtomicBool,
    can_grow: bool,
}

/// Consecutive clusters that belong to the caller and are named by nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) first: HostCluster,
    pub(crate) count: u64,
    /// Never written since the file last grew over it: reads as zeros even after a crash, so its
    /// data need not be durable before the entry that names it, and needs no zero fill.
    pub(crate) fresh: bool,
}

impl Allocator {
    /// Space past the `file_len` bytes that the image has when it is opened.
    pub(crate) fn new(storage: &dyn Storage, geometry: Geometry, file_len: u64) -> Self {
        Self {
            geometry,
            end: AtomicU64::new(geometry.clusters_for(file_len).get()),
            file_len: AtomicU64::new(file_len),
            growing: Mutex::default(),
            returned: Mutex::default(),
            any_returned: AtomicBool::new(false),
            can_grow: storage.growth() == Growth::Zeros,
        }
    }

    /// Takes up to `count` consecutive clusters: one that was given back, or all of them fresh.
    // spec: QED-RW-04, QED-JRN-26
    pub(crate) fn reserve(&self, storage: &dyn Storage, count: u64) -> Result<Space, ImageError> {
        if self.any_returned.load(Ordering::Relaxed)
            && let Some(first) = self.change_returned(BTreeSet::pop_first)
        {
            return self.covered(storage, Space { first, count: 1, fresh: false });
        }
        self.reserve_fresh(storage, count)
    }

    /// Takes `count` consecutive clusters at the end of the image, which read as zeros.
    pub(crate) fn reserve_fresh(
        &self,
        storage: &dyn Storage,
        count: u64,
    ) -> Result<Space, ImageError> {
        let no_space = |end| ImageError::NoSpace {
            clusters: count,
            end: HostOffset::new(u64::saturating_mul(end, self.geometry.cluster_size_bytes())),
        };
        let most = i64::MAX.unsigned_abs() >> self.geometry.cluster_bits();
        let taken = self.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, |end| {
            end.checked_add(count).filter(|after| self.can_grow && *after <= most)
        });
        let first = taken.map_err(no_space)?;
        let first = HostCluster::new(first).expect("cluster 0 is the header's");
        self.covered(storage, Space { first, count, fresh: true })
    }

    /// Gives space back that nothing names; it may have been written.
    pub(crate) fn give_back(&self, space: Space) {
        let numbers = space.first.get()..space.first.get() + space.count;
        self.change_returned(|returned| returned.extend(numbers.filter_map(HostCluster::new)));
    }

    /// Bytes up to the end of the last cluster that was handed out.
    pub(crate) fn end_bytes(&self) -> u64 {
        self.end.load(Ordering::Acquire) << self.geometry.cluster_bits()
    }

    /// Bytes of the image: what the file is cut to when it is closed. Nothing is in flight.
    pub(crate) fn trimmed_len(&self) -> u64 {
        let mut end = self.end.load(Ordering::Acquire);
        self.change_returned(|returned| {
            while returned.last().is_some_and(|last| last.get() + 1 == end) {
                returned.pop_last();
                end -= 1;
            }
        });
        end << self.geometry.cluster_bits()
    }

    /// Starts again at the end of a file that was cut; nothing is in flight.
    pub(crate) fn restart(&self, file_len: u64) {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.geometry.clusters_for(file_len).get();
        self.change_returned(|returned| returned.retain(|cluster| cluster.get() < end));
        self.end.store(end, Ordering::Release);
        self.file_len.store(file_len, Ordering::Release);
    }

    /// Whether the file was made longer than what was handed out.
    pub(crate) fn grew_past(&self, len: u64) -> bool {
        self.file_len.load(Ordering::Acquire) > len
    }

    /// Makes the file long enough for `space`, or takes the space back.
    fn covered(&self, storage: &dyn Storage, space: Space) -> Result<Space, ImageError> {
        let needed = (space.first.get() + space.count) << self.geometry.cluster_bits();
        if self.file_len.load(Ordering::Acquire) >= needed {
            return Ok(space);
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.file_len.load(Ordering::Acquire) >= needed {
            return Ok(space);
        }
        let step = GROWTH_STEP_BYTES.max(16 << self.geometry.cluster_bits());
        let grown = needed.saturating_add(step).min(i64::MAX.unsigned_abs());
        let grown = grown & !(self.geometry.cluster_size_bytes() - 1);
        // Near a limit of the file system the step may be what does not fit.
        let set = storage.set_len(grown).map(|()| grown);
        match set.or_else(|_| storage.set_len(needed).map(|()| needed)) {
            Ok(file_len) => {
                self.file_len.store(file_len, Ordering::Release);
                Ok(space)
            }
            Err(error) => {
                self.take_back(space);
                Err(ImageError::io(IoAction::Resize, HostOffset::new(needed))(error))
            }
        }
    }

    /// Undoes a reservation that the file did not grow for. Unless somebody reserved after it, the
    /// space is as if it had never been handed out, and tries that fail use up none.
    fn take_back(&self, space: Space) {
        let after = space.first.get() + space.count;
        let undone = space.fresh
            && self
                .end
                .compare_exchange(after, space.first.get(), Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if !undone {
            self.give_back(space);
        }
    }

    fn change_returned<R>(&self, change: impl FnOnce(&mut BTreeSet<HostCluster>) -> R) -> R {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut returned);
        self.any_returned.store(!returned.is_empty(), Ordering::Relaxed);
        result
    }
}
