//! The requests of `bench`: a fixed list, and the threads or the ring that works through it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use qed_engine::{AlignedBuf, Direction, Engine, EngineRequest};

use super::device::Device;
use super::order::Order;
use crate::app::Context;

/// Which requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) count: u64,
    /// Requests in flight.
    pub(super) depth: u64,
    /// First byte of the first request.
    pub(super) offset: u64,
    /// Bytes of each.
    pub(super) len: u64,
    pub(super) step: u64,
    /// The order in which the requests are sent.
    pub(super) order: Order,
    pub(super) engine: How,
    pub(super) action: Action,
    pub(super) pattern: u8,
    pub(super) flush_interval: Option<u64>,
    /// A flush waits for the requests in flight.
    pub(super) drain: bool,
}

/// What each request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Write,
    Discard,
}

/// The sender of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// As many threads as requests are in flight, each with one.
    Threads,
    /// One thread, by io_uring.
    Ring,
}

/// More threads than this are not started, however deep the queue may be.
const MAX_THREADS: u64 = 256;
/// More requests than this are not in flight in a ring.
const MAX_IN_RING: u32 = 4096;

impl Plan {
    /// The lines before the run.
    pub(super) fn announcement(&self) -> String {
        let Self { count, len, depth, offset, step, .. } = self;
        let verb = match self.action {
            Action::Read => "read",
            Action::Write => "write",
            Action::Discard => "discard",
        };
        let mut text = format!(
            "Sending {count} {verb} requests, {len} bytes each, {depth} in parallel (starting at \
             offset {offset}, step size {step})\n"
        );
        if let Some(interval) = self.flush_interval {
            text += &format!("Sending flush every {interval} requests\n");
        }
        text
    }

    /// Sends all requests and gives the time they took together.
    pub(super) fn run(&self, device: &Device, context: &Context) -> anyhow::Result<Duration> {
        if self.action != Action::Read {
            context.interrupts.defer();
        }
        let run = Run {
            plan: *self,
            device,
            context,
            disk_len: device.len()?,
            next: AtomicU64::new(0),
            flushing: RwLock::new(()),
            error: Mutex::new(None),
        };
        let start = Instant::now();
        match self.engine {
            How::Threads => thread::scope(|scope| {
                for _ in 1..self.depth.min(self.count).min(MAX_THREADS) {
                    scope.spawn(|| run.work());
                }
                run.work();
            }),
            How::Ring => run.work_by_ring()?,
        }
        if self.flush_interval.is_some() {
            device.flush()?;
        }
        let error = run.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.map_or(Ok(start.elapsed()), Err)
    }
}

/// What the threads share.
struct Run<'a> {
    plan: Plan,
    device: &'a Device,
    context: &'a Context,
    disk_len: u64,
    next: AtomicU64,
    /// Held by requests for reading, by a flush that drains for writing.
    flushing: RwLock<()>,
    error: Mutex<Option<anyhow::Error>>,
}

impl Run<'_> {
    fn work(&self) {
        let buffered = if self.plan.action == Action::Discard { 0 } else { self.plan.len };
        let mut buffer = vec![self.plan.pattern; usize::try_from(buffered).unwrap_or(0)];
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.plan.count {
                return;
            }
            if let Err(error) = self.request(number, &mut buffer) {
                // The others stop at their next request.
                self.next.store(self.plan.count, Ordering::Relaxed);
                self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    }

    fn request(&self, number: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        let at = self.checked_offset_of(number)?;
        {
            let _in_flight = self.flushing.read().unwrap_or_else(PoisonError::into_inner);
            self.device.request(buffer, at, self.plan.len)?;
        }
        if !self.is_flush_due(number + 1) {
            return Ok(());
        }
        let _drained =
            self.plan.drain.then(|| self.flushing.write().unwrap_or_else(PoisonError::into_inner));
        self.device.flush()
    }

    fn work_by_ring(&self) -> anyhow::Result<()> {
        let in_flight = self.plan.depth.min(self.plan.count).min(MAX_IN_RING.into());
        let mut engine = self.device.engine(u32::try_from(in_flight)?)?;
        let len = usize::try_from(self.plan.len)?;
        let mut buffers: Vec<AlignedBuf> = Vec::new();
        for _ in 0..in_flight {
            let mut buffer = engine.buffer(len);
            buffer.fill(self.plan.pattern);
            buffers.push(buffer);
        }
        let direction = match self.plan.action {
            Action::Read => Direction::Read,
            Action::Write => Direction::Write,
            Action::Discard => bail!("a ring discards nothing"),
        };
        for tag in 0..self.plan.count {
            let at = self.checked_offset_of(tag)?;
            let buffer = match buffers.pop() {
                Some(buffer) => buffer,
                None => served(&mut engine)?.expect("the other buffers are in flight"),
            };
            engine.start(EngineRequest { tag, direction, at, buffer });
            if self.is_flush_due(tag + 1) {
                while self.plan.drain
                    && let Some(buffer) = served(&mut engine)?
                {
                    buffers.push(buffer);
                }
                self.device.flush()?;
            }
        }
        while served(&mut engine)?.is_some() {}
        Ok(())
    }

    fn is_flush_due(&self, sent: u64) -> bool {
        self.plan.flush_interval.is_some_and(|interval| sent.is_multiple_of(interval))
    }

    /// Where request `number` begins; an error past the end of the disk, or after an interrupt.
    fn checked_offset_of(&self, number: u64) -> anyhow::Result<u64> {
        self.context.interrupts.check()?;
        let at = self.offset_of(self.plan.order.place(number));
        if at.checked_add(self.plan.len).is_none_or(|end| end > self.disk_len) {
            bail!("Input/output error");
        }
        Ok(at)
    }

    /// Requests start again at the front of the disk when they reach its end.
    fn offset_of(&self, number: u64) -> u64 {
        let at = u128::from(self.plan.offset) + u128::from(number) * u128::from(self.plan.step);
        let wrapped = if number == 0 { at } else { at % u128::from(self.disk_len.max(1)) };
        u64::try_from(wrapped).unwrap_or(u64::MAX)
    }
}

/// The buffer of a request that has ended, or its error; none if none is in flight.
fn served(engine: &mut Engine) -> anyhow::Result<Option<AlignedBuf>> {
    let Some(served) = engine.wait()? else { return Ok(None) };
    served.result?;
    Ok(Some(served.buffer))
}
