//! Streaming conversion: reads, zero detection, compression and writes side by side on a bounded
//! number of threads.
//!
//! Owns the order of work; knows source mappings through [`VirtualDisk`] and targets through
//! [`Sink`], and no format.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use qed_core::VirtualDisk;

use crate::jobs;
use crate::progress::Progress;
use crate::target::{Sink, Target};

mod error;
mod plan;
mod sharing;
mod throttle;
mod turnstile;
mod worker;

pub use error::{ConvertError, WriteAction};
pub use turnstile::Order;

pub(crate) use turnstile::Turn;

use plan::{Job, Plan};
use throttle::Throttle;
use turnstile::Turnstile;
use worker::Worker;

/// How often a wait for the rate asks whether to go on.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// How a conversion runs, whatever the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertOptions {
    /// Threads that read, look for zeros, compress and write. Each holds one buffer of at most
    /// 2 MiB, twice that when compressing; see [`convert`] for what comes on top.
    pub threads: NonZeroUsize,
    /// Whether the target is laid out in guest order. A stream always is.
    pub order: Order,
    /// Runs of zeros of at least this many bytes become holes: rounded up to whole sectors of 512
    /// bytes, at most 512 KiB count. 0 writes every zero, so that the target is fully allocated.
    pub sparse_len: u64,
    /// Sectors that cannot be read become zeros instead of ending the conversion; where mappings
    /// cannot be read, every sector is tried.
    pub salvage: bool,
    /// Whether data in a file of the target's file system is shared with it instead of copied, where
    /// the file system can. Zeros are not looked for in what is shared. Has no effect with
    /// `salvage`, without holes, and where the target is compressed or preallocated.
    pub share: bool,
    /// Bytes of data that are written a second, at most; none for as many as there can be.
    pub rate: Option<NonZeroU64>,
    /// Whether the target is flushed. Without, a crash of the machine may leave anything, also a
    /// header whose image is not there; a failure of the program alone still leaves no image.
    pub durable: bool,
}

impl Default for ConvertOptions {
    /// As many threads as cores, guest order, holes from 4 KiB, no salvage, shared data, any rate, durable.
    fn default() -> Self {
        Self {
            threads: jobs::default_threads(),
            order: Order::Guest,
            sparse_len: 4096,
            salvage: false,
            share: true,
            rate: None,
            durable: true,
        }
    }
}

/// What a conversion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the virtual disk.
    pub virtual_size: u64,
    /// Bytes that were not zero, or written or shared as if they were not, before compression.
    pub data_len: u64,
    /// Bytes that could not be read and became zeros.
    pub unreadable_len: u64,
}

/// Copies the virtual disk `source` to `target`; durable when it returns unless the options say not
/// to flush.
///
/// Only data is read: what the source maps as zeros or holes costs nothing. Work is split into
/// ranges of the virtual disk that `options.threads` threads copy side by side.
///
/// A new QED or QCOW2 target gets its header last, after everything else is durable, so an
/// interrupted conversion leaves a file that no program takes for an image. A raw target has no
/// such mark.
///
/// Memory: the buffers of the threads, the first-level table of a new QED or QCOW2 target (at most
/// 32 MiB), the second-level tables that jobs in flight touch, and two bytes per host cluster when
/// compressing.
///
/// ```
/// use std::sync::Arc;
/// use qed_convert::{ConvertOptions, NoProgress, Target, convert};
/// use qed_core::{Layout, RawFile};
/// use qed_io::{MemoryStorage, Storage};
/// use qed_spec::Geometry;
///
/// let mut disk = vec![0; 1 << 20];
/// disk[700_000] = 1;
/// let source = RawFile::open(Arc::new(MemoryStorage::new(disk)))?;
/// let file = Arc::new(MemoryStorage::default());
/// let geometry = Geometry::new(65536, 4).ok_or("a legal shape")?;
/// let target = Target::Qed { storage: file.clone(), geometry, layout: Layout::Classic, backing: None };
/// convert(&source, target, &ConvertOptions::default(), &NoProgress)?;
/// // The header area, two tables of four clusters, and the one cluster with data.
/// assert_eq!(file.len()?, (1 + 4 + 4 + 1) * 65536);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ConvertError`] says which side failed and where; the target is then incomplete. With
/// `salvage`, bytes that cannot be read are no error.
pub fn convert(
    source: &dyn VirtualDisk,
    target: Target<'_>,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<Summary, ConvertError> {
    let order = if target.is_stream() { Order::Guest } else { options.order };
    let sink = target.into_sink(source.len(), options.durable)?;
    let run = Run::new(source, &*sink, options, order, progress);
    run.copy_all()?;
    sink.finish()?;
    progress.advanced(source.len(), source.len());
    Ok(Summary {
        virtual_size: source.len(),
        data_len: run.data_len.into_inner(),
        unreadable_len: run.unreadable_len.into_inner(),
    })
}

/// What the threads of one conversion share.
pub(crate) struct Run<'a> {
    source: &'a dyn VirtualDisk,
    sink: &'a dyn Sink,
    options: &'a ConvertOptions,
    progress: &'a dyn Progress,
    turnstile: Turnstile,
    plan: Mutex<Plan<'a>>,
    throttle: Option<Throttle>,
    data_len: AtomicU64,
    unreadable_len: AtomicU64,
}

impl<'a> Run<'a> {
    fn new(
        source: &'a dyn VirtualDisk,
        sink: &'a dyn Sink,
        options: &'a ConvertOptions,
        order: Order,
        progress: &'a dyn Progress,
    ) -> Self {
        let plan = Plan::new(source, sink, options);
        Self {
            source,
            sink,
            options,
            progress,
            turnstile: Turnstile::new(order),
            plan: Mutex::new(plan),
            throttle: options.rate.map(Throttle::new),
            data_len: AtomicU64::new(0),
            unreadable_len: AtomicU64::new(0),
        }
    }

    /// Works through the plan on this thread and its helpers.
    fn copy_all(&self) -> Result<(), ConvertError> {
        jobs::run(
            self.options.threads,
            || self.next_job(),
            || Worker::new(self),
            |worker, (job, turn)| worker.perform(&job, turn),
            || self.turnstile.stop(),
        )
    }

    fn next_job(&self) -> Result<Option<(Job, Turn<'_>)>, ConvertError> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if self.progress.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let Some(job) = plan.next()? else {
            return Ok(None);
        };
        let range = job.range();
        let turn = self.turnstile.enter(range.start, range.end);
        // Everything before the lowest job in flight is behind. Told under the lock, so that it
        // never goes back.
        self.progress.advanced(turn.settled(), self.source.len());
        Ok(Some((job, turn)))
    }

    /// Waits until `len` bytes of data may be written.
    fn wait_for_rate(&self, len: u64) -> Result<(), ConvertError> {
        let Some(throttle) = &self.throttle else { return Ok(()) };
        let start = Instant::now();
        let wait = throttle.enter(len, start);
        while let Some(left) = wait.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            if self.turnstile.is_stopped() || self.progress.is_cancelled() {
                return Err(ConvertError::Cancelled);
            }
            thread::sleep(left.min(CANCEL_INTERVAL));
        }
        Ok(())
    }
}
