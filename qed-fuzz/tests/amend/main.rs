//! Every state that a crash may leave of an amend: it opens, reads as before, is written to, and
//! another amend finishes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod judge;
mod scene;

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use qed_core::Layout;
use qed_fuzz::{DiskContent, crash_points};
use qed_io::{Operation, Record};
use qed_spec::Geometry;

use crate::judge::judge;
use crate::scene::{COMPAT, JOURNAL, LONG_JOURNAL, Scene};

/// Up to this many states of one crash point are all built, of more a sample.
const MOST: u64 = 128;

/// States that QEMU looks at, one in so many.
const QEMU_ONE_IN: u64 = 200;

/// Every layout to every other, and a ring that grows and shrinks.
const DIRECTIONS: [(Layout, Layout); 8] = [
    (Layout::Classic, COMPAT),
    (Layout::Classic, JOURNAL),
    (COMPAT, JOURNAL),
    (COMPAT, Layout::Classic),
    (JOURNAL, COMPAT),
    (JOURNAL, Layout::Classic),
    (JOURNAL, LONG_JOURNAL),
    (LONG_JOURNAL, JOURNAL),
];

/// Cluster and table size, and the disk in clusters.
const SHAPES: [(u32, u32, u64); 5] =
    [(4096, 1, 520), (4096, 2, 40), (4096, 8, 24), (16 << 10, 1, 20), (64 << 10, 2, 6)];

/// How much was judged.
#[derive(Default)]
struct Tally {
    states: u64,
    /// Those that another amend left as they were.
    finished: u64,
    by_qemu: u64,
    /// Names of them.
    seen: HashSet<u64>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, finished, by_qemu, .. } = self;
        write!(f, "{states} states, {finished} finished, {by_qemu} opened by QEMU")
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.states += other.states;
        self.finished += other.finished;
        self.by_qemu += other.by_qemu;
    }

    /// Judges the states of a run that were not judged before.
    fn judge_all(
        &mut self,
        scene: &Scene,
        records: &[Record],
        to: Layout,
        again: bool,
    ) -> Result<(), String> {
        let points = crash_points(&scene.start, records);
        for (number, point) in points.iter().enumerate() {
            let mut outcome = Ok(true);
            point.for_each_state(MOST, |state| {
                let is_new = self.seen.insert(fingerprint(&state));
                if outcome.is_ok() && (is_new || number + 1 == points.len()) {
                    self.states += u64::from(is_new);
                    outcome = self.judge_one(scene, state, to, again);
                }
                if number + 1 == points.len() && outcome == Ok(false) {
                    outcome = Err("the amend returned, and was not durable".to_owned());
                }
            });
            outcome.map_err(|error| format!("crash point {number}: {error}"))?;
        }
        Ok(())
    }

    fn judge_one(
        &mut self,
        scene: &Scene,
        state: DiskContent,
        to: Layout,
        again: bool,
    ) -> Result<bool, String> {
        if judge::is_for_qemu(scene, &state) && self.states.is_multiple_of(QEMU_ONE_IN) {
            self.by_qemu += 1;
            judge::by_qemu(scene, &state)?;
        }
        let finished = judge(scene, &state, to)?;
        self.finished += u64::from(finished);
        if again && self.states.is_multiple_of(16) {
            // The amend that finishes is crashed, too.
            let scene = Scene { start: state, ..scene.clone() };
            let records = scene.amend(to)?;
            self.judge_all(&scene, &records, to, false)?;
        }
        Ok(finished)
    }
}

fn fingerprint(content: &DiskContent) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

// spec-test: QED-HDR-09, QED-HDR-11, QED-MODE-03, QED-SB-11, QED-SB-12, QED-DIRTY-06, QED-RW-06
#[test]
fn every_state_of_every_direction() {
    let mut sum = Tally::default();
    for (from, to) in DIRECTIONS {
        let mut tally = Tally::default();
        for (seed, (cluster, table, clusters)) in (1..).zip(SHAPES) {
            let geometry = Geometry::new(cluster, table).unwrap();
            for backing in [false, true] {
                let closed = Scene::new(from, geometry, clusters, backing, seed);
                for scene in [closed.left_open(), closed] {
                    let outcome =
                        scene.amend(to).and_then(|it| tally.judge_all(&scene, &it, to, true));
                    outcome.unwrap_or_else(|e| panic!("{from:?} to {to:?}, {geometry:?}: {e}"));
                }
            }
        }
        assert!(tally.states >= 60 && tally.finished >= 20, "{from:?} to {to:?}: {tally}");
        sum.add(&tally);
    }
    println!("{sum}");
    assert!(sum.states >= 10_000 && sum.by_qemu >= 20, "{sum}");
}

/// The flushes of an amend: the step that each ends, and whether it is found missing.
///
/// What comes after a step that is not found missing brings a flush before anything relies on it.
type Flushes = &'static [(&'static str, bool)];

const CLOSE: (&str, bool) = ("close", false);

/// The L1 and an L2 table lie where the superblocks go.
const TABLES_IN_THE_WAY: Flushes = &[
    CLOSE,
    CLOSE,
    ("data copied", true),
    ("entries", false),
    ("tables copied", true),
    ("slots", false),
    ("L1 copied", true),
    ("L1 offset", true),
    ("ring", false),
    ("initialise", false),
    ("area", false),
    ("mode", false),
    ("bits", true),
];

/// A guest wrote what looks like a superblock where one of the copies goes.
const FORGERY_IN_THE_WAY: Flushes = &[
    CLOSE,
    CLOSE,
    ("data copied", true),
    ("entries", false),
    ("tables copied", true),
    ("slots", false),
    ("L1 copied", true),
    ("L1 offset", false),
    ("initialise", true),
    ("area", false),
    ("mode", false),
    ("bits", true),
];

/// Nothing but data is in the way.
const DATA_IN_THE_WAY: Flushes = &[
    CLOSE,
    CLOSE,
    ("data copied", true),
    ("entries", true),
    ("ring", false),
    ("initialise", false),
    ("area", true),
    ("mode", false),
    ("bits", true),
];

/// All but the L1 table is.
const L1_NOT_IN_THE_WAY: Flushes = &[
    CLOSE,
    CLOSE,
    ("data copied", true),
    ("entries", false),
    ("tables copied", true),
    ("slots", true),
    ("ring", false),
    ("initialise", false),
    ("area", true),
    ("mode", false),
    ("bits", true),
];

const TO_CLASSIC: Flushes =
    &[CLOSE, CLOSE, ("bits", false), ("older copy", false), ("current copy", true)];

#[test]
fn a_flush_that_is_left_out_is_found() {
    let scene = |cluster, table, clusters| {
        let geometry = Geometry::new(cluster, table).unwrap();
        Scene::new(Layout::Classic, geometry, clusters, false, 1)
    };
    let cases: [(Scene, Layout, Flushes); 5] = [
        (scene(4096, 2, 40), JOURNAL, TABLES_IN_THE_WAY),
        (scene(4096, 1, 520), COMPAT, FORGERY_IN_THE_WAY),
        (scene(4096, 1, 520).amended(COMPAT), JOURNAL, DATA_IN_THE_WAY),
        (scene(16 << 10, 1, 20).amended(COMPAT), JOURNAL, L1_NOT_IN_THE_WAY),
        (scene(4096, 1, 40).amended(COMPAT), Layout::Classic, TO_CLASSIC),
    ];
    for (scene, to, expected) in cases {
        let records = scene.amend(to).unwrap();
        let is_flush = |position: &usize| records[*position].operation == Operation::Flush;
        let flushes: Vec<usize> = (0..records.len()).filter(is_flush).collect();
        let is_found = |missing: usize| {
            let mut kept = records.clone();
            kept.remove(missing);
            Tally::default().judge_all(&scene, &kept, to, false).is_err()
        };
        let steps = expected.iter().map(|(step, _)| *step);
        let found: Vec<_> = steps.zip(flushes.iter().map(|missing| is_found(*missing))).collect();
        assert_eq!((found.as_slice(), flushes.len()), (expected, expected.len()));
    }
}
