//! Every state that a crash may leave of a conversion in place, of undoing one, and of the first
//! write after one: the file is one of the two formats, its disk is whole, and from there every way
//! goes on. `QED_IN_PLACE_STATES` is how many states of one crash point are built, of more a sample.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod judge;
mod scene;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use qed_fuzz::{DiskContent, crash_points};
use qed_io::{Operation, Record};

use crate::judge::{Format, judge};
use crate::scene::Scene;

/// Up to this many states of one crash point are all built unless the environment says otherwise.
const MOST: u64 = 48;

fn most() -> u64 {
    std::env::var("QED_IN_PLACE_STATES").map_or(MOST, |number| number.parse().unwrap())
}

/// What was judged.
#[derive(Debug, Default)]
struct Tally {
    qcow2: u64,
    qed: u64,
    /// Names of the states.
    seen: HashSet<u64>,
}

impl Tally {
    /// Judges every state of a run that is new; `last` is what the file is when the run is over.
    fn judge_all(&mut self, scene: &Scene, start: &DiskContent, run: &[Record], last: Format) {
        let points = crash_points(start, run);
        for (number, point) in points.iter().enumerate() {
            point.for_each_state(most(), |state| {
                let is_new = self.seen.insert(fingerprint(&state));
                let is_last = number + 1 == points.len();
                if !is_new && !is_last {
                    return;
                }
                let found = judge(scene, &state)
                    .unwrap_or_else(|error| panic!("{}, point {number}: {error}", scene.name));
                assert!(!is_last || found == last, "{}: it returned, not durable", scene.name);
                match found {
                    Format::Qcow2 => self.qcow2 += u64::from(is_new),
                    Format::Qed => self.qed += u64::from(is_new),
                }
            });
        }
    }
}

fn fingerprint(content: &DiskContent) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

// spec-test: QED-CONV-02, QED-CONV-03, QED-CONV-06
#[test]
fn every_state_is_one_of_the_two_formats() {
    let (mut states, mut of_qed) = (0, 0);
    for scene in scene::all() {
        let mut tally = Tally::default();
        let (converted, run) = scene.convert(&scene.start);
        tally.judge_all(&scene, &scene.start, &run, Format::Qed);
        let (undone, run) = scene.undo(&converted);
        assert!(undone.bytes() == scene.start.bytes(), "{}: undone to the byte", scene.name);
        tally.judge_all(&scene, &converted, &run, Format::Qcow2);
        let run = scene.write_first(&converted);
        tally.judge_all(&scene, &converted, &run, Format::Qed);
        // What an interrupted conversion left is in the way of the next.
        for half in scene.interrupted() {
            let (_, run) = scene.convert(&half);
            tally.judge_all(&scene, &half, &run, Format::Qed);
        }
        assert!(tally.qcow2 >= 10 && tally.qed >= 3, "{}: {tally:?}", scene.name);
        states += tally.qcow2 + tally.qed;
        of_qed += tally.qed;
    }
    println!("{states} states, {of_qed} of them QED");
    assert!(states >= 3_000, "{states} states");
}

/// The flushes of a conversion: what each is for, and whether a crash finds it missing.
///
/// That the record is durable before the tail is matters to what comes after a crash, and a tail
/// without one is found by that.
const FLUSHES: [&str; 3] = ["record", "append", "commit"];

// spec-test: QED-CONV-06
#[test]
fn a_flush_that_is_left_out_is_found() {
    let scene = scene::all().into_iter().next().unwrap();
    let (_, run) = scene.convert(&scene.start);
    let is_flush = |record: &&Record| record.operation == Operation::Flush;
    assert_eq!(run.iter().filter(is_flush).count(), FLUSHES.len());
    for (missing, name) in FLUSHES.iter().enumerate() {
        let number = run.iter().position(|it| it.operation == Operation::Flush);
        let mut flushes = (0..).zip(&run).filter(|(_, it)| it.operation == Operation::Flush);
        let (place, _): (usize, _) = flushes.nth(missing).unwrap();
        assert!(number.is_some());
        let mut without = run.clone();
        without.remove(place);
        let failed = std::panic::catch_unwind(|| {
            Tally::default().judge_all(&scene, &scene.start, &without, Format::Qed);
        });
        assert!(failed.is_err(), "nobody misses the flush of step {name}");
    }
}

/// A run over a file that QEMU wrote to where an interrupted conversion had left its tail.
#[test]
fn what_qemu_allocates_in_a_stale_tail_is_kept_and_nothing_shows() {
    for scene in scene::all() {
        for (number, half) in scene.interrupted().into_iter().enumerate() {
            let case = format!("{}, interrupted at {number}", scene.name);
            scene.with_file(&half, |file| judge::qemu_goes_on(&scene, file, &case));
        }
    }
}

/// The storage of a state.
fn storage_of(state: &DiskContent) -> Arc<qed_io::MemoryStorage> {
    Arc::new(qed_io::MemoryStorage::new(state.bytes()))
}
