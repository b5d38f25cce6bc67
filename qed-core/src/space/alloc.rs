//! Space for new clusters, owned before anything names it: what is free, or the end of the image.

use std::sync::Arc;

use qed_io::Storage;
use qed_spec::Geometry;

use crate::error::ImageError;
use crate::space::end::ImageEnd;
use crate::space::free::{FreeSpace, HostRun};

#[derive(Debug)]
pub(crate) struct Allocator {
    pub(crate) end: ImageEnd,
    pub(crate) free: FreeSpace,
    geometry: Geometry,
}

impl Allocator {
    /// Space past the `file_len` bytes that the image has when it is opened.
    pub(crate) fn new(storage: Arc<dyn Storage>, geometry: Geometry, file_len: u64) -> Self {
        let end = ImageEnd::new(storage, geometry, file_len);
        let allocator = Self { end, free: FreeSpace::new(), geometry };
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
            self.free.give_back(run);
        }
    }

    /// Takes up to `count` consecutive clusters that are free.
    // spec: QED-RW-04, QED-JRN-26
    pub(crate) fn reserve_used(&self, count: u64) -> Result<Option<HostRun>, ImageError> {
        let Some(run) = self.free.take(count) else { return Ok(None) };
        // The seal comes before the look for a free tail: what was taken after that sees it here.
        if self.end.is_sealed() {
            self.free.give_back(run);
            return Ok(None);
        }
        let covered = self.end.cover(run.first, run.count);
        covered.map(|()| Some(run)).inspect_err(|_| self.free.give_back(run))
    }

    /// Takes `count` consecutive clusters at the end of the image: fresh ones, but on a block device.
    pub(crate) fn reserve_fresh(&self, count: u64) -> Result<HostRun, ImageError> {
        // spec: QED-DEV-02
        let fresh = !self.end.is_on_device();
        let run = HostRun { first: self.end.take(count)?, count, fresh };
        let covered = self.end.cover(run.first, count);
        covered.map(|()| run).inspect_err(|_| {
            // Unless another request reserved after it, the space is as if it had never been handed
            // out, and tries that fail use up none.
            if !self.free.unless_sweeping(|| self.end.untake(run.first, count)) {
                self.free.give_back(run);
            }
        })
    }

    /// Hands out no more space; bytes of the image, which the file is cut to when it is closed.
    pub(crate) fn seal(&self) -> u64 {
        self.free.tail_from(self.end.seal()) << self.geometry.cluster_bits()
    }

    /// Goes on as before [`Allocator::seal`].
    pub(crate) fn unseal(&self) {
        self.end.unseal();
    }

    /// Starts again at the end of a file that was cut; nothing is in flight.
    pub(crate) fn restart(&self, file_len: u64) {
        self.free.forget_from(self.geometry.clusters_for(file_len).get());
        self.end.restart(file_len);
    }
}

#[cfg(test)]
mod tests {
    use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind};

    use super::*;

    // spec-test: QED-FREE-07
    #[test]
    fn space_that_the_file_does_not_reach_is_at_the_end_again_unless_a_sweep_runs() {
        let geometry = Geometry::new(4096, 2).unwrap();
        let storage = Arc::new(Faulty::new(Arc::new(MemoryStorage::new(vec![0; 8 * 4096]))));
        let allocator = Allocator::new(storage.clone(), geometry, 8 * 4096);
        storage.fail_when(
            |request| request.kind == RequestKind::SetLen,
            Fault::NoSpace,
            Repeat::Always,
        );
        allocator.reserve_fresh(2).unwrap_err();
        assert_eq!(allocator.end.clusters(), 8);
        allocator.free.begin_sweep(std::iter::empty());
        allocator.reserve_fresh(2).unwrap_err();
        // The sweep has seen where the end was, and is not to find what lay before it.
        assert_eq!(allocator.end.clusters(), 10);
        assert!(allocator.free.holds(8) && allocator.free.holds(9));
    }
}
