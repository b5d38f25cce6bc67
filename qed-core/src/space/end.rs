//! The one end of an image: behind all that was handed out, inside the file.
//!
//! The file length is raised in steps ahead of use, so that every cluster handed out lies inside the
//! file and reads as zeros without having been written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use qed_io::{Growth, Storage};
use qed_spec::{Geometry, HostCluster, HostOffset};

use crate::error::{ImageError, IoAction};

/// The file grows by this many bytes at a time, or by sixteen clusters if that is more.
const GROWTH_STEP_BYTES: u64 = 4 << 20;

/// More clusters than any file has.
const SEALED: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct ImageEnd {
    storage: Arc<dyn Storage>,
    geometry: Geometry,
    /// Number of the first cluster that was never handed out; [`SEALED`] where none is any more.
    next: AtomicU64,
    /// What `next` was when it was sealed.
    sealed_at: AtomicU64,
    /// Bytes of the file that are known to exist.
    file_len: AtomicU64,
    growing: Mutex<()>,
    can_grow: bool,
}

impl ImageEnd {
    /// The end of an image that has `file_len` bytes when it is opened.
    pub(crate) fn new(storage: Arc<dyn Storage>, geometry: Geometry, file_len: u64) -> Self {
        Self {
            can_grow: storage.growth() == Growth::Zeros,
            storage,
            geometry,
            next: AtomicU64::new(geometry.clusters_for(file_len).get()),
            sealed_at: AtomicU64::new(0),
            file_len: AtomicU64::new(file_len),
            growing: Mutex::default(),
        }
    }

    /// Bytes up to the end of the last cluster that was handed out.
    pub(crate) fn bytes(&self) -> u64 {
        self.clusters() << self.geometry.cluster_bits()
    }

    /// Clusters up to there.
    pub(crate) fn clusters(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Hands out `count` consecutive clusters at the end: the first of them.
    // spec: QED-RW-04
    pub(crate) fn take(&self, count: u64) -> Result<HostCluster, ImageError> {
        let no_space = |end| match end {
            SEALED => ImageError::Closed,
            end => ImageError::NoSpace {
                clusters: count,
                end: HostOffset::new(u64::saturating_mul(end, self.geometry.cluster_size_bytes())),
            },
        };
        let most = i64::MAX.unsigned_abs() >> self.geometry.cluster_bits();
        let taken = self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, |end| {
            end.checked_add(count).filter(|after| self.can_grow && *after <= most)
        });
        Ok(HostCluster::new(taken.map_err(no_space)?).expect("cluster 0 is the header's"))
    }

    /// Takes clusters back that were handed out last; false if others were since.
    pub(crate) fn untake(&self, first: HostCluster, count: u64) -> bool {
        let after = first.get() + count;
        self.next.compare_exchange(after, first.get(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Makes the file long enough for clusters that were handed out.
    pub(crate) fn cover(&self, first: HostCluster, count: u64) -> Result<(), ImageError> {
        let needed = (first.get() + count) << self.geometry.cluster_bits();
        if self.file_len.load(Ordering::Acquire) >= needed {
            return Ok(());
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.file_len.load(Ordering::Acquire) >= needed {
            return Ok(());
        }
        if self.is_sealed() {
            return Err(ImageError::Closed);
        }
        let step = GROWTH_STEP_BYTES.max(16 << self.geometry.cluster_bits());
        let grown = needed.saturating_add(step).min(i64::MAX.unsigned_abs());
        let grown = grown & !(self.geometry.cluster_size_bytes() - 1);
        // Near a limit of the file system the step may be what does not fit.
        let set = self.storage.set_len(grown).map(|()| grown);
        let set = set.or_else(|_| self.storage.set_len(needed).map(|()| needed));
        let file_len = set.map_err(ImageError::io(IoAction::Resize, HostOffset::new(needed)))?;
        self.file_len.store(file_len, Ordering::Release);
        Ok(())
    }

    /// Fills clusters with bytes that are not zeros.
    #[cfg(feature = "test-utils")]
    pub(crate) fn dirty(&self, first: HostCluster, count: u64) {
        let cluster =
            vec![0xdd; usize::try_from(self.geometry.cluster_size_bytes()).expect("64 MiB")];
        for number in first.get()..first.get() + count {
            let at = number << self.geometry.cluster_bits();
            self.storage.write_at(&cluster, at).expect("a storage of a test");
        }
    }

    /// Hands out nothing more, and lengthens the file no more: clusters up to the end, all of which were
    /// handed out before. In one step, so that no request is given what lies behind.
    pub(crate) fn seal(&self) -> u64 {
        let end = self.next.swap(SEALED, Ordering::AcqRel);
        self.sealed_at.store(end, Ordering::Release);
        end
    }

    /// Goes on where [`ImageEnd::seal`] stopped.
    pub(crate) fn unseal(&self) {
        self.next.store(self.sealed_at.load(Ordering::Acquire), Ordering::Release);
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.next.load(Ordering::Acquire) == SEALED
    }

    /// Cuts the file at `len`. What lies behind is handed out anew only after [`ImageEnd::restart`].
    pub(crate) fn cut(&self, len: u64) -> Result<(), ImageError> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        self.cut_now(len)
    }

    /// As [`ImageEnd::cut`], if the file was made longer than `len`.
    pub(crate) fn cut_if_longer(&self, len: u64) -> Result<(), ImageError> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.file_len.load(Ordering::Acquire) > len { self.cut_now(len) } else { Ok(()) }
    }

    fn cut_now(&self, len: u64) -> Result<(), ImageError> {
        let cut = self.storage.set_len(len);
        cut.map_err(ImageError::io(IoAction::Resize, HostOffset::new(len)))?;
        self.file_len.store(len, Ordering::Release);
        Ok(())
    }

    /// Starts again at the end of a file that was cut; nothing is in flight.
    pub(crate) fn restart(&self, file_len: u64) {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        self.next.store(self.geometry.clusters_for(file_len).get(), Ordering::Release);
        self.file_len.store(file_len, Ordering::Release);
    }
}
