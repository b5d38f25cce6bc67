//! Every state that a crash may leave of a journal alone: a ring of eight blocks, commits that wrap
//! and checkpoints, recovered, read, written to and crashed again. Beside it, the same with one
//! rule of the order of writes broken, which must show in what recovery finds.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap is a failed test, and test disks are small"
)]

mod mutant;
mod rot;
mod session;
mod verify;
mod workload;

use std::cell::RefCell;
use std::sync::Arc;

use qed_fuzz::Subject;
use qed_io::Recorder;

use crate::mutant::Mutant;
use crate::session::Tables;
use crate::verify::{Journaled, Tally};
use crate::workload::{History, Set, Start, Step, Workload, random};

/// Up to this many states of one crash point are all built, of more a sample.
const ALL_STATES_MAX: u64 = 1 << 14;

/// The same where each commit has many sectors, and every point more states than that.
const MANY_SECTORS_MAX: u64 = 1 << 11;

/// Judges the states of every crash point, a sample where there are more than `most`.
fn crash(workload: &Workload, mutant: Mutant, most: u64) -> Result<Tally, String> {
    let Workload { start: kind, steps } = workload;
    let (start, history) = (kind.content(), RefCell::new(History::new(Tables::new())));
    let subject = Journaled { mutant, kind: *kind, start, steps, history };
    let file = kind.file(&subject.start);
    let recorder = Arc::new(Recorder::new(file));
    let mut tally = Tally::default();
    let judged = subject
        .run(recorder.clone())
        .and_then(|()| tally.judge_all(&subject, &recorder.records(), most));
    judged.map_err(|problem| format!("{workload:?}\n{problem}"))?;
    Ok(tally)
}

#[track_caller]
fn crash_all(steps: &[Step], most: u64) {
    for start in STARTS {
        let workload = Workload { start, steps: steps.to_vec() };
        let tally = crash(&workload, Mutant::None, most).unwrap_or_else(|error| panic!("{error}"));
        assert!(tally.replayed > tally.states / 10, "{tally:?} is too little");
    }
}

fn one(slot: u64, value: u64) -> Step {
    Step::Commit(vec![Set { slot, count: 1, value }])
}

/// A commit of as many blocks: its sets are not runs.
fn blocks(count: u64, value: u64) -> Step {
    let records = (count - 1) * 168 + 3;
    Step::Commit((0..records).map(|n| Set { slot: n * 3, count: 1, value: value + n }).collect())
}

const STARTS: [Start; 3] = [Start::New, Start::Device, Start::StaleRing];

// spec-test: QED-JRN-11, QED-JRN-16, QED-JRN-17, QED-JRN-19
#[test]
fn commits_one_by_one() {
    let steps = [one(0, 5), one(1, 6), one(0, 7), one(600, 1), one(1, 0)];
    crash_all(&steps, ALL_STATES_MAX);
}

// spec-test: QED-JRN-09, QED-JRN-20, QED-JRN-21
#[test]
fn a_ring_that_wraps_and_fills() {
    let single: Vec<_> = (0..11).map(|n| one(n % 3 * 200, 10 + n)).collect();
    crash_all(&single, ALL_STATES_MAX);
    let wide = [blocks(3, 10), one(0, 4), blocks(4, 500), blocks(2, 900), one(3, 1)];
    crash_all(&wide, MANY_SECTORS_MAX);
}

// spec-test: QED-JRN-20
#[test]
fn checkpoints_between_commits() {
    let steps = [
        one(0, 5),
        Step::Checkpoint,
        one(0, 6),
        one(700, 7),
        Step::Checkpoint,
        one(1, 8),
        Step::Quiesce,
        one(0, 9),
        Step::Reopen,
        one(2, 10),
    ];
    crash_all(&steps, ALL_STATES_MAX);
}

// spec-test: QED-JRN-18
#[test]
fn batches_that_share_a_commit() {
    let set = |slot, value| Set { slot, count: 2, value };
    let steps = [
        Step::Together(vec![vec![set(0, 5)], vec![set(1, 9), set(800, 1)], vec![]]),
        Step::Together(vec![vec![], vec![set(0, 2)]]),
        one(0, 3),
    ];
    crash_all(&steps, ALL_STATES_MAX);
}

// spec-test: QED-JRN-12, QED-JRN-22, QED-JRN-24
#[test]
fn random_workloads() {
    let mut sum = Tally::default();
    for seed in 0..40 {
        let tally = crash(&random(seed), Mutant::None, 300);
        sum.add(&tally.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    assert!(sum.states > 10_000 && sum.again > sum.states / 4, "{sum:?}");
}

/// Workloads that between them break every rule that a mutant drops.
fn convicting() -> Vec<Workload> {
    let lists = [
        vec![one(0, 5), one(600, 6), one(1, 7), one(0, 8)],
        vec![blocks(3, 10), one(0, 4), blocks(2, 300)],
        vec![one(0, 5), Step::Checkpoint, one(700, 6), one(0, 6), Step::Checkpoint, one(1, 8)],
        (0..11).map(|n| one(n % 3 * 200, 10 + n)).collect(),
        vec![one(0, 5), Step::Quiesce, one(1, 9), Step::Reopen, one(0, 6)],
    ];
    let workload = |steps| Workload { start: Start::New, steps };
    lists.into_iter().map(workload).collect()
}

#[test]
fn each_mutant_is_caught_by_what_it_leaves() {
    for mutant in Mutant::CRASHING {
        let caught = convicting().iter().any(|workload| crash(workload, mutant, 600).is_err());
        assert!(caught, "{mutant:?} leaves nothing that is wrong");
    }
    for workload in convicting() {
        crash(&workload, Mutant::None, 600).unwrap_or_else(|error| panic!("{error}"));
    }
}
