//! The fuzz targets with fixed seeds, and everything that fuzzing ever found.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod kept;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use qed_fuzz::{Branches, TARGETS, Target, random_input};

#[test]
fn every_target_passes_seeded_inputs() {
    let failed: Vec<String> = thread::scope(|scope| {
        let runs = TARGETS.each_ref().map(|target| scope.spawn(|| first_failure(target)));
        runs.into_iter().filter_map(|run| run.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join(", "));
}

/// The first seed whose input does not pass.
fn first_failure(target: &Target) -> Option<String> {
    (0..target.runs_in_tests).find_map(|seed| {
        let bytes = random_input(seed);
        let run = || target.run(&bytes, &mut Branches::unseen());
        let passes = catch_unwind(AssertUnwindSafe(run)).is_ok();
        (!passes).then(|| format!("target {}, seed {seed}", target.name))
    })
}
