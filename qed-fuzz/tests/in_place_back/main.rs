//! Every state that a crash may leave of a conversion in place from QED to QCOW2, from raw to QED and
//! from QED to raw: the file is one of the two formats, its disk is whole, and another call finishes.
//! `QED_IN_PLACE_STATES` is how many states of one crash point are built, of more a sample.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod directions;
mod judge;

use qed_fuzz::{
    CrashState, Seen, Subject, crash_points, each_state, flushes, recorded, run_of, without_flush,
};
use qed_io::Record;

use crate::directions::{Case, all};
use crate::judge::Format;

/// Up to this many states of one crash point are all built unless the environment says otherwise.
const MOST: u64 = 96;

fn most() -> u64 {
    std::env::var("QED_IN_PLACE_STATES").map_or(MOST, |number| number.parse().unwrap())
}

/// How many states were judged that differ.
#[derive(Debug, Default)]
struct Tally {
    old: u64,
    new: u64,
    seen: Seen,
}

impl Tally {
    /// Judges every state of a run of the conversion; one that is `whole` is durable when it is over.
    fn judge_all(&mut self, case: &Case, run: &[Record], whole: bool) -> Result<(), String> {
        let outcome = each_state(case, run, most(), &mut |mut state| {
            let is_new = self.seen.add(&state.content);
            if !(is_new || state.is_over) {
                return Ok(());
            }
            state.is_over &= whole;
            match case.judge(&state)? {
                Format::Old => self.old += u64::from(is_new),
                Format::New => self.new += u64::from(is_new),
            }
            Ok(())
        });
        outcome.map_err(|problem| format!("{}, {problem}", case.name))
    }
}

#[test]
fn every_state_is_one_of_the_two_formats() {
    let mut states = 0;
    for case in all() {
        let mut tally = Tally::default();
        let judged = run_of(&case).and_then(|run| tally.judge_all(&case, &run, true));
        judged.unwrap_or_else(|error| panic!("{error}"));
        assert!(tally.old >= 5 && tally.new >= 1, "{}: {tally:?}", case.name);
        states += tally.old + tally.new;
    }
    println!("{states} states");
    assert!(states >= 1_500, "{states} states");
}

/// The flush before the commit, counted from the end of the run: it, and what comes behind it.
#[test]
fn a_commit_that_does_not_wait_is_found() {
    for case in all() {
        let run = run_of(&case).unwrap();
        // Behind it are the flush of the commit, and that of what is wiped or cut.
        let without = without_flush(&run, flushes(&run).len() - 3);
        let outcome = Tally::default().judge_all(&case, &without, false);
        assert!(outcome.is_err(), "{}: nobody misses the flush before the commit", case.name);
    }
}

/// What stays of an abandoned conversion is in the way of nothing.
#[test]
fn another_call_finishes_from_every_kind_of_state() {
    for case in all() {
        let run = run_of(&case).unwrap();
        for point in crash_points(&case.start, &run) {
            let mut last = None;
            point.for_each_state(8, |state| last = Some(state));
            let state = last.unwrap();
            if judge::format_of(&case, &state) == Format::Old {
                let (content, _) = recorded(&state, |storage| case.recover(storage)).unwrap();
                let over = CrashState { content, position: usize::MAX, is_over: true };
                assert_eq!(case.judge(&over), Ok(Format::New), "{}", case.name);
            }
        }
    }
}
