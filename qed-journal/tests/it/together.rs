//! Several threads: who shares a flush, who waits, and that nobody waits for ever.

use std::sync::Arc;
use std::thread;

use qed_io::{Gate, MemoryStorage, Recorder, RequestKind};
use qed_journal::TestImage;

use crate::support::{batch, clean, letters, reopened, shown};

const RING: std::ops::Range<u64> = 16384..16384 + 8 * 4096;

/// An image whose requests can be held, over a log.
fn gated() -> (Arc<Recorder>, Arc<Gate>, TestImage) {
    let memory = Arc::new(MemoryStorage::default());
    TestImage::create(memory.clone(), 8).unwrap();
    let recorder = Arc::new(Recorder::new(memory));
    let gate = Arc::new(Gate::new(recorder.clone()));
    let image = TestImage::open(gate.clone()).unwrap();
    (recorder, gate, image)
}

// spec-test: QED-JRN-18
#[test]
fn who_submits_during_a_flush_shares_the_next_one() {
    let (recorder, gate, image) = gated();
    let journal = clean(&image);
    journal.commit_batch(batch(&image, &[(0, 1, 5)]), &image).unwrap();
    let from = recorder.records().len();
    let held = gate.hold(|request| request.kind == RequestKind::Flush);
    thread::scope(|scope| {
        scope.spawn(|| journal.commit_batch(batch(&image, &[(1, 1, 6)]), &image).unwrap());
        held.wait_until_stopped();
        // All of these come while the flush of the first is under way.
        let tickets: Vec<_> = [&[(2, 1, 7)][..], &[], &[(3, 1, 8), (2, 1, 9)]]
            .map(|sets| journal.submit(batch(&image, sets)).unwrap())
            .into();
        let image = &image;
        let journal = &journal;
        for ticket in tickets {
            scope.spawn(move || journal.commit(&ticket, image).unwrap());
        }
        held.release();
    });
    assert_eq!(letters(&recorder, from, 8), "WFWF", "one flush more serves the three");
    for (slot, value) in [(1, 6), (2, 9), (3, 8)] {
        assert_eq!(shown(&image, &journal, slot), value);
    }
}

#[test]
fn commits_go_on_while_a_checkpoint_writes_home() {
    let (_, gate, image) = gated();
    let journal = clean(&image);
    journal.commit_batch(batch(&image, &[(0, 1, 5), (1, 1, 5)]), &image).unwrap();
    let tables = RING.end..RING.end + TestImage::TABLES * 4096;
    let held = gate.hold(move |request| request.touches(RequestKind::Write, &tables));
    thread::scope(|scope| {
        scope.spawn(|| journal.checkpoint(&image).unwrap());
        held.wait_until_stopped();
        journal.commit_batch(batch(&image, &[(1, 1, 6)]), &image).unwrap();
        assert_eq!((shown(&image, &journal, 0), shown(&image, &journal, 1)), (5, 6));
        held.release();
    });
    assert_eq!((shown(&image, &journal, 0), shown(&image, &journal, 1)), (5, 6));
    assert_eq!(journal.usage().used_blocks, 1, "what came during the checkpoint stays");
    drop(journal);
    let again = reopened(&image);
    let journal = again.recovered().unwrap();
    assert_eq!((shown(&again, &journal, 0), shown(&again, &journal, 1)), (5, 6));
}

/// A read that began before tables were written home and ends after, when the journal has let go
/// of what it wrote, still sees it.
#[test]
fn a_read_that_a_checkpoint_overtakes_sees_what_was_committed() {
    let (_, gate, image) = gated();
    let journal = clean(&image);
    journal.commit_batch(batch(&image, &[(0, 1, 5)]), &image).unwrap();
    let behind = Arc::new(Behind { gate: gate.clone(), image: &image, journal: &journal });
    behind.read_while_checkpointing();
}

struct Behind<'a> {
    gate: Arc<Gate>,
    image: &'a TestImage,
    journal: &'a qed_journal::Journal,
}

impl Behind<'_> {
    fn read_while_checkpointing(&self) {
        let slot = self.image.slot(0).get();
        let held = self.gate.hold(move |request| {
            request.kind == RequestKind::Read && request.range == (slot..slot + 8)
        });
        thread::scope(|scope| {
            let read = scope.spawn(|| shown(self.image, self.journal, 0));
            held.wait_until_stopped();
            self.journal.checkpoint(self.image).unwrap();
            held.release();
            assert_eq!(read.join().unwrap(), 5);
        });
    }
}

// spec-test: QED-JRN-20, QED-JRN-21
#[test]
fn a_full_ring_makes_writers_wait_and_none_for_ever() {
    const THREADS: u64 = 6;
    const COMMITS: u64 = 200;
    let (_, _, image) = gated();
    let journal = clean(&image);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (journal, image) = (&journal, &image);
            scope.spawn(move || {
                for round in 0..COMMITS {
                    let count = if round % 50 == number { 600 } else { 1 };
                    let sets: Vec<_> =
                        (0..count).map(|n| (number * 300 + n % 300, 1, 2 + round)).collect();
                    journal.commit_batch(batch(image, &sets), image).unwrap();
                    assert_eq!(shown(image, journal, number * 300), 2 + round);
                }
            });
        }
        scope.spawn(|| {
            for round in 0..40 {
                if round % 8 == 7 {
                    journal.quiesce(&image).unwrap();
                } else {
                    journal.checkpoint(&image).unwrap();
                }
            }
        });
    });
    drop(journal);
    let again = reopened(&image);
    let journal = again.recovered().unwrap();
    for number in 0..THREADS {
        assert_eq!(shown(&again, &journal, number * 300), 1 + COMMITS);
    }
    assert!(image.storage().len().unwrap() > 0);
}
