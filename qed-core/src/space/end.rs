//! The one end of an image: behind all that was handed out, inside the file.
//!
//! The file length is raised in steps ahead of use, so that every cluster handed out lies inside the
//! file and reads as zeros without having been written. A block device has its length, and space that
//! holds anything: how much of it may be handed out, `device.rs` knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use qed_io::{Growth, Storage};
use qed_pending::PendingLog;
use qed_spec::{Geometry, HostCluster, HostOffset};

use crate::error::{ImageError, IoAction};
use crate::space::device::DeviceEnd;

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
    /// Bytes of the file or device that are known to exist.
    file_len: AtomicU64,
    growing: Mutex<()>,
    /// Of an image on a block device.
    device: Option<Arc<DeviceEnd>>,
    /// Is told how long the file may be.
    log: Option<Arc<PendingLog>>,
}

impl ImageEnd {
    /// The end of an image whose storage has `file_len` bytes when it is opened. One on a block device has
    /// no space before [`ImageEnd::lies_on`].
    pub(crate) fn new(storage: Arc<dyn Storage>, geometry: Geometry, file_len: u64) -> Self {
        let unknown = || Arc::new(DeviceEnd::new(None, file_len));
        Self {
            device: (storage.growth() == Growth::Stale).then(unknown),
            storage,
            geometry,
            next: AtomicU64::new(geometry.clusters_for(file_len).get()),
            sealed_at: AtomicU64::new(0),
            file_len: AtomicU64::new(file_len),
            growing: Mutex::default(),
            log: None,
        }
    }

    /// From here on the pending log says how long the file may be; not while it is shared.
    pub(crate) fn keep_log(&mut self, log: Arc<PendingLog>) {
        self.log = Some(log);
    }

    /// Nothing before cluster number `end` is handed out.
    pub(crate) fn not_below(&self, end: u64) {
        self.next.fetch_max(end, Ordering::AcqRel);
    }

    /// The image lies on a block device, of which this is known; nothing before byte `start` is free.
    pub(crate) fn lies_on(&mut self, device: Arc<DeviceEnd>, start: u64) {
        let end = self.geometry.clusters_for(start.max(device.start()));
        self.next = AtomicU64::new(end.get());
        self.device = Some(device);
    }

    /// Whether the image lies on a block device, whose space is never fresh.
    pub(crate) fn is_on_device(&self) -> bool {
        self.device.is_some()
    }

    /// Bytes up to the end of the last cluster that was handed out or may be named.
    pub(crate) fn bytes(&self) -> u64 {
        self.clusters() << self.geometry.cluster_bits()
    }

    /// Clusters up to there: on a device of which that is not known all that it has.
    pub(crate) fn clusters(&self) -> u64 {
        self.not_below_unknown(self.handed_out())
    }

    /// Clusters that were handed out, sealed or not.
    fn handed_out(&self) -> u64 {
        match self.next.load(Ordering::Acquire) {
            SEALED => self.sealed_at.load(Ordering::Acquire),
            next => next,
        }
    }

    fn not_below_unknown(&self, end: u64) -> u64 {
        match &self.device {
            Some(device) if device.is_unknown() => end.max(self.whole_clusters()),
            _ => end,
        }
    }

    /// Clusters that the file or device has whole.
    fn whole_clusters(&self) -> u64 {
        self.file_len.load(Ordering::Acquire) >> self.geometry.cluster_bits()
    }

    /// What the superblock says of an image on a device: the byte after the last one handed out, and of
    /// how much of the device it is known what tables name. None of a file, nor where nothing is known.
    pub(crate) fn to_record(&self) -> Option<(u64, u64)> {
        let known = self.device.as_ref()?.known();
        (known > 0).then_some((self.handed_out() << self.geometry.cluster_bits(), known))
    }

    /// Whether it is known where the image ends.
    pub(crate) fn is_known(&self) -> bool {
        self.device.as_ref().is_none_or(|device| !device.is_unknown())
    }

    /// Whether a device has room behind the end.
    pub(crate) fn has_room(&self) -> bool {
        let next = self.next.load(Ordering::Acquire);
        self.device.as_ref().is_some_and(|it| it.limit() >> self.geometry.cluster_bits() > next)
    }

    /// Whether a sweep of all tables would let more of a device be handed out.
    ///
    /// # Errors
    /// The capacity of the device cannot be asked.
    pub(crate) fn wants_sweep(&self) -> Result<bool, ImageError> {
        match &self.device {
            Some(device) => Ok(device.wants_sweep(self.ask_capacity()?)),
            None => Ok(false),
        }
    }

    /// Clusters that a sweep which begins now has to look at. On a device of which not all is known these
    /// are all, and nothing is handed out here until [`ImageEnd::end_sweep`].
    ///
    /// # Errors
    /// The capacity of the device cannot be asked.
    // spec: QED-DEV-03, QED-DEV-06
    pub(crate) fn begin_sweep(&self) -> Result<u64, ImageError> {
        let Some(device) = &self.device else { return Ok(self.clusters()) };
        let is_wanted = self.wants_sweep()?;
        device.sweep(is_wanted);
        Ok(if is_wanted { self.clusters().max(self.whole_clusters()) } else { self.clusters() })
    }

    /// The sweep of `swept` clusters has ended: the last that a table names is before cluster number
    /// `named_end`. Up to which number clusters are free that nothing names or holds.
    // spec: QED-DEV-03, QED-DEV-05
    pub(crate) fn end_sweep(&self, swept: u64, named_end: u64) -> u64 {
        let Some(device) = self.device.as_ref().filter(|device| device.is_swept()) else {
            return swept;
        };
        let raise = |next| (next != SEALED).then_some(named_end.max(next));
        match self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise) {
            Ok(before) => {
                // What the device gained since it was opened is nobody else's.
                device.found(self.file_len.load(Ordering::Acquire));
                named_end.max(before)
            }
            // Nothing is handed out any more.
            Err(_) => {
                device.sweep(false);
                0
            }
        }
    }

    /// The sweep was given up.
    pub(crate) fn abandon_sweep(&self) {
        if let Some(device) = &self.device {
            device.sweep(false);
        }
    }

    /// Hands out `count` consecutive clusters at the end: the first of them. A device that is full is
    /// asked for its capacity, which may have grown.
    // spec: QED-RW-04, QED-DEV-03
    pub(crate) fn take(&self, count: u64) -> Result<HostCluster, ImageError> {
        let mut taken = self.take_below_limit(count);
        if let (Err(end), Some(device)) = (taken, &self.device)
            && end != SEALED
            && device.has_grown(self.ask_capacity()?)
        {
            taken = self.take_below_limit(count);
        }
        let no_space = |end| match end {
            SEALED => ImageError::Closed,
            end => ImageError::NoSpace {
                clusters: count,
                end: HostOffset::new(u64::saturating_mul(
                    self.not_below_unknown(end),
                    self.geometry.cluster_size_bytes(),
                )),
            },
        };
        Ok(HostCluster::new(taken.map_err(no_space)?).expect("cluster 0 is the header's"))
    }

    /// As [`ImageEnd::take`]; the end where there is no space.
    fn take_below_limit(&self, count: u64) -> Result<u64, u64> {
        let limit = self.device.as_ref().map_or(i64::MAX.unsigned_abs(), |device| device.limit());
        let most = limit >> self.geometry.cluster_bits();
        self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, |end| {
            end.checked_add(count).filter(|after| *after <= most)
        })
    }

    /// Bytes of the device now.
    fn ask_capacity(&self) -> Result<u64, ImageError> {
        let end = HostOffset::new(self.file_len.load(Ordering::Acquire));
        let capacity = self.storage.len().map_err(ImageError::io(IoAction::Resize, end))?;
        self.file_len.store(capacity, Ordering::Release);
        Ok(capacity)
    }

    /// Takes clusters back that were handed out last; false if others were since.
    pub(crate) fn untake(&self, first: HostCluster, count: u64) -> bool {
        let after = first.get() + count;
        self.next.compare_exchange(after, first.get(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Makes the file long enough for clusters that were handed out.
    pub(crate) fn cover(&self, first: HostCluster, count: u64) -> Result<(), ImageError> {
        let needed = (first.get() + count) << self.geometry.cluster_bits();
        // What a device has not, it does not hand out.
        if self.is_on_device() || self.file_len.load(Ordering::Acquire) >= needed {
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
        self.note_len(grown);
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
        // First, for who reads it as soon as the other says that it is sealed; the same thread alone seals.
        let end = self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, |end| {
            self.sealed_at.store(end, Ordering::Release);
            Some(SEALED)
        });
        self.not_below_unknown(end.unwrap_or_else(|end| end))
    }

    /// Goes on where [`ImageEnd::seal`] stopped.
    pub(crate) fn unseal(&self) {
        self.next.store(self.sealed_at.load(Ordering::Acquire), Ordering::Release);
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.next.load(Ordering::Acquire) == SEALED
    }

    /// Cuts the file at `len`; a device keeps its length. What lies behind is handed out anew only after
    /// [`ImageEnd::restart`].
    pub(crate) fn cut(&self, len: u64) -> Result<(), ImageError> {
        if self.is_on_device() {
            return Ok(());
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        self.cut_now(len)
    }

    /// As [`ImageEnd::cut`], if the file was made longer than `len`; a device keeps its length.
    pub(crate) fn cut_if_longer(&self, len: u64) -> Result<(), ImageError> {
        if self.is_on_device() {
            return Ok(());
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.file_len.load(Ordering::Acquire) > len { self.cut_now(len) } else { Ok(()) }
    }

    fn cut_now(&self, len: u64) -> Result<(), ImageError> {
        let cut = self.storage.set_len(len);
        cut.map_err(ImageError::io(IoAction::Resize, HostOffset::new(len)))?;
        self.note_len(len);
        self.file_len.store(len, Ordering::Release);
        Ok(())
    }

    /// Step "note length": before the file grows, and after it was cut.
    // spec: QED-PEND-08
    fn note_len(&self, len: u64) {
        if let Some(log) = &self.log {
            log.file_has(len);
        }
    }

    /// Starts again at the end of a file that was cut, or of what a device is known to hold; nothing is in
    /// flight.
    pub(crate) fn restart(&self, file_len: u64) {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        self.next.store(self.geometry.clusters_for(file_len).get(), Ordering::Release);
        if !self.is_on_device() {
            self.file_len.store(file_len, Ordering::Release);
        }
    }
}
