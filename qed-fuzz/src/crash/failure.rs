//! A state in which something is wrong: made small, printed, and left as an image.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use qed_io::Operation;

use super::campaign::{Sample, each_state};
use super::death::each_death;
use super::judge::{Depth, judge};
use super::regions::Regions;
use super::run::Run;
use super::states::CrashPoint;
use super::workload::Workload;
use crate::sparse::{SECTOR, SparseContent};

/// What is looked at when a workload is made shorter.
const SAMPLE: Sample = Sample::Metadata { most: 1 << 8 };

/// Something is wrong.
#[derive(Debug)]
pub struct Failure {
    seed: Option<u64>,
    workload: Workload,
    problem: String,
    /// What was done and what of it survived; nothing where a step itself failed.
    events: Vec<String>,
    content: SparseContent,
}

impl Failure {
    /// A step failed that nothing disturbed.
    pub(crate) fn of_run(workload: &Workload, problem: String) -> Box<Self> {
        Box::new(Self {
            seed: None,
            workload: workload.clone(),
            problem,
            events: Vec::new(),
            content: SparseContent::default(),
        })
    }

    /// A state is wrong.
    pub(crate) fn of_state(
        workload: &Workload,
        run: &Run,
        point: &CrashPoint,
        mut choice: Vec<usize>,
        mut problem: String,
    ) -> Box<Self> {
        let mut guest = run.guest.clone();
        guest.advance(&run.events, point.order);
        for i in 0..choice.len() {
            let survived = std::mem::take(&mut choice[i]);
            let judged = judge(&point.state(&choice), &guest, run, Depth::Once);
            match judged {
                Err(same) if survived > 0 => problem = same,
                _ => choice[i] = survived,
            }
        }
        Box::new(Self {
            seed: None,
            workload: workload.clone(),
            problem,
            events: events(workload, run, point, &choice),
            content: point.state(&choice),
        })
    }

    /// What a process that died left is wrong.
    pub(crate) fn of_death(
        workload: &Workload,
        run: &Run,
        (content, order): (&SparseContent, u64),
        problem: String,
    ) -> Box<Self> {
        let done = run.records.iter().filter(|record| record.submitted < order);
        let events = done.map(|record| match &record.operation {
            Operation::Write { offset, bytes } => format!("write {offset:#x}+{:#x}", bytes.len()),
            other => format!("{other:x?}"),
        });
        Box::new(Self {
            seed: None,
            workload: workload.clone(),
            problem,
            events: events.collect(),
            content: content.clone(),
        })
    }

    pub(crate) fn with_seed(mut self: Box<Self>, seed: u64) -> Box<Self> {
        self.seed = Some(seed);
        self
    }

    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The same with as few steps as show anything wrong.
    #[must_use]
    pub fn minimised(self: Box<Self>) -> Box<Self> {
        let mut least = self;
        let mut number = least.workload.steps.len();
        while number > 0 {
            number -= 1;
            let mut shorter = least.workload.clone();
            shorter.steps.remove(number);
            let judged = each_state(&shorter, SAMPLE, |state| state.judge().map(drop));
            let judged = judged.and_then(|()| each_death(&shorter, usize::MAX, |_, _| {}));
            // A step that itself fails without the one before it shows nothing.
            if let Err(failure) = judged
                && !failure.content.is_empty()
            {
                least = Box::new(Self { seed: least.seed, ..*failure });
                number = number.min(least.workload.steps.len());
            }
        }
        least
    }

    /// Leaves the image in a folder; its path.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn leave_in(&self, folder: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("seed-{}.qed", self.seed.unwrap_or_default()));
        write_sparse(&self.content, &path)?;
        Ok(path)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(seed) = self.seed {
            writeln!(f, "seed {seed}: cargo xtask crash --seed {seed} --states 1")?;
        }
        let Workload { mode, size, backing, cached, discard, has_log, steps } = &self.workload;
        let log = if *has_log { ", with a pending log" } else { "" };
        writeln!(f, "{mode}, {size} sectors over {backing}, cached: {cached}, {discard:?}{log}")?;
        steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))?;
        write!(f, "wrong: {}", self.problem)
    }
}

/// What was written since the last flush that completed, and what of it survived.
fn events(workload: &Workload, run: &Run, point: &CrashPoint, choice: &[usize]) -> Vec<String> {
    let regions = Regions::of(point, workload.mode);
    let mut flushes = 0;
    let mut events = Vec::new();
    for record in &run.records {
        if record.submitted > point.order {
            break;
        }
        let what = match &record.operation {
            Operation::Flush => {
                let is_done = record.completion.is_some_and(|it| it.order < point.order);
                if is_done {
                    flushes += 1;
                    events.clear();
                }
                let done = if is_done { "" } else { ", which did not end" };
                format!("flush {}{done}", flushes + u32::from(!is_done))
            }
            Operation::Write { offset, bytes } => {
                let region = regions.region(offset / SECTOR);
                format!("write {:#x}+{:#x} {region:?}", offset, bytes.len())
            }
            Operation::WriteZeroes(range) => format!("zeros {:#x}..{:#x}", range.start, range.end),
            Operation::PunchHole(range) => format!("punch {:#x}..{:#x}", range.start, range.end),
            Operation::Discard(range) => format!("discard {:#x}..{:#x}", range.start, range.end),
            Operation::SetLen(len) => format!("length {len:#x}"),
        };
        events.push(what);
    }
    let versions = point.sectors.iter().zip(choice);
    let survived = versions.filter(|(_, version)| **version > 0).map(|((number, all), version)| {
        let (at, region) = (number * SECTOR, regions.region(*number));
        format!("survived: {at:#x} {region:?}, version {version} of {}", all.len() - 1)
    });
    events.extend(survived);
    events.push(format!("the length is {:#x}", point.lens[choice[choice.len() - 1]]));
    events
}

/// Writes the sectors that are not zeros.
pub(crate) fn write_sparse(content: &SparseContent, path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    for number in content.held_sectors() {
        let sector = content.sector(number);
        if sector.iter().any(|byte| *byte != 0) {
            file.write_all_at(&sector, number * SECTOR)?;
        }
    }
    file.set_len(content.len())
}
