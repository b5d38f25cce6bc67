//! How changes become durable: one interface for classic images, compat mode and journal mode.
//!
//! Knows the owners that a step works with, and no image and no request.

pub(crate) mod dirty_bits;
pub(crate) mod home;
pub(crate) mod lock;
pub(crate) mod log;

use std::sync::Arc;
use std::time::Instant;

use qed_journal::Journal;

use crate::durability::dirty_bits::DirtyBits;
use crate::durability::home::Clearing;
use crate::durability::lock::{Cx, Metadata, MetadataGuard, MetadataLock};
use crate::durability::log::Log;
use crate::error::ImageError;
use crate::head::Head;
use crate::head::physical_size::RecordedEnd;

/// How the changes of an open image become durable.
#[derive(Debug)]
pub(crate) struct Durability {
    lock: MetadataLock,
    /// In journal mode; without it entries are written home, with dirty bits in compat mode.
    log: Option<Log>,
}

impl Durability {
    /// Of an image in compat mode, where there are dirty bits, or a classic one.
    pub(crate) fn home(bits: Option<DirtyBits>, recorded_end: Option<RecordedEnd>) -> Self {
        Self { lock: MetadataLock::new(bits, recorded_end), log: None }
    }

    /// Of an image in journal mode.
    pub(crate) fn journal(log: Log, recorded_end: Option<RecordedEnd>) -> Self {
        Self { lock: MetadataLock::new(None, recorded_end), log: Some(log) }
    }

    /// The journal that tables are read through.
    pub(crate) fn journal_to_read(&self) -> Option<Arc<Journal>> {
        self.log.as_ref().map(|log| log.journal().clone())
    }

    pub(crate) fn lock<'a>(&'a self, head: &'a Head) -> MetadataGuard<'a> {
        self.lock.lock(head)
    }

    /// Makes durable what was published before this call. Not the end of the metadata lock's wait: in
    /// journal mode flushes of several threads share a commit.
    pub(crate) fn flush(&self, cx: Cx<'_>) -> Result<(), ImageError> {
        let mut metadata = self.lock.lock(cx.head);
        let Some(log) = &self.log else {
            return home::flush(&mut metadata, Clearing::ByTheWay, cx);
        };
        let submitted = log.submit(&mut metadata, cx)?;
        // Other flushes may submit now, and share the commit.
        drop(metadata);
        log.commit(&submitted, cx)
    }

    /// A flush by the holder of the lock: no other thread writes tables or the header meanwhile.
    pub(crate) fn commit(&self, metadata: &mut Metadata, cx: Cx<'_>) -> Result<(), ImageError> {
        match &self.log {
            Some(log) => {
                let submitted = log.submit(metadata, cx)?;
                log.commit(&submitted, cx)
            }
            None => home::flush(metadata, Clearing::Due, cx),
        }
    }

    /// Makes room in the cache when too much of it is dirty, and in the pending log.
    pub(crate) fn make_room(&self, cx: Cx<'_>) -> Result<(), ImageError> {
        if !cx.is_crowded() {
            return Ok(());
        }
        let mut metadata = self.lock.lock(cx.head);
        // The holder before may have made the room.
        if cx.is_crowded() { self.commit(&mut metadata, cx) } else { Ok(()) }
    }

    /// Everything that was flushed is in the tables, durably. The caller has the lock and has
    /// committed, so no record comes before it lets go of it.
    pub(crate) fn drain_log(&self, cx: Cx<'_>) -> Result<(), ImageError> {
        self.log.as_ref().map_or(Ok(()), |log| log.drain(cx))
    }

    /// Does what is due at `now` and returns when to call again; `None` when nothing is waiting.
    pub(crate) fn maintain(&self, now: Instant, cx: Cx<'_>) -> Result<Option<Instant>, ImageError> {
        if let Some(log) = &self.log {
            return log.maintain(&self.lock, now, cx);
        }
        let mut metadata = self.lock.lock(cx.head);
        cx.head.writing().check()?;
        if home::is_settled(&metadata, cx) {
            metadata.wait_anew();
            return Ok(None);
        }
        let due = metadata.due(now);
        if now < due {
            return Ok(Some(due));
        }
        home::flush(&mut metadata, Clearing::Due, cx)?;
        metadata.wait_anew();
        Ok((!home::is_settled(&metadata, cx)).then(|| metadata.due(now)))
    }

    /// Clears what says that the image is in use, which is about to end at `end`: NEED_CHECK and the
    /// dirty bits, or the journal. Everything is committed; the next flush makes it durable.
    pub(crate) fn mark_clean(
        &self,
        metadata: &mut Metadata,
        end: u64,
        cx: Cx<'_>,
    ) -> Result<(), ImageError> {
        match &self.log {
            Some(log) => log.mark_clean(cx),
            None => home::mark_clean(metadata, end, cx),
        }
    }

    /// An image on a device that is about to end at `end` says so. Nothing else is in flight; the next
    /// flush makes it durable.
    // spec: QED-DEV-01
    pub(crate) fn settle_end(
        &self,
        metadata: &mut Metadata,
        end: u64,
        cx: Cx<'_>,
    ) -> Result<(), ImageError> {
        let record = cx.space.alloc.end.to_record().filter(|_| cx.space.alloc.end.is_known());
        let known = record.map(|(_, known)| known);
        if let Some((recorded, known)) = metadata.recorded_end.as_mut().zip(known)
            && recorded.settle(cx.head, (end, known))?
        {
            cx.head.sync()?;
            metadata.end_is_durable(cx)?;
        }
        Ok(())
    }

    /// What is recorded of the end of the image is no more than `end`, durably.
    pub(crate) fn lower_recorded_end(
        &self,
        metadata: &mut Metadata,
        end: u64,
        cx: Cx<'_>,
    ) -> Result<(), ImageError> {
        home::lower_recorded_end(metadata, end, cx)
    }

    /// Whether no change waits for a flush, or for a commit that failed to be tried again.
    pub(crate) fn has_nothing_pending(&self, cx: Cx<'_>) -> bool {
        self.log.as_ref().is_none_or(Log::is_committed) && cx.pending.is_empty(cx.map)
    }
}
