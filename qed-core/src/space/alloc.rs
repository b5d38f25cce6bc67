//! Space for new clusters, owned before anything names it: what was given back, or the end of the
//! image.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use qed_io::Storage;
use qed_spec::{Geometry, HostCluster};

use crate::error::ImageError;
use crate::space::end::ImageEnd;

#[derive(Debug)]
pub(crate) struct Allocator {
    pub(crate) end: ImageEnd,
    geometry: Geometry,
    /// Clusters that nothing names and that may hold bytes, of an allocation that failed half-way.
    returned: Mutex<BTreeSet<HostCluster>>,
    any_returned: AtomicBool,
}

/// Consecutive clusters that belong to the caller and are named by nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostRun {
    pub(crate) first: HostCluster,
    pub(crate) count: u64,
    /// Never written since the file last grew over it: reads as zeros even after a crash, so its
    /// data need not be durable before the entry that names it, and needs no zero fill.
    pub(crate) fresh: bool,
}

impl HostRun {
    /// The numbers of its clusters.
    pub(crate) fn clusters(self) -> impl Iterator<Item = HostCluster> + Clone {
        let first = self.first.get();
        let host = |number| HostCluster::new(number).expect("behind the header's cluster");
        (first..first + self.count).map(host)
    }
}

impl Allocator {
    /// Space past the `file_len` bytes that the image has when it is opened.
    pub(crate) fn new(storage: Arc<dyn Storage>, geometry: Geometry, file_len: u64) -> Self {
        let allocator = Self {
            end: ImageEnd::new(storage, geometry, file_len),
            geometry,
            returned: Mutex::default(),
            any_returned: AtomicBool::new(false),
        };
        #[cfg(feature = "test-utils")]
        allocator.begin_with_used_clusters();
        allocator
    }

    /// Hands out clusters, dirties them and takes them back.
    #[cfg(feature = "test-utils")]
    fn begin_with_used_clusters(&self) {
        let count = crate::testing::used_clusters();
        if count > 0 {
            let run = self.reserve_fresh(count).expect("room for a test");
            self.end.dirty(run.first, count);
            self.give_back(run);
        }
    }

    /// Takes up to `count` consecutive clusters: one that was given back, or all of them fresh.
    // spec: QED-RW-04, QED-JRN-26
    pub(crate) fn reserve(&self, count: u64) -> Result<HostRun, ImageError> {
        // Asked under the lock under which the seal looks for the end: what is taken here it does not cut.
        let take = |returned: &mut BTreeSet<HostCluster>| {
            if self.end.is_sealed() { None } else { returned.pop_first() }
        };
        if self.any_returned.load(Ordering::Relaxed)
            && let Some(first) = self.change_returned(take)
        {
            let run = HostRun { first, count: 1, fresh: false };
            let covered = self.end.cover(first, 1);
            return covered.map(|()| run).inspect_err(|_| self.give_back(run));
        }
        self.reserve_fresh(count)
    }

    /// Takes `count` consecutive clusters at the end of the image, which read as zeros.
    pub(crate) fn reserve_fresh(&self, count: u64) -> Result<HostRun, ImageError> {
        let run = HostRun { first: self.end.take(count)?, count, fresh: true };
        let covered = self.end.cover(run.first, count);
        covered.map(|()| run).inspect_err(|_| {
            // Unless another request reserved after it, the space is as if it had never been handed
            // out, and tries that fail use up none.
            if !self.end.untake(run.first, count) {
                self.give_back(run);
            }
        })
    }

    /// Gives space back that nothing names; it may have been written.
    pub(crate) fn give_back(&self, run: HostRun) {
        self.change_returned(|returned| returned.extend(run.clusters()));
    }

    /// Hands out no more space; bytes of the image, which the file is cut to when it is closed.
    pub(crate) fn seal(&self) -> u64 {
        let mut end = self.end.seal();
        let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        for last in returned.iter().rev() {
            if last.get() + 1 != end {
                break;
            }
            end = last.get();
        }
        end << self.geometry.cluster_bits()
    }

    /// Goes on as before [`Allocator::seal`].
    pub(crate) fn unseal(&self) {
        self.end.unseal();
    }

    /// Starts again at the end of a file that was cut; nothing is in flight.
    pub(crate) fn restart(&self, file_len: u64) {
        let end = self.geometry.clusters_for(file_len).get();
        self.change_returned(|returned| returned.retain(|cluster| cluster.get() < end));
        self.end.restart(file_len);
    }

    fn change_returned<R>(&self, change: impl FnOnce(&mut BTreeSet<HostCluster>) -> R) -> R {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut returned);
        self.any_returned.store(!returned.is_empty(), Ordering::Relaxed);
        result
    }
}
