//! Several threads: who shares a flush, who waits, and that nobody waits for ever.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use qed_io::{Gate, MemoryStorage, Recorder, RequestKind, Storage};
use qed_journal::TestImage;

use crate::support::{batch, clean, letters, reopened, shown};

const RING: Range<u64> = 16384..16384 + 8 * 4096;

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

#[test]
fn a_read_that_a_checkpoint_overtakes_sees_what_was_committed() {
    let memory = Arc::new(MemoryStorage::default());
    TestImage::create(memory.clone(), 8).unwrap();
    let gate = Arc::new(Gate::new(memory.clone()));
    let slow = SlowRead { inner: memory, gate: gate.clone() };
    let image = TestImage::open(Arc::new(slow)).unwrap();
    let journal = clean(&image);
    journal.commit_batch(batch(&image, &[(0, 1, 5)]), &image).unwrap();
    let slot = image.slot(0).get();
    let held = gate.hold(move |request| request.range.start == slot);
    thread::scope(|scope| {
        let read = scope.spawn(|| shown(&image, &journal, 0));
        held.wait_until_stopped();
        // The read has the old bytes; now the new ones go home and the journal lets go of them.
        journal.checkpoint(&image).unwrap();
        held.release();
        assert_eq!(read.join().unwrap(), 5);
    });
}

/// A storage whose reads pass a gate when they have their bytes.
#[derive(Debug)]
struct SlowRead {
    inner: Arc<dyn Storage>,
    gate: Arc<Gate>,
}

impl Storage for SlowRead {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)?;
        self.gate.run_at(offset).map(drop)
    }

    qed_io::forward_storage!(inner: len write_at set_len flush write_zeroes punch_hole run_at growth lock);
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
}
