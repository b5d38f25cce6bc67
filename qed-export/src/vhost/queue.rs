//! One queue at work: heads from its ring become requests of the disk, and go back with a status. Knows no
//! thread and no socket.

use std::sync::Arc;

use thiserror::Error;

use super::chain::{Chain, ChainError};
use super::config::{VhostOptions, WriteCache};
use super::data::DataError;
use super::inflight::{InflightError, QueueInflight};
use super::log::{DirtyLog, NotCovered};
use super::memory::{Memory, MemoryError};
use super::perform::{Moved, Outcome, Place, Status, perform};
use super::request::{Asked, Request, RequestError};
use super::ring::{Ring, RingError};
use super::wire::ID_BYTES;
use crate::device::{BlockDevice, DeviceError, chain};
use crate::server::{Counters, Export, RequestKind};

/// What is counted.
pub(super) const COUNTED: [RequestKind; 6] = [
    RequestKind::Read,
    RequestKind::Write,
    RequestKind::Flush,
    RequestKind::Trim,
    RequestKind::WriteZeroes,
    RequestKind::Other,
];

/// The disk that all queues of a server work on.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) export: Arc<Export>,
    pub(super) counters: Arc<Counters>,
    pub(super) id: [u8; ID_BYTES],
    pub(super) write_cache: WriteCache,
}

impl Disk {
    pub(super) fn new(export: Arc<Export>, options: &VhostOptions) -> Self {
        let counters = Arc::new(Counters::new("vhost", &COUNTED));
        Self { export, counters, id: options.id(), write_cache: WriteCache::default() }
    }
}

/// Why a queue serves nothing any more until the driver begins anew.
#[derive(Debug, Error)]
#[error(transparent)]
pub(super) enum Broken {
    Ring(#[from] RingError),
    Request(#[from] RequestError),
    Inflight(#[from] InflightError),
    Memory(#[from] MemoryError),
    Log(#[from] NotCovered),
    #[error("head {0} is offered again before it came back")]
    OfferedAgain(u16),
    #[error("the disk does not answer")]
    Disk(#[source] DeviceError),
    #[error("waiting for the driver")]
    Wait(#[from] std::io::Error),
}

impl From<ChainError> for Broken {
    fn from(error: ChainError) -> Self {
        Self::Request(error.into())
    }
}

/// What was negotiated, as far as a queue works by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) takes_indirect: bool,
    /// The driver knows that there is a write cache, and flushes.
    pub(super) flushes: bool,
}

/// A request that was taken and not given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) head: u16,
    pub(super) asked: Asked,
}

/// A queue that is mapped and ready.
#[derive(Debug)]
pub(super) struct Queue {
    disk: Arc<Disk>,
    memory: Arc<Memory>,
    log: Option<Arc<DirtyLog>>,
    negotiated: Negotiated,
    ring: Ring,
    inflight: Option<QueueInflight>,
    /// Heads that a server before this one took and did not give back.
    left: std::vec::IntoIter<u16>,
    chain: Chain,
}

impl Queue {
    /// A queue whose driver said that `base` is the next head to take. What is still in flight by
    /// `inflight` comes first, and counts as taken.
    pub(super) fn new(
        disk: Arc<Disk>,
        memory: Memory,
        log: Option<Arc<DirtyLog>>,
        negotiated: Negotiated,
        mut ring: Ring,
        base: u16,
        mut inflight: Option<QueueInflight>,
    ) -> Result<Self, Broken> {
        let (size, used) = (ring.size(), ring.next_used());
        let left = match &mut inflight {
            Some(inflight) => inflight.open(size, used)?,
            None => None,
        };
        let count = |heads: &Vec<u16>| u16::try_from(heads.len()).unwrap_or(size);
        ring.go_on_from(left.as_ref().map_or(base, |left| used.wrapping_add(count(left))));
        let left = left.unwrap_or_default().into_iter();
        let (memory, chain) = (Arc::new(memory), Chain::default());
        Ok(Self { disk, memory, log, negotiated, ring, inflight, left, chain })
    }

    /// The index of the next head to take.
    pub(super) fn base(&self) -> u16 {
        self.ring.next_available()
    }

    /// Serves the next request; none waits if this is false.
    pub(super) fn serve_next(&mut self) -> Result<bool, Broken> {
        let Some(begun) = self.begin_next()? else { return Ok(false) };
        let outcome = self.perform(begun);
        self.finish(begun, outcome)?;
        Ok(true)
    }

    /// Takes the next request, none if none waits; its pieces are there until the next is taken.
    pub(super) fn begin_next(&mut self) -> Result<Option<Begun>, Broken> {
        let head = match self.left.next() {
            Some(head) => head,
            None => match self.take()? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let (table, size) = (&self.ring.descriptors, self.ring.size());
        let indirect = self.negotiated.takes_indirect;
        self.chain.fill(table, size, head, &self.memory, indirect)?;
        let asked = Asked::parse(&mut self.chain, &self.memory)?;
        Ok(Some(Begun { head, asked }))
    }

    /// Does what the request says that was taken last.
    pub(super) fn perform(&mut self, begun: Begun) -> Outcome {
        let mut chain = std::mem::take(&mut self.chain);
        let outcome = perform(self.place(), begun.asked.request, &mut chain);
        self.chain = chain;
        outcome
    }

    /// What is to be moved for the request that was taken last; none where it is to be performed.
    pub(super) fn transfer(&self, begun: Begun) -> Option<Moved<'_>> {
        self.place().transfer(begun.asked.request, &self.chain)
    }

    /// Gives a request back.
    pub(super) fn finish(&mut self, begun: Begun, outcome: Outcome) -> Result<(), Broken> {
        let Begun { head, asked } = begun;
        let (status, written) = (outcome.status, outcome.written.saturating_add(1));
        self.account(asked.request, outcome)?;
        self.memory.write(&[status as u8], asked.status_at)?;
        let log = self.log.as_deref();
        if let Some(log) = log {
            log.mark(asked.status_at, 1)?;
        }
        if let Some(inflight) = &self.inflight {
            inflight.returns(head);
        }
        self.ring.give_back(head, written, log)?;
        if let Some(inflight) = &self.inflight {
            inflight.returned(head, self.ring.next_used());
        }
        Ok(())
    }

    fn place(&self) -> Place<'_> {
        Place {
            device: self.device(),
            memory: &self.memory,
            log: self.log.as_deref(),
            id: &self.disk.id,
            has_write_cache: self.negotiated.flushes && self.disk.write_cache.is_on(),
        }
    }

    pub(super) fn device(&self) -> &dyn BlockDevice {
        &**self.disk.export.device()
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    pub(super) fn log(&self) -> Option<&DirtyLog> {
        self.log.as_deref()
    }

    pub(super) fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Whether heads are left that another server took.
    pub(super) fn has_left(&self) -> bool {
        self.left.len() > 0
    }

    /// Whether something was given back since it was last asked whether the driver wants an interrupt.
    pub(super) fn has_untold(&self) -> bool {
        self.ring.has_untold()
    }

    /// Whether the driver wants an interrupt for what was given back since this was last asked.
    pub(super) fn wants_interrupt(&mut self) -> Result<bool, Broken> {
        Ok(self.ring.wants_interrupt()?)
    }

    /// Asks the driver for kicks; something came meanwhile if this is true.
    pub(super) fn ask_for_kicks(&mut self) -> Result<bool, Broken> {
        Ok(self.ring.ask_for_kicks(self.log.as_deref())?)
    }

    /// Spares the driver kicks while the ring is looked at anyway.
    pub(super) fn ask_for_no_kicks(&mut self) -> Result<(), Broken> {
        Ok(self.ring.ask_for_no_kicks(self.log.as_deref())?)
    }

    fn take(&mut self) -> Result<Option<u16>, Broken> {
        let head = self.ring.take()?;
        if let (Some(head), Some(inflight)) = (head, &mut self.inflight) {
            inflight.taken(head);
        }
        Ok(head)
    }

    /// Counts a request, and tells what went wrong with it.
    fn account(&self, request: Request, outcome: Outcome) -> Result<(), NotCovered> {
        let kind = match request {
            Request::Read { .. } => RequestKind::Read,
            Request::Write { .. } => RequestKind::Write,
            Request::Flush => RequestKind::Flush,
            Request::Discard => RequestKind::Trim,
            Request::Zero => RequestKind::WriteZeroes,
            Request::Identity | Request::Unknown => RequestKind::Other,
        };
        self.disk.counters.answered(kind, outcome.bytes, outcome.status == Status::Ok);
        match outcome.error {
            // What was written to the guest would be lost where it moves to.
            Some(DataError::Log(error)) => Err(error),
            Some(DataError::Device(DeviceError::Failed(source))) => {
                if self.disk.export.may_log() {
                    let export = self.disk.export.shown_name();
                    tracing::warn!(%export, error = %chain(&*source), "failed");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
