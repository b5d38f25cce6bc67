//! Every state that a crash may leave of an amend: it opens, reads as before, is written to, and
//! another amend finishes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod judge;
mod scene;

use qed_core::Layout;
use qed_fuzz::{Seen, Subject, each_state, flushes, run_of, without_flush};
use qed_io::Record;
use qed_spec::Geometry;

use crate::judge::{Amend, by_qemu, is_for_qemu};
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
    seen: Seen,
    /// States that another amend left as they were.
    finished: u64,
    by_qemu: u64,
}

impl Tally {
    /// Judges the states of a run that were not judged before; with `again` one in so many amends that
    /// finish is crashed, too.
    fn judge_all(&mut self, amend: &Amend<'_>, run: &[Record], again: bool) -> Result<(), String> {
        each_state(amend, run, MOST, &mut |state| {
            if !self.seen.add(&state.content) && !state.is_over {
                return Ok(());
            }
            let states = self.seen.count();
            if is_for_qemu(amend.scene, &state.content) && states.is_multiple_of(QEMU_ONE_IN) {
                self.by_qemu += 1;
                by_qemu(amend.scene, &state.content)?;
            }
            let is_finished = amend.judge(&state)?;
            self.finished += u64::from(is_finished);
            if again && states.is_multiple_of(16) {
                let scene = Scene { start: state.content, ..amend.scene.clone() };
                let recovery = Amend { scene: &scene, to: amend.to };
                self.judge_all(&recovery, &run_of(&recovery)?, false)?;
            }
            if state.is_over && !is_finished {
                return Err("the amend returned, and was not durable".to_owned());
            }
            Ok(())
        })
    }
}

// spec-test: QED-HDR-09, QED-HDR-11, QED-MODE-03, QED-SB-11, QED-SB-12, QED-DIRTY-06, QED-RW-06
#[test]
fn every_state_of_every_direction() {
    let (mut states, mut finished, mut by_qemu) = (0, 0, 0);
    for (from, to) in DIRECTIONS {
        let mut tally = Tally::default();
        for (seed, (cluster, table, clusters)) in (1..).zip(SHAPES) {
            let geometry = Geometry::new(cluster, table).unwrap();
            for backing in [false, true] {
                let closed = Scene::new(from, geometry, clusters, backing, seed);
                for scene in [&closed.left_open(), &closed] {
                    let amend = Amend { scene, to };
                    let outcome = run_of(&amend).and_then(|it| tally.judge_all(&amend, &it, true));
                    outcome.unwrap_or_else(|e| panic!("{from:?} to {to:?}, {geometry:?}: {e}"));
                }
            }
        }
        let found = tally.seen.count();
        assert!(found >= 60 && tally.finished >= 20, "{from:?} to {to:?}: {found} states");
        states += found;
        finished += tally.finished;
        by_qemu += tally.by_qemu;
    }
    println!("{states} states, {finished} finished, {by_qemu} opened by QEMU");
    assert!(states >= 10_000 && by_qemu >= 20, "{states} states, {by_qemu} opened by QEMU");
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
        let amend = Amend { scene: &scene, to };
        let run = run_of(&amend).unwrap();
        let flushes = flushes(&run).len();
        let is_found = |missing: usize| {
            let run = without_flush(&run, missing);
            Tally::default().judge_all(&amend, &run, false).is_err()
        };
        let steps = expected.iter().map(|(step, _)| *step);
        let found: Vec<_> = steps.zip((0..flushes).map(is_found)).collect();
        assert_eq!((found.as_slice(), flushes), (expected, expected.len()));
    }
}
