//! One seed after the other until enough states were judged, and how many of which kind they were.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Display, Formatter};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use qed_core::DiscardMode;

use super::death::{Deaths, each_death};
use super::failure::Failure;
use super::fingerprint::{Fingerprints, mix};
use super::generate::{Backing, Family, Seeded};
use super::guest::Guest;
use super::judge::{Verdict, depth_of, judge};
use super::life::Phase;
use super::qemu_view;
use super::regions::{Region, Regions};
use super::rules::{Reuse, Rule, asks_for_check, at_stake, names_tables};
use super::run::{Run, run};
use super::states::{Choice, crash_points};
use super::workload::{Mode, Workload};
use crate::random::Random;
use crate::sparse::SparseContent;

/// What is judged.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// States to judge at least.
    pub states: u64,
    /// The first seed.
    pub seed: u64,
    /// Images of this mode alone.
    pub mode: Option<Mode>,
    /// One state in so many is opened by QEMU, too; 0 for none.
    pub qemu: u64,
    /// Threads; none for as many as there are processors.
    pub threads: Option<NonZeroUsize>,
}

/// Which states of a crash point are judged: all of them up to a number, else a sample.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sample {
    /// All up to the number, else a sample of sectors and lengths.
    Even {
        /// The number.
        most: u64,
    },
    /// So many of metadata and length; of each, three with different guest data.
    Metadata {
        /// The number, also of the random ones of a sample.
        most: u64,
    },
}

/// Deaths of a process that are judged of one workload.
const DEATHS: usize = 12;
/// And where it is a case that a test names.
const DEATHS_OF_CASE: usize = 60;

const SAMPLE: Sample = Sample::Metadata { most: 1 << 9 };

/// How many states of which kind were judged. States count once: those that differ only in what
/// no recovery reads, in guest data, are one.
#[derive(Debug, Default)]
pub struct Tally {
    /// Distinct states.
    pub states: u64,
    /// Those that opening the image changed.
    pub recovered: u64,
    /// Those of images that pass discards down; the others use space again without a word.
    pub passed_down: u64,
    /// States that were judged, those that are not distinct included.
    pub judged: u64,
    /// States of recoveries that were crashed in turn.
    pub again: u64,
    /// States that QEMU opened, too.
    pub by_qemu: u64,
    /// Workloads.
    pub workloads: u64,
    rules: BTreeMap<(Rule, Mode, Backing), u64>,
    families: BTreeMap<(Family, Mode, Backing), u64>,
    /// Deaths of a process, by what it did.
    deaths: BTreeMap<(Phase, Mode, Backing), u64>,
    /// How many of them left records, how many processes died after them while they opened, and how many
    /// power losses came then.
    pub of_deaths: [u64; 3],
}

/// Judges states until there are enough of them.
///
/// # Errors
/// The first that is wrong.
pub fn crash_campaign(campaign: &Campaign) -> Result<Tally, Box<Failure>> {
    let work = Work::new(campaign);
    let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = campaign.threads.map_or_else(processors, NonZeroUsize::get);
    thread::scope(|scope| {
        (0..threads).for_each(|_| {
            scope.spawn(|| work.work());
        });
    });
    match into_inner(work.failure) {
        Some(failure) => Err(failure),
        None => Ok(into_inner(work.found).tally),
    }
}

/// Judges the states of one workload, as many as `most` of each crash point.
///
/// # Errors
/// The first that is wrong.
pub fn crash_workload(workload: &Workload, most: u64) -> Result<Tally, Box<Failure>> {
    let mut tally = Tally::default();
    let mut seen = HashSet::new();
    // Of no backing file that is told apart from others.
    let cell = |phase| (phase, workload.mode, Backing::None);
    each_death(workload, DEATHS_OF_CASE, |phase, judged| tally.add_death(cell(phase), judged))?;
    each_state(workload, Sample::Even { most }, |state| {
        let verdict = state.judge()?;
        let is_new = seen.insert(state.fingerprint);
        tally.add(&verdict, is_new);
        Ok(())
    })?;
    Ok(tally)
}

/// One state of a workload.
pub(crate) struct State<'a> {
    run: &'a Run,
    guest: &'a Guest,
    pub(crate) content: SparseContent,
    rules: &'a [Rule],
    /// The durable state says which tables to check, so all others do as well.
    is_marked: bool,
    number: u64,
    /// Of what a recovery reads.
    fingerprint: u64,
}

impl State<'_> {
    /// Whether anything is wrong with it.
    pub(crate) fn judge(&self) -> Result<Verdict, String> {
        let depth = depth_of(&mut Random::new(self.number));
        if self.is_marked
            && asks_for_check(&self.content)
            && !names_tables(&self.content, self.run.mode)
        {
            return Err("nothing says which tables to check".to_owned());
        }
        let judged = || judge(&self.content, self.guest, self.run, depth);
        catch_unwind(AssertUnwindSafe(judged)).unwrap_or_else(|_| Err("a panic".to_owned()))
    }
}

/// Calls `visit` with each state of a workload that differs from those before it.
pub(crate) fn each_state(
    workload: &Workload,
    sample: Sample,
    mut visit: impl FnMut(&State<'_>) -> Result<(), String>,
) -> Result<(), Box<Failure>> {
    let run = run_checked(workload)?;
    let mut guest = run.guest.clone();
    let (mut seen, mut reuse) = (HashSet::new(), Reuse::default());
    for point in crash_points(&run.start, &run.records) {
        guest.advance(&run.events, point.order);
        let regions = Regions::of(&point, workload.mode);
        // What blocks with a checksum must survive; not each time, since it makes many states.
        let is_torn = |number| matches!(regions.region(number), Region::Ring | Region::Superblock);
        let tears = point.position.is_multiple_of(3);
        let point = if tears { point.with_garbage(is_torn) } else { point };
        let is_marked = names_tables(&point.durable, workload.mode);
        let rules = at_stake(&point, &regions, workload, &mut reuse);
        let fingerprints = Fingerprints::new(&point, &regions);
        let mut failed: Option<(Vec<usize>, String)> = None;
        let visit = |choice: &Choice| {
            let fingerprint = fingerprints.of(choice);
            // The same bytes may mean another thing once more was acknowledged.
            if failed.is_some() || !seen.insert((guest.happened(), fingerprint.whole)) {
                return;
            }
            let state = State {
                run: &run,
                guest: &guest,
                content: point.state(choice),
                rules: &rules,
                is_marked,
                number: seen.len() as u64,
                fingerprint: fingerprint.metadata,
            };
            if let Err(problem) = visit(&state) {
                failed = Some((choice.to_vec(), problem));
            }
        };
        match sample {
            Sample::Even { most } => point.for_each_choice(most, most / 8, visit),
            Sample::Metadata { most } => {
                point.for_each_by_metadata(|i| fingerprints.is_metadata(i), most, visit);
            }
        }
        if let Some((choice, problem)) = failed {
            return Err(Failure::of_state(workload, &run, &point, choice, problem));
        }
    }
    Ok(())
}

/// Runs a workload.
pub(crate) fn run_checked(workload: &Workload) -> Result<Run, Box<Failure>> {
    let run = catch_unwind(|| run(workload).map_err(|error| error.to_string()));
    let run = run.unwrap_or_else(|_| Err("a panic".to_owned()));
    run.map_err(|problem| Failure::of_run(workload, problem))
}

/// What the threads share.
struct Work<'a> {
    campaign: &'a Campaign,
    next_seed: AtomicU64,
    stop: AtomicBool,
    found: Mutex<Found>,
    failure: Mutex<Option<Box<Failure>>>,
}

#[derive(Default)]
struct Found {
    seen: HashSet<u64>,
    tally: Tally,
}

/// A state that was judged, to be counted.
struct Judged {
    fingerprint: u64,
    verdict: Verdict,
    rules: Vec<Rule>,
}

impl<'a> Work<'a> {
    fn new(campaign: &'a Campaign) -> Self {
        Self {
            campaign,
            next_seed: AtomicU64::new(campaign.seed),
            stop: AtomicBool::new(false),
            found: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            let seeded = Seeded::of(seed);
            if self.campaign.mode.is_some_and(|mode| mode != seeded.workload.mode) {
                continue;
            }
            if let Err(failure) = self.seed(seed, &seeded) {
                self.stop.store(true, Ordering::Relaxed);
                let mut first = locked(&self.failure);
                // Threads meet failures in any order; the least seed is the same each time.
                let failure = failure.with_seed(seed);
                if first.as_ref().is_none_or(|first| first.seed() > failure.seed()) {
                    *first = Some(failure);
                }
            }
        }
    }

    fn seed(&self, seed: u64, seeded: &Seeded) -> Result<(), Box<Failure>> {
        let Seeded { backing, workload, .. } = seeded;
        let kind = mix((workload.mode as u64) << 8 | *backing as u64);
        let mut judged = Vec::new();
        let mut by_qemu = 0;
        each_state(workload, SAMPLE, |state| {
            let verdict = state.judge()?;
            if self.campaign.qemu > 0 && mix(seed ^ state.number).is_multiple_of(self.campaign.qemu)
            {
                by_qemu += u64::from(qemu_view::judge(&state.content, state.guest, workload)?);
            }
            let fingerprint = state.fingerprint ^ kind;
            judged.push(Judged { fingerprint, verdict, rules: state.rules.to_vec() });
            Ok(())
        })?;
        let mut deaths = Vec::new();
        each_death(workload, DEATHS, |phase, judged| deaths.push((phase, judged)))?;
        let mut found = locked(&self.found);
        found.add(seeded, &judged);
        for (phase, judged) in deaths {
            found.tally.add_death((phase, seeded.workload.mode, seeded.backing), judged);
        }
        found.tally.by_qemu += by_qemu;
        if found.tally.states >= self.campaign.states {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Found {
    fn add(&mut self, seeded: &Seeded, judged: &[Judged]) {
        let (mode, backing) = (seeded.workload.mode, seeded.backing);
        self.tally.workloads += 1;
        for Judged { fingerprint, verdict, rules } in judged {
            let is_new = self.seen.insert(*fingerprint);
            self.tally.add(verdict, is_new);
            if is_new {
                *self.tally.families.entry((seeded.family, mode, backing)).or_default() += 1;
                let passes_down = seeded.workload.discard == DiscardMode::PassDown;
                self.tally.passed_down += u64::from(passes_down);
            }
            for rule in rules.iter().filter(|rule| is_new || rule.is_about_data()) {
                *self.tally.rules.entry((*rule, mode, backing)).or_default() += 1;
            }
        }
    }
}

impl Tally {
    fn add(&mut self, verdict: &Verdict, is_new: bool) {
        self.judged += 1;
        self.again += verdict.again;
        if is_new {
            self.states += 1;
            self.recovered += u64::from(verdict.recovered);
        }
    }

    fn add_death(&mut self, cell: (Phase, Mode, Backing), judged: Deaths) {
        *self.deaths.entry(cell).or_default() += 1;
        let Deaths { had_records, again, power_losses } = judged;
        let more = [u64::from(had_records), again, power_losses];
        self.of_deaths.iter_mut().zip(more).for_each(|(all, more)| *all += more);
    }

    /// Deaths of a process that were judged.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.deaths.values().sum()
    }

    /// Whether states of every kind were judged, and recovery had enough to do.
    ///
    /// # Errors
    /// The kinds of which there is none, of images of these modes.
    pub fn is_broad(&self, modes: &[Mode]) -> Result<(), String> {
        let missing = self.missing(modes);
        if !missing.is_empty() {
            return Err(format!("there is no state of: {}", missing.join("; ")));
        }
        if self.recovered < self.states / 10 {
            return Err(format!("recovery did something in only {}", self.recovered));
        }
        let [with_records, ..] = self.of_deaths;
        if with_records < self.deaths() / 4 {
            return Err(format!("only {with_records} dead processes left records"));
        }
        Ok(())
    }

    fn missing(&self, modes: &[Mode]) -> Vec<String> {
        let cells = || modes.iter().flat_map(|mode| Backing::ALL.map(|backing| (*mode, backing)));
        let rules = Rule::ALL.into_iter().flat_map(|rule| cells().map(move |cell| (rule, cell)));
        let rules = rules.filter(|(rule, (mode, backing))| {
            rule.applies(*mode, *backing != Backing::None)
                && !self.rules.contains_key(&(*rule, *mode, *backing))
        });
        let families =
            Family::ALL.into_iter().flat_map(|family| cells().map(move |cell| (family, cell)));
        let families = families.filter(|(family, (mode, backing))| {
            !self.families.contains_key(&(*family, *mode, *backing))
        });
        let deaths =
            Phase::ALL.into_iter().flat_map(|phase| cells().map(move |cell| (phase, cell)));
        let deaths = deaths.filter(|(phase, (mode, backing))| {
            !self.deaths.contains_key(&(*phase, *mode, *backing))
        });
        let name = |what: &dyn Display, (mode, backing): (Mode, Backing)| {
            format!("{what}, {mode}, backing file {backing}")
        };
        rules
            .map(|(rule, cell)| name(&rule.text(), cell))
            .chain(families.map(|(family, cell)| name(&family, cell)))
            .chain(deaths.map(|(phase, cell)| name(&phase.text(), cell)))
            .collect()
    }

    fn row(f: &mut Formatter<'_>, name: &str, cell: Cell<'_>) -> fmt::Result {
        write!(f, "{name:<30}")?;
        for mode in Mode::ALL {
            for backing in Backing::ALL {
                match cell(mode, backing) {
                    Some(count) => write!(f, " {count:>10}")?,
                    None => write!(f, " {:>10}", "-")?,
                }
            }
        }
        writeln!(f)
    }
}

/// The number in a column; none where there can be none.
type Cell<'a> = &'a dyn Fn(Mode, Backing) -> Option<u64>;

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<30}", "mode, backing file")?;
        for mode in Mode::ALL {
            for backing in Backing::ALL {
                write!(f, " {:>10}", format!("{mode:.2} {backing}"))?;
            }
        }
        writeln!(f)?;
        for rule in Rule::ALL {
            Self::row(f, rule.text(), &|mode, backing| {
                let count = || self.rules.get(&(rule, mode, backing)).copied().unwrap_or_default();
                rule.applies(mode, backing != Backing::None).then(count)
            })?;
        }
        for family in Family::ALL {
            Self::row(f, &format!("steps: {family}"), &|mode, backing| {
                Some(self.families.get(&(family, mode, backing)).copied().unwrap_or_default())
            })?;
        }
        for phase in Phase::ALL {
            Self::row(f, phase.text(), &|mode, backing| {
                Some(self.deaths.get(&(phase, mode, backing)).copied().unwrap_or_default())
            })?;
        }
        let [with_records, again, power_losses] = self.of_deaths;
        writeln!(
            f,
            "{} deaths of a process, {with_records} of them with records ({again} more while the next one \
             opened, {power_losses} power losses then)",
            self.deaths()
        )?;
        write!(
            f,
            "{} states, {} of them recovered, {} of images that pass discards down ({} judged, and {} of \
             crashed recoveries; {} by QEMU; {} workloads)",
            self.states,
            self.recovered,
            self.passed_down,
            self.judged,
            self.again,
            self.by_qemu,
            self.workloads
        )
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
