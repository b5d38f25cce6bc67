//! Every state that a crash may leave of a conversion in place, of undoing one, and of the first
//! write after one: the file is one of the two formats, its disk is whole, and from there every way
//! goes on. `QED_IN_PLACE_STATES` is how many states of one crash point are built, of more a sample.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod judge;
mod scene;

use qed_fuzz::{Seen, SparseContent, Subject, each_state, flushes, run_of, without_flush};
use qed_io::Record;

use crate::judge::{Format, Interrupted};
use crate::scene::{Act, Scene};

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
    seen: Seen,
}

impl Tally {
    /// Judges every state of a run that is new; `last` is what the file is when the run is over.
    fn judge_all(
        &mut self,
        subject: &Interrupted<'_>,
        run: &[Record],
        last: Format,
    ) -> Result<(), String> {
        let outcome = each_state(subject, run, most(), &mut |state| {
            let is_new = self.seen.add(&state.content);
            if !is_new && !state.is_over {
                return Ok(());
            }
            let found = subject.judge(&state)?;
            if state.is_over && found != last {
                return Err("it returned, not durable".to_owned());
            }
            match found {
                Format::Qcow2 => self.qcow2 += u64::from(is_new),
                Format::Qed => self.qed += u64::from(is_new),
            }
            Ok(())
        });
        outcome.map_err(|problem| format!("{}, {problem}", subject.scene.name))
    }

    /// Does `act` to what `start` holds and judges its states; what it leaves.
    fn act(&mut self, scene: &Scene, start: &SparseContent, act: Act) -> SparseContent {
        let subject = Interrupted { scene, start: start.clone(), act };
        let (after, run) = scene.act(start, act);
        let last = if act == Act::Undo { Format::Qcow2 } else { Format::Qed };
        self.judge_all(&subject, &run, last).unwrap_or_else(|problem| panic!("{problem}"));
        after
    }
}

// spec-test: QED-CONV-02, QED-CONV-03, QED-CONV-06
#[test]
fn every_state_is_one_of_the_two_formats() {
    let (mut states, mut of_qed) = (0, 0);
    for scene in scene::all() {
        let mut tally = Tally::default();
        let converted = tally.act(&scene, &scene.start, Act::Convert);
        let undone = tally.act(&scene, &converted, Act::Undo);
        assert!(undone == scene.start, "{}: undone to the byte", scene.name);
        tally.act(&scene, &converted, Act::Write);
        // What an interrupted conversion left is in the way of the next.
        for half in scene.interrupted() {
            tally.act(&scene, &half, Act::Convert);
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
    let start = scene.start.clone();
    let subject = Interrupted { scene: &scene, start, act: Act::Convert };
    let run = run_of(&subject).unwrap();
    assert_eq!(flushes(&run).len(), FLUSHES.len());
    for (missing, name) in FLUSHES.iter().enumerate() {
        let without = without_flush(&run, missing);
        let judged = Tally::default().judge_all(&subject, &without, Format::Qed);
        assert!(judged.is_err(), "nobody misses the flush of step {name}");
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
