//! Every state that a crash may leave of a conversion in place from QED to QCOW2, from raw to QED and
//! from QED to raw: the file is one of the two formats, its disk is whole, and another call finishes.
//! `QED_IN_PLACE_STATES` is how many states of one crash point are built, of more a sample.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod directions;
mod judge;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use qed_fuzz::crash_points;
use qed_io::Operation;

use crate::directions::{Case, all};
use crate::judge::{Format, judge};

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
    seen: HashSet<u64>,
}

impl Tally {
    /// Judges every state of the conversion, with one of its flushes left out if `without` says so.
    fn judge_all(&mut self, case: &Case, without: Option<usize>) -> Result<(), String> {
        let mut run = case.convert(&case.start)?;
        if let Some(flush) = without {
            let flushes = (0..run.len()).filter(|i| run[*i].operation == Operation::Flush);
            let place = flushes.collect::<Vec<_>>()[flush];
            run.remove(place);
        }
        let points = crash_points(&case.start, &run);
        for (number, point) in points.iter().enumerate() {
            let is_last = number + 1 == points.len();
            let mut outcome = Ok(());
            point.for_each_state(most(), |state| {
                let mut hasher = DefaultHasher::new();
                state.hash(&mut hasher);
                let is_new = self.seen.insert(hasher.finish());
                if outcome.is_err() || !(is_new || is_last) {
                    return;
                }
                outcome =
                    judge(case, &state, is_last && without.is_none()).map(|found| match found {
                        Format::Old => self.old += u64::from(is_new),
                        Format::New => self.new += u64::from(is_new),
                    });
            });
            outcome.map_err(|error| format!("{}, point {number}: {error}", case.name))?;
        }
        Ok(())
    }
}

#[test]
fn every_state_is_one_of_the_two_formats() {
    let mut states = 0;
    for case in all() {
        let mut tally = Tally::default();
        tally.judge_all(&case, None).unwrap_or_else(|error| panic!("{error}"));
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
        let run = case.convert(&case.start).unwrap();
        let flushes = run.iter().filter(|it| it.operation == Operation::Flush).count();
        // Behind it are the flush of the commit, and that of what is wiped or cut.
        let before_commit = flushes - 3;
        let outcome = Tally::default().judge_all(&case, Some(before_commit));
        assert!(outcome.is_err(), "{}: nobody misses the flush before the commit", case.name);
    }
}

/// What stays of an abandoned conversion is in the way of nothing.
#[test]
fn another_call_finishes_from_every_kind_of_state() {
    for case in all() {
        let run = case.convert(&case.start).unwrap();
        for point in crash_points(&case.start, &run) {
            let mut last = None;
            point.for_each_state(8, |state| last = Some(state));
            let state = last.unwrap();
            if judge::format_of(&case, &state) == Format::Old {
                let run = case.convert(&state).unwrap();
                let end = judge::applied(&state, &run);
                assert_eq!(judge(&case, &end, true), Ok(Format::New), "{}", case.name);
            }
        }
    }
}
