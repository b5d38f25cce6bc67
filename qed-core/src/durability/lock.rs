//! The metadata lock: one thread writes tables and header at a time, and ends all writing if it panics.
//! And what the steps of that thread work with.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qed_io::Storage;

use crate::change::Pending;
use crate::durability::dirty_bits::DirtyBits;
use crate::error::ImageError;
use crate::head::Head;
use crate::head::physical_size::RecordedEnd;
use crate::head::writing::PanicWatch;
use crate::map::tables::Tables;
use crate::space::Space;

/// Metadata that is not in the file stays so no longer than this, if [`crate::Image::maintain`] is
/// called.
const MAINTAIN_AFTER: Duration = Duration::from_secs(5);

/// The owners that a step works with.
#[derive(Clone, Copy)]
pub(crate) struct Cx<'a> {
    pub(crate) head: &'a Head,
    pub(crate) map: &'a Tables,
    pub(crate) space: &'a Space,
    /// What is unallocated may read as something else than zeros.
    is_backed: &'a AtomicBool,
    pub(crate) pending: &'a Pending,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(
        (head, map, space): (&'a Head, &'a Tables, &'a Space),
        pending: &'a Pending,
        is_backed: &'a AtomicBool,
    ) -> Self {
        Self { head, map, space, is_backed, pending }
    }

    /// Whether data is always durable before the entries that name it, so that a crash leaves no table
    /// in doubt: with a backing file, and on a block device, whose space holds anything.
    // spec: QED-CONS-02, QED-DIRTY-03, QED-DEV-02
    pub(crate) fn data_comes_first(&self) -> bool {
        self.is_backed.load(Ordering::Acquire) || self.space.alloc.end.is_on_device()
    }

    /// Whether a flush should make room, in the cache or in the pending log.
    pub(crate) fn is_crowded(&self) -> bool {
        self.map.cache.is_crowded() || self.pending.is_crowded()
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &**self.head.storage()
    }
}

/// The lock.
#[derive(Debug)]
pub(crate) struct MetadataLock(Mutex<Metadata>);

/// What the holders of the lock share.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// When [`crate::Image::maintain`] first found something to do, if no tables were written since.
    waiting_since: Option<Instant>,
    /// In compat mode.
    pub(crate) bits: Option<DirtyBits>,
    /// Of an image with a superblock on a block device.
    pub(crate) recorded_end: Option<RecordedEnd>,
}

/// The lock held, until dropped.
pub(crate) struct MetadataGuard<'a> {
    /// First, since fields are dropped in their order: the next holder after a panic finds writing
    /// ended.
    #[expect(dead_code, reason = "held, never read")]
    watch: PanicWatch<'a>,
    metadata: MutexGuard<'a, Metadata>,
}

impl MetadataLock {
    pub(crate) fn new(bits: Option<DirtyBits>, recorded_end: Option<RecordedEnd>) -> Self {
        Self(Mutex::new(Metadata { waiting_since: None, bits, recorded_end }))
    }

    pub(crate) fn lock<'a>(&'a self, head: &'a Head) -> MetadataGuard<'a> {
        let metadata = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MetadataGuard { watch: head.writing().watch(), metadata }
    }
}

impl Metadata {
    /// When what waits is due, if it began to wait at `now` at the latest.
    pub(crate) fn due(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + MAINTAIN_AFTER
    }

    /// Something was written, or nothing waits: the time runs anew.
    pub(crate) fn wait_anew(&mut self) {
        self.waiting_since = None;
    }

    /// Step "record end": what the superblock says of the end of an image on a device covers all that was
    /// handed out; whether that was written. It is to be durable before an entry is.
    // spec: QED-DEV-01
    pub(crate) fn record_end(&mut self, cx: Cx<'_>) -> Result<bool, ImageError> {
        match self.recorded_end.as_mut().zip(cx.space.alloc.end.to_record()) {
            Some((recorded, to_record)) => recorded.cover(cx.head, to_record),
            None => Ok(false),
        }
    }

    /// What is recorded of the end is durable: from now on the next program may believe it.
    pub(crate) fn end_is_durable(&self, cx: Cx<'_>) -> Result<(), ImageError> {
        self.recorded_end.as_ref().map_or(Ok(()), |recorded| recorded.believe(cx.head))
    }

    /// Whether no dirty bit is set.
    pub(crate) fn is_clear(&self) -> bool {
        self.bits.as_ref().is_none_or(DirtyBits::is_clear)
    }
}

impl Deref for MetadataGuard<'_> {
    type Target = Metadata;

    fn deref(&self) -> &Metadata {
        &self.metadata
    }
}

impl DerefMut for MetadataGuard<'_> {
    fn deref_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}
