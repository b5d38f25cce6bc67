//! Runs a workload on a new image and records what reaches the disk and what the guest was told.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qed_check::recovery_hook;
use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, DEFAULT_CACHE_LIMIT_BYTES, DiscardMode,
    GivenBacking, Image, LockPolicy, OpenError, Prepared, RecoveryPolicy, Shrink, WriteContext,
    ZeroMode, create,
};
use qed_io::{Gate, Record, Recorder, Storage};
use qed_spec::GuestOffset;

use super::guest::{BACKING, Event, Guest, Tag, What, ZERO, content};
use super::life::{Boot, Death, Host, Life, Phase};
use super::states::crash_points;
use super::workload::{Mode, Step, Workload};
use crate::random::Random;
use crate::size::usize_of;
use crate::sparse::{SECTOR, SparseContent, SparseStorage};

/// What a guest or a program hears of a step that failed.
pub(crate) type StepError = Box<dyn Error>;

/// The timer that [`Image::maintain`] is for goes off this often.
const TICK: Duration = Duration::from_secs(6);

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) start: SparseContent,
    pub(crate) records: Vec<Record>,
    pub(crate) events: Vec<Event>,
    /// What the guest knew at the start.
    pub(crate) guest: Guest,
    pub(crate) gate: GivenBacking,
    pub(crate) mode: Mode,
    pub(crate) discard: DiscardMode,
    /// A program wrote the image that knows no marks.
    pub(crate) has_foreign: bool,
    /// Moments at which a process may die, of an image with a pending log.
    pub(crate) deaths: Vec<Death>,
    pub(crate) has_log: bool,
    /// In which run of the kernel they die.
    pub(crate) boot: Boot,
}

/// Runs all steps, then closes the image.
///
/// # Errors
/// A step that failed; nothing but a bug makes one fail.
pub(crate) fn run(workload: &Workload) -> Result<Run, StepError> {
    let mut runner = Runner::new(workload, |recorder| recorder)?;
    let mut image = runner.open()?;
    for step in &workload.steps {
        image = runner.step(image, step).map_err(|error| format!("{step:?}: {error}"))?;
    }
    runner.close(image)?;
    Ok(runner.into_run())
}

/// Opens an image as a program does that may have crashed before.
pub(crate) fn open(
    storage: Arc<dyn Storage>,
    gate: &GivenBacking,
    (cached, discard): (bool, DiscardMode),
    host: Option<&Host>,
) -> Result<Image, OpenError> {
    let recovery = RecoveryPolicy::Run(&recovery_hook);
    let cache_limit_bytes = if cached { DEFAULT_CACHE_LIMIT_BYTES } else { 0 };
    let ownership = host.map(Host::ownership);
    let context = WriteContext::new(gate, LockPolicy::Take, recovery);
    let ownership = ownership.as_ref();
    let context = WriteContext { cache_limit_bytes, discard, ownership, ..context };
    Image::open(storage, &context)
}

/// Does one step after the other.
pub(crate) struct Runner {
    workload: Workload,
    start: SparseContent,
    gate: GivenBacking,
    /// What the image lies on.
    pub(crate) storage: Arc<dyn Storage>,
    recorder: Arc<Recorder>,
    /// What the guest knew at the start.
    guest: Guest,
    /// Stops flushes on their way to the disk; none where they may never arrive.
    pub(crate) stopper: Option<Arc<Gate>>,
    events: Vec<Event>,
    /// The last tag that was given out.
    pub(crate) next_tag: Tag,
    /// Writes that failed: what they wrote may be there or not, whatever is flushed after them.
    doubtful: Vec<Tag>,
    pub(crate) now: Instant,
    /// Where images keep a pending log.
    host: Option<Host>,
    life: Option<Arc<Life>>,
    deaths: Arc<Mutex<Vec<Death>>>,
}

impl Runner {
    /// A new image on a disk that is recorded, with what `around` puts between the two.
    pub(crate) fn new(
        workload: &Workload,
        around: impl FnOnce(Arc<Recorder>) -> Arc<dyn Storage>,
    ) -> Result<Self, StepError> {
        let disk = Arc::new(SparseStorage::new(SparseContent::default()));
        let raw = |name| CreateBacking { name, format: BackingFormat::Raw };
        let options = CreateOptions {
            geometry: Workload::geometry(),
            image_size: workload.size * SECTOR,
            backing: workload.name().map(raw),
            layout: workload.mode.layout(),
        };
        create(&*disk, &options)?;
        let start = disk.content();
        let stopper = Arc::new(Gate::new(disk));
        let recorder = Arc::new(Recorder::new(stopper.clone()));
        Ok(Self {
            workload: workload.clone(),
            start,
            gate: workload.gate(),
            storage: around(recorder.clone()),
            recorder,
            stopper: Some(stopper),
            guest: workload.guest(),
            events: Vec::new(),
            next_tag: BACKING,
            doubtful: Vec::new(),
            now: Instant::now(),
            host: workload.has_log.then(Host::new),
            life: None,
            deaths: Arc::default(),
        })
    }

    pub(crate) fn open(&mut self) -> Result<Image, OpenError> {
        let Workload { cached, discard, .. } = self.workload;
        let mut storage = self.storage.clone();
        if let Some(host) = &mut self.host {
            host.next();
            let life = host.live(storage, self.recorder.clone(), self.deaths.clone());
            storage = life.clone();
            self.life = Some(life);
        }
        let image = open(storage, &self.gate, (cached, discard), self.host.as_ref())?;
        self.enter(Phase::Serving);
        Ok(image)
    }

    fn enter(&self, phase: Phase) {
        if let Some(life) = &self.life {
            life.enter(phase);
        }
    }

    /// All requests were answered but these writes; the process may die now.
    pub(crate) fn answered(&mut self, under_way: Vec<Tag>) {
        if let Some(life) = self.life.clone() {
            self.log(What::Answered { under_way });
            life.note();
        }
    }

    /// Whether tables stay in memory until a flush: a request then needs no turn to look at one.
    pub(crate) fn is_cached(&self) -> bool {
        self.workload.cached
    }

    pub(crate) fn close(&mut self, image: Image) -> Result<(), StepError> {
        self.enter(Phase::Closing);
        image.close()?;
        self.acknowledge(Vec::new());
        Ok(())
    }

    /// Does a step; the image, or a new one where it was closed.
    pub(crate) fn step(&mut self, image: Image, step: &Step) -> Result<Image, StepError> {
        match step {
            Step::Crash(number) => return self.crash(image, *number),
            Step::Die => return self.die(image),
            Step::Reopen => self.close(image)?,
            Step::Foreign => {
                self.close(image)?;
                self.foreign()?;
            }
            _ => {
                let flushes = matches!(step, Step::Flush | Step::Maintain);
                self.enter(if flushes { Phase::Flushing } else { Phase::Serving });
                self.step_inside(&image, step)?;
                self.answered(Vec::new());
                return Ok(image);
            }
        }
        Ok(self.open()?)
    }

    /// Does a step that leaves the image open.
    pub(crate) fn step_inside(&mut self, image: &Image, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Write { first, count } => self.guest_write(image, *first, *count)?,
            Step::Zero { first, count } => self.zero(image, *first, *count, ZeroMode::IfNeeded)?,
            Step::Unmap { first, count } => self.zero(image, *first, *count, ZeroMode::Unmap)?,
            Step::Discard { first, count } => self.discard(image, *first, *count)?,
            Step::Sweep => drop(image.sweep()?),
            Step::WriteBeside { what, first, count } => {
                self.write_beside(image, *what, *first, *count)?;
            }
            Step::Compact { steps, defragment, writes } => {
                self.compact(image, *steps, *defragment, writes)?;
            }
            Step::Flush => self.flush(image, Vec::new())?,
            Step::Resize(size) => {
                self.log(What::ResizeAsked(*size));
                image.resize(size * SECTOR, Shrink::Allow)?;
                self.acknowledge(Vec::new());
                self.log(What::Resized(*size));
            }
            Step::Abandon { first } => self.abandon(image, *first)?,
            Step::Together { writes, discards, order } => {
                self.together(image, writes, discards, *order)?;
            }
            Step::SetBacking(name) => {
                self.log(What::Renaming(name.clone()));
                let raw = |name| CreateBacking { name, format: BackingFormat::Raw };
                image.set_backing(name.clone().map(raw).as_ref())?;
                self.acknowledge(Vec::new());
                self.log(What::Renamed);
            }
            Step::Maintain => {
                self.now += TICK;
                image.maintain(self.now)?;
                self.now += TICK;
                image.maintain(self.now)?;
            }
            Step::Reopen | Step::Foreign | Step::Crash(_) | Step::Die => {}
        }
        Ok(())
    }

    pub(crate) fn guest_write(
        &mut self,
        image: &Image,
        first: u64,
        count: u64,
    ) -> Result<(), StepError> {
        let data = self.ask(first, count).1;
        Ok(image.write_at(&data, GuestOffset::new(first * SECTOR))?)
    }

    fn zero(
        &mut self,
        image: &Image,
        first: u64,
        count: u64,
        mode: ZeroMode,
    ) -> Result<(), StepError> {
        self.log(What::Asked { first, count, tag: ZERO });
        Ok(image.write_zeroes(GuestOffset::new(first * SECTOR), count * SECTOR, mode)?)
    }

    /// Everything since a tag was given out failed, or may have, and so did these.
    pub(crate) fn doubt(&mut self, after: Tag, others: &[Tag]) {
        self.doubtful.extend(after + 1..=self.next_tag);
        self.doubtful.extend(others);
    }

    /// What was recorded so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.recorder.records()
    }

    /// What the guest may find now.
    pub(crate) fn guest_now(&self) -> Guest {
        let mut guest = self.guest.clone();
        guest.advance(&self.events, u64::MAX);
        guest
    }

    pub(crate) fn into_run(self) -> Run {
        let workload = &self.workload;
        let Workload { mode, discard, has_log, .. } = *workload;
        let has_foreign = workload.steps.iter().any(|step| matches!(step, Step::Foreign));
        let boot = self.host.as_ref().map_or_else(Boot::default, Host::boot);
        let Self { start, recorder, guest, events, gate, deaths, .. } = self;
        let deaths = std::mem::take(&mut *deaths.lock().unwrap_or_else(PoisonError::into_inner));
        let records = recorder.records();
        Run {
            start,
            records,
            events,
            guest,
            gate,
            mode,
            discard,
            has_foreign,
            deaths,
            has_log,
            boot,
        }
    }

    /// A flush of the guest, which covers all writes but those under way.
    pub(crate) fn flush(&mut self, image: &Image, under_way: Vec<Tag>) -> Result<(), StepError> {
        image.flush()?;
        self.acknowledge(under_way);
        Ok(())
    }

    /// A flush has returned, which does not cover these writes.
    pub(crate) fn acknowledge(&mut self, mut under_way: Vec<Tag>) {
        under_way.extend(&self.doubtful);
        self.log(What::Acknowledged { under_way });
    }

    /// A crash: what follows begins with a state that it may have left.
    fn crash(&mut self, image: Image, number: u64) -> Result<Image, StepError> {
        // Where requests fail nothing else is done to the disk.
        if self.stopper.is_none() {
            return Ok(image);
        }
        let points = crash_points(&self.start, &self.recorder.records());
        // What closing writes goes to a disk that is no more.
        drop(image);
        let mut random = Random::new(number);
        let point = &points[usize_of(random.below(points.len() as u64))];
        self.start = point.state(&point.any(&mut random));
        let stopper = Arc::new(Gate::new(Arc::new(SparseStorage::new(self.start.clone()))));
        self.recorder = Arc::new(Recorder::new(stopper.clone()));
        self.storage = self.recorder.clone();
        self.stopper = Some(stopper);
        self.events.clear();
        self.deaths = Arc::default();
        self.host = self.host.take().map(Host::started_again);
        let image = self.open()?;
        self.guest = self.guest.found(&image)?;
        Ok(image)
    }

    /// The process dies; the next one makes all that was answered durable.
    fn die(&mut self, image: Image) -> Result<Image, StepError> {
        let Some((host, life)) = self.host.as_ref().zip(self.life.as_ref()) else {
            return Ok(image);
        };
        host.dies(life, || drop(image));
        let image = self.open()?;
        self.acknowledge(Vec::new());
        Ok(image)
    }

    fn abandon(&mut self, image: &Image, first: u64) -> Result<(), StepError> {
        let request = image.request();
        let prepared = request.prepare(GuestOffset::new(first * SECTOR), SECTOR)?;
        if let Prepared::Allocating(allocation) = prepared {
            self.next_tag += 1;
            let foreign = content(self.next_tag, u64::from(u32::MAX));
            self.storage.write_at(&foreign, allocation.host().get())?;
        }
        Ok(())
    }

    /// Notes a write of new content: its tag and its bytes.
    pub(crate) fn ask(&mut self, first: u64, count: u64) -> (Tag, Vec<u8>) {
        self.next_tag += 1;
        let tag = self.next_tag;
        self.log(What::Asked { first, count, tag });
        (tag, (first..first + count).flat_map(|sector| content(tag, sector)).collect())
    }

    pub(crate) fn log(&mut self, what: What) {
        self.events.push(Event { order: self.recorder.tick(), what });
    }
}
