//! One queue without a frontend: for a ring that lies in memory of this program, as that of a test or of
//! a fuzzer does.

use std::fs::File;
use std::sync::Arc;

use thiserror::Error;

use super::config::{VhostOptions, features};
use super::inflight::{Inflight, InflightError, Shape};
use super::log::DirtyLog;
use super::memory::{Memory, MemoryError, Shared};
use super::queue::{Broken, Disk, Negotiated, Queue};
use super::ring::{Ring, RingAddress};
use super::wire::feature;
use crate::server::Export;

/// A queue that is served by whoever calls.
#[derive(Debug)]
pub struct LoneQueue(Queue);

/// What a [`LoneQueue`] is made of.
#[derive(Debug)]
pub struct LoneOptions {
    /// Descriptors of the queue.
    pub size: u16,
    /// Where the ring is, in addresses of the frontend.
    pub address: RingAddress,
    /// The feature bits that the driver took; those that are not offered count as not taken.
    pub features: u64,
    /// The next head to take.
    pub base: u16,
    /// A dirty log and its length in bytes.
    pub log: Option<(File, u64)>,
    /// Memory for requests in flight, made by [`LoneQueue::inflight_file`].
    pub inflight: Option<File>,
}

/// Why a queue cannot be served any more: the driver broke the rules of its ring.
#[derive(Debug, Error)]
#[error("the queue is broken")]
pub struct LoneQueueError(#[source] Broken);

impl<E: Into<Broken>> From<E> for LoneQueueError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl LoneQueue {
    /// A queue of the disk that an export has, in `memory`.
    ///
    /// # Errors
    /// A ring that is not in memory, or of a size that is none.
    pub fn new(
        export: Arc<Export>,
        vhost: &VhostOptions,
        memory: Memory,
        options: LoneOptions,
    ) -> Result<Self, LoneQueueError> {
        let features = options.features & features(&**export.device());
        let has_event_index = features & feature::EVENT_INDEX != 0;
        let ring = Ring::new(&memory, options.size, &options.address, has_event_index)?;
        let log = match options.log {
            Some((file, len)) => Some(Arc::new(DirtyLog::new(Shared::new(file, 0, len)?))),
            None => None,
        };
        let inflight =
            options.inflight.map(|file| Self::inflight(file, options.size)).transpose()?;
        let negotiated = Negotiated {
            takes_indirect: features & feature::INDIRECT != 0,
            flushes: features & feature::FLUSH != 0,
        };
        let disk = Arc::new(Disk::new(export, vhost));
        let inflight = inflight.as_ref().and_then(|inflight| inflight.of_queue(0));
        Ok(Self(Queue::new(disk, memory, log, negotiated, ring, options.base, inflight)?))
    }

    /// New memory for the requests in flight of a queue.
    ///
    /// # Errors
    /// A size that is none, or the system's.
    pub fn inflight_file(size: u16) -> Result<File, LoneQueueError> {
        Ok(Shape::new(1, size, 1)?.make()?)
    }

    /// Serves the next request; none waits if this is false.
    ///
    /// # Errors
    /// What the driver broke.
    pub fn serve_next(&mut self) -> Result<bool, LoneQueueError> {
        Ok(self.0.serve_next()?)
    }

    /// Whether the driver wants an interrupt for what was given back since this was last asked.
    ///
    /// # Errors
    /// What the driver broke.
    pub fn wants_interrupt(&mut self) -> Result<bool, LoneQueueError> {
        Ok(self.0.wants_interrupt()?)
    }

    /// Asks the driver for kicks; something came meanwhile if this is true.
    ///
    /// # Errors
    /// What the driver broke.
    pub fn ask_for_kicks(&mut self) -> Result<bool, LoneQueueError> {
        Ok(self.0.ask_for_kicks()?)
    }

    /// The index of the next head to take.
    #[must_use]
    pub fn base(&self) -> u16 {
        self.0.base()
    }

    fn inflight(file: File, size: u16) -> Result<Arc<Inflight>, InflightError> {
        let len = file.metadata().map_err(|error| MemoryError::Map(error.into()))?.len();
        Ok(Arc::new(Inflight::new(Shape::new(1, size, 1)?, file, 0, len)?))
    }
}
