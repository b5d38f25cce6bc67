//! Every request of a workload fails once, and from there on: nobody panics, the first failed flush
//! is the last write, and what a crash then leaves keeps every promise.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use qed_core::{Image, ImageError};
use qed_io::{Fault, Faulty, Recorder, Repeat, Request, RequestKind, Storage};
use qed_spec::GuestOffset;

use super::generate::Seeded;
use super::guest::{BACKING, Tag, ZERO};
use super::judge::{Depth, judge, reads_as_promised};
use super::run::{Run, Runner};
use super::states::crash_points;
use super::workload::{Step, Workload};
use crate::random::Random;
use crate::size::usize_of;
use crate::sparse::EMPTY;

/// Crash points that are judged after a run, and states of each.
const POINTS: usize = 2;
const STATES: usize = 2;

/// What is done wrong by the storage.
#[derive(Debug, Clone, Copy)]
pub struct ErrorCampaign {
    /// Workloads, from seed 0 on.
    pub workloads: u64,
    /// Of the requests of a workload one in so many fails.
    pub one_in: u64,
}

/// How much was done.
#[derive(Debug, Default)]
pub struct ErrorTally {
    /// Workloads.
    pub workloads: u64,
    /// Runs, in each of which one request failed, or all from one on.
    pub runs: u64,
    /// Runs in which that was a flush, and so the last write.
    pub stopped: u64,
    /// States that were judged.
    pub states: u64,
}

/// Runs all of it.
///
/// # Errors
/// The first run in which anything is wrong.
pub fn error_campaign(campaign: ErrorCampaign) -> Result<ErrorTally, String> {
    let next = AtomicU64::new(0);
    let (sum, problem) = (Mutex::new(ErrorTally::default()), Mutex::new(None));
    let work = || {
        while problem.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= campaign.workloads {
                return;
            }
            match each_request(seed, campaign.one_in) {
                Ok(tally) => sum.lock().unwrap_or_else(PoisonError::into_inner).add(&tally),
                Err(text) => {
                    *problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| {
            scope.spawn(work);
        });
    });
    match problem.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(problem) => Err(problem),
        None => Ok(sum.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

impl ErrorTally {
    fn add(&mut self, other: &Self) {
        self.workloads += other.workloads;
        self.runs += other.runs;
        self.stopped += other.stopped;
        self.states += other.states;
    }
}

/// All runs of one seed.
fn each_request(seed: u64, one_in: u64) -> Result<ErrorTally, String> {
    let workload = Seeded::of(seed).workload;
    let (requests, _) =
        Disturbed::run(&workload, None).map_err(|error| format!("{seed}: {error}"))?;
    let mut tally = ErrorTally { workloads: 1, ..ErrorTally::default() };
    for number in (seed % one_in..requests).step_by(usize_of(one_in)) {
        let kinds = [Fault::Io, Fault::NoSpace, Fault::Partial { bytes: 512 }];
        let fault = kinds[usize_of((seed + number / one_in) % 3)];
        for repeat in [Repeat::Once, Repeat::Always] {
            let disturb = Disturb { number, fault, repeat };
            let run = || Disturbed::run(&workload, Some(disturb));
            let done =
                catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("a panic".into()));
            let (_, one) = done
                .map_err(|problem| format!("seed {seed}, {disturb:?}: {problem}\n{workload:#?}"))?;
            tally.add(&one);
        }
    }
    Ok(tally)
}

/// The request that fails, and how.
#[derive(Debug, Clone, Copy)]
struct Disturb {
    number: u64,
    fault: Fault,
    repeat: Repeat,
}

/// A workload on a storage that fails.
struct Disturbed {
    runner: Runner,
    faulty: Arc<Faulty>,
    flush_failed: Arc<AtomicBool>,
}

impl Disturbed {
    /// How many requests there were, and what was judged.
    fn run(workload: &Workload, disturb: Option<Disturb>) -> Result<(u64, ErrorTally), String> {
        let mut faulty = None;
        let around = |recorder: Arc<Recorder>| {
            let storage = Arc::new(Faulty::new(recorder));
            faulty = Some(storage.clone());
            storage as Arc<dyn Storage>
        };
        let mut runner = Runner::new(workload, around).map_err(|error| error.to_string())?;
        // A flush that fails never comes there.
        runner.stopper = None;
        let faulty = faulty.ok_or("no storage was made")?;
        let flush_failed = Arc::new(AtomicBool::new(false));
        if let Some(Disturb { number, fault, repeat }) = disturb {
            let flag = flush_failed.clone();
            let chooses = move |request: &Request| {
                let is_chosen = request.number >= number;
                if is_chosen && request.kind == RequestKind::Flush {
                    flag.store(true, Ordering::Relaxed);
                }
                is_chosen
            };
            faulty.fail_when(chooses, fault, repeat);
        }
        let mut disturbed = Self { runner, faulty, flush_failed };
        disturbed.steps(workload, disturb.is_some_and(|it| it.repeat == Repeat::Once))?;
        disturbed.judge(disturb)
    }

    /// Does the steps as far as they can be done.
    fn steps(&mut self, workload: &Workload, is_once: bool) -> Result<(), String> {
        let Ok(mut image) = self.runner.open() else {
            return self.expect_failure("opening");
        };
        for step in &workload.steps {
            let before = self.runner.next_tag;
            let done = match step {
                Step::Reopen | Step::Foreign => match self.runner.step(image, step) {
                    Ok(opened) => {
                        image = opened;
                        Ok(())
                    }
                    Err(_) => return self.expect_failure("closing and opening"),
                },
                _ => self.runner.step_inside(&image, step),
            };
            if let Err(error) = done {
                self.expect_failure(&format!("{step:?}: {error}"))?;
                let others: &[Tag] = match step {
                    Step::Zero { .. }
                    | Step::Unmap { .. }
                    | Step::Discard { .. }
                    | Step::Together { .. } => &[ZERO],
                    // What a shrink was to delete may be gone.
                    Step::Resize(_) => &[ZERO, BACKING],
                    _ => &[],
                };
                self.runner.doubt(before, others);
                self.after_failure(&image)?;
                // What the next steps are made for is not what there is.
                if matches!(step, Step::Resize(_) | Step::SetBacking(_)) {
                    break;
                }
            }
        }
        if is_once && self.faulty.failures() > 0 {
            reads_as_promised(&image, &self.runner.guest_now())?;
        }
        match self.runner.close(image) {
            Ok(()) => Ok(()),
            Err(_) => self.expect_failure("closing"),
        }
    }

    /// A step failed: has a request?
    fn expect_failure(&self, what: &str) -> Result<(), String> {
        if self.faulty.failures() > 0 { Ok(()) } else { Err(format!("{what} failed by itself")) }
    }

    /// The first failed flush is terminal for writes.
    fn after_failure(&self, image: &Image) -> Result<(), String> {
        if !self.flush_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let before = self.runner.records();
        let write = image.write_at(&EMPTY, GuestOffset::new(0));
        let flush = image.flush();
        if !matches!(write, Err(ImageError::WritesStopped)) || flush.is_ok() {
            return Err(format!("after a failed flush: {write:?}, {flush:?}"));
        }
        if self.runner.records() != before {
            return Err("something was written after a failed flush".to_owned());
        }
        Ok(())
    }

    fn judge(self, disturb: Option<Disturb>) -> Result<(u64, ErrorTally), String> {
        let requests = self.faulty.requests();
        let stopped = u64::from(self.flush_failed.load(Ordering::Relaxed));
        let run = self.runner.into_run();
        let mut random = Random::new(disturb.map_or(0, |disturb| disturb.number));
        let states = judge_some(&run, &mut random)?;
        Ok((requests, ErrorTally { workloads: 0, runs: 1, stopped, states }))
    }
}

/// Judges the disk as it is at the end, and some states of crashes then and before.
fn judge_some(run: &Run, random: &mut Random) -> Result<u64, String> {
    let points = crash_points(&run.start, &run.records);
    let mut judged = 0;
    for number in 0..POINTS.min(points.len()) {
        let point = match number {
            0 => &points[points.len() - 1],
            _ => &points[usize_of(random.below(points.len() as u64))],
        };
        let mut guest = run.guest.clone();
        guest.advance(&run.events, point.order);
        let mut choices = Vec::new();
        point.for_each_choice(8, 8, |choice| choices.push(choice.to_vec()));
        for state in 0..STATES {
            let choice = match (number, state) {
                (0, 0) => point.everything(),
                _ => choices[usize_of(random.below(choices.len() as u64))].clone(),
            };
            judge(&point.state(&choice), &guest, run, Depth::Once)
                .map_err(|problem| format!("at {}: {problem}", point.position))?;
            judged += 1;
        }
    }
    Ok(judged)
}
