//! What the death of the process alone leaves of a run: everything that was written, and the words of the
//! pending log. All that was answered has to be there, also if the next process dies, and nothing that was
//! flushed may go if power fails then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use qed_io::{Completion, Record, Recorder};

use super::campaign::run_checked;
use super::failure::Failure;
use super::guest::Guest;
use super::judge::{Depth, judge, judge_opened};
use super::life::{Death, Host, Phase, Words};
use super::run::{Run, open};
use super::states::{Timeline, disks_at};
use super::subject::{disk_of, told};
use super::workload::Workload;
use crate::random::Random;
use crate::size::usize_of;

/// One in so many deaths is followed by another one while the next process opens, and by power losses then.
const AGAIN: u64 = 3;

/// What was judged of a death.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Deaths {
    /// Whether the log had anything.
    pub(crate) had_records: bool,
    /// Deaths of the next process, while it opened.
    pub(crate) again: u64,
    /// Power losses while it opened, and after.
    pub(crate) power_losses: u64,
}

/// Calls `visit` with what was judged of each of at most `most` deaths of a workload.
pub(crate) fn each_death(
    workload: &Workload,
    most: usize,
    mut visit: impl FnMut(Phase, Deaths),
) -> Result<(), Box<Failure>> {
    let run = run_checked(workload)?;
    let deaths = some_of(&run.deaths, most);
    let disks = disks_at(&run.start, &run.records, deaths.iter().map(|death| death.order));
    let (mut guest, mut answered) = (run.guest.clone(), run.guest.outliving());
    for (number, (death, disk)) in deaths.iter().zip(&disks).enumerate() {
        guest.advance(&run.events, death.order);
        answered.advance(&run.events, death.order);
        let scene = Scene { run: &run, guest: &guest, answered: &answered };
        let mut random = Random::new(number as u64);
        let is_deep = random.below(AGAIN) == 0;
        let judged = || scene.judge(disk, &death.words, is_deep.then_some(&mut random));
        let judged = catch_unwind(AssertUnwindSafe(judged));
        let judged = judged.unwrap_or_else(|_| Err("a panic".to_owned())).map_err(|problem| {
            let problem =
                format!("the process died {:?} at {}: {problem}", death.phase, death.order);
            Failure::of_death(workload, &run, (disk.now(), death.order), problem)
        })?;
        visit(death.phase, judged);
    }
    Ok(())
}

/// All deaths, or some of each part of the run.
fn some_of(deaths: &[Death], most: usize) -> Vec<Death> {
    let most = most.max(1);
    let mut random = Random::new(deaths.len() as u64);
    let parts = deaths.chunks(deaths.len().div_ceil(most).max(1));
    parts.map(|part| part[usize_of(random.below(part.len() as u64))].clone()).collect()
}

/// What is known when a process dies.
struct Scene<'a> {
    run: &'a Run,
    /// What the guest may find after a power loss.
    guest: &'a Guest,
    /// What it may find if only the process dies.
    answered: &'a Guest,
}

impl Scene<'_> {
    /// Opens what is left. With random numbers the next process dies while it opens, and power fails.
    fn judge(
        &self,
        disk: &Timeline,
        words: &Words,
        random: Option<&mut Random>,
    ) -> Result<Deaths, String> {
        let run = self.run;
        let storage = disk_of(disk.now());
        let recorder = Arc::new(Recorder::new(storage.clone()));
        let deaths = Arc::new(Mutex::new(Vec::new()));
        let host = Host::with(words, run.boot);
        let life = host.live(recorder.clone(), recorder.clone(), deaths.clone());
        let image = open(life, &run.gate, (true, run.discard), Some(&host));
        let image = image.map_err(told("opening"))?;
        let records = recorder.records();
        let deaths = std::mem::take(&mut *deaths.lock().unwrap_or_else(PoisonError::into_inner));
        judge_opened(image, &storage, self.answered, run, random.is_some())?;
        let mut judged = Deaths { had_records: words.has_records(), ..Deaths::default() };
        if let Some(random) = random {
            self.dies_again(disk, &records, &deaths, random)?;
            judged.again = 1;
            judged.power_losses = self.power_fails(disk, &records, random)?;
        }
        Ok(judged)
    }

    /// The next process dies while it opens.
    fn dies_again(
        &self,
        disk: &Timeline,
        records: &[Record],
        deaths: &[Death],
        random: &mut Random,
    ) -> Result<(), String> {
        let death = &deaths[usize_of(random.below(deaths.len() as u64))];
        let again = disks_at(disk.now(), records, [death.order].into_iter());
        self.judge(&again[0], &death.words, None)
            .map(drop)
            .map_err(|problem| format!("the next one died at {}: {problem}", death.order))
    }

    /// Power fails while the next process opens, or just after; how many states were judged.
    fn power_fails(
        &self,
        disk: &Timeline,
        records: &[Record],
        random: &mut Random,
    ) -> Result<u64, String> {
        let points = disk.clone().crash_points(&behind(disk, records));
        let end = points.len() - 1;
        let any = usize_of(random.below(points.len() as u64));
        for number in [any, end] {
            let point = &points[number];
            // All that was answered is durable once the image serves.
            let guest = if number == end { self.answered } else { self.guest };
            for choice in [point.any(random), vec![0; point.everything().len()]] {
                judge(&point.state(&choice), guest, self.run, Depth::Once).map_err(|problem| {
                    format!("then power failed at {number} of {end}: {problem}")
                })?;
            }
        }
        Ok(4)
    }
}

/// Records with order numbers behind all that a disk has seen.
fn behind(disk: &Timeline, records: &[Record]) -> Vec<Record> {
    let base = disk.last_order() + 1;
    let later = |record: &Record| {
        let completion = record.completion;
        let completion = completion.map(|it| Completion { order: it.order + base, ..it });
        Record {
            submitted: record.submitted + base,
            completion,
            operation: record.operation.clone(),
        }
    };
    records.iter().map(later).collect()
}
