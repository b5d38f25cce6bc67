//! The requests of `bench`: a fixed list, worked through by as many threads as requests may be in
//! flight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use qed_core::{BackingFile, Image};
use qed_io::Storage;
use qed_spec::GuestOffset;

use crate::app::Context;

/// What the requests go to.
pub(super) enum Device {
    /// For reading.
    Disk(Arc<dyn BackingFile>),
    /// For writing.
    Qed(Box<Image>),
    /// For writing.
    Raw(Arc<dyn Storage>),
}

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
    pub(super) write: bool,
    pub(super) pattern: u8,
    pub(super) flush_interval: Option<u64>,
    /// A flush waits for the requests in flight.
    pub(super) drain: bool,
}

/// More threads than this are not started, however deep the queue may be.
const MAX_THREADS: u64 = 256;

impl Plan {
    /// The lines before the run.
    pub(super) fn announcement(&self) -> String {
        let Self { count, len, depth, offset, step, .. } = self;
        let verb = if self.write { "write" } else { "read" };
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
        if self.write {
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
        thread::scope(|scope| {
            for _ in 1..self.depth.min(self.count).min(MAX_THREADS) {
                scope.spawn(|| run.work());
            }
            run.work();
        });
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
        let mut buffer = vec![self.plan.pattern; usize::try_from(self.plan.len).unwrap_or(0)];
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
        self.context.interrupts.check()?;
        let at = self.offset_of(number);
        if at.checked_add(self.plan.len).is_none_or(|end| end > self.disk_len) {
            bail!("Input/output error");
        }
        {
            let _in_flight = self.flushing.read().unwrap_or_else(PoisonError::into_inner);
            self.device.transfer(buffer, at)?;
        }
        match self.plan.flush_interval {
            Some(interval) if (number + 1).is_multiple_of(interval) => {
                let _drained = self
                    .plan
                    .drain
                    .then(|| self.flushing.write().unwrap_or_else(PoisonError::into_inner));
                self.device.flush()
            }
            _ => Ok(()),
        }
    }

    /// Requests start again at the front of the disk when they reach its end.
    fn offset_of(&self, number: u64) -> u64 {
        let at = u128::from(self.plan.offset) + u128::from(number) * u128::from(self.plan.step);
        let wrapped = if number == 0 { at } else { at % u128::from(self.disk_len.max(1)) };
        u64::try_from(wrapped).unwrap_or(u64::MAX)
    }
}

impl Device {
    fn len(&self) -> anyhow::Result<u64> {
        Ok(match self {
            Self::Disk(disk) => disk.len(),
            Self::Qed(image) => image.image_size(),
            Self::Raw(storage) => storage.len()?,
        })
    }

    fn transfer(&self, buffer: &mut [u8], at: u64) -> anyhow::Result<()> {
        match self {
            Self::Disk(disk) => disk.read_at(buffer, at)?,
            Self::Qed(image) => image.write_at(buffer, GuestOffset::new(at))?,
            Self::Raw(storage) => storage.write_at(buffer, at)?,
        }
        Ok(())
    }

    fn flush(&self) -> anyhow::Result<()> {
        match self {
            Self::Disk(_) => {}
            Self::Qed(image) => image.flush()?,
            Self::Raw(storage) => storage.flush()?,
        }
        Ok(())
    }

    /// Ends the use of the device; what was written is durable.
    pub(super) fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Qed(image) => image.close().map_err(|error| anyhow!(error)),
            device => device.flush(),
        }
    }
}
