//! Commits, checkpoints and closing: what is written when, without a crash.

use qed_io::Operation;
use qed_journal::{Batch, BatchTooLarge, DataOrder, JournalError};

use crate::support::{at_home, batch, clean, image, letters, records, reopened, shown};

// spec-test: QED-JRN-15, QED-JRN-16, QED-JRN-17, QED-JRN-18
#[test]
fn each_step_waits_for_the_one_before() {
    let (recorder, image) = image(8);
    let journal = clean(&image);
    let mut from = 0;
    let mut did = |expected: &str| {
        assert_eq!(letters(&recorder, from, 8), expected);
        from = recorder.records().len();
    };
    let commit = |sets: &[(u64, u32, u64)]| {
        journal.commit_batch(batch(&image, sets), &image).unwrap();
    };
    commit(&[]);
    did("F");
    commit(&[(0, 1, 5)]);
    did("SFWF");
    commit(&[(1, 3, 6), (600, 2, 1)]);
    did("WF");
    commit(&[]);
    did("F");
    let first = Batch { data: DataOrder::First, ..batch(&image, &[(9, 1, 9)]) };
    journal.commit_batch(first, &image).unwrap();
    did("FWF");
    journal.commit_batch(Batch { data: DataOrder::First, ..batch(&image, &[]) }, &image).unwrap();
    did("F");
    journal.checkpoint(&image).unwrap();
    did("TFBF");
    journal.checkpoint(&image).unwrap();
    did("");
    commit(&[(1, 1, 0)]);
    did("WF");
    journal.quiesce(&image).unwrap();
    did("TFBFS");
    journal.quiesce(&image).unwrap();
    did("");
    commit(&[(1, 1, 4)]);
    did("SFWF");
}

// spec-test: QED-JRN-03
#[test]
fn a_commit_that_reaches_the_end_of_the_ring_goes_on_at_its_start() {
    let (recorder, image) = image(8);
    let journal = clean(&image);
    for _ in 0..6 {
        journal.commit_batch(batch(&image, &[(0, 1, 5)]), &image).unwrap();
    }
    journal.checkpoint(&image).unwrap();
    let from = recorder.records().len();
    // Blocks 7, 8 and 9: the last one of the ring, then the first two.
    journal.commit_batch(records(&image, 3 * 168, 10), &image).unwrap();
    let writes: Vec<(u64, usize)> = recorder.records()[from..]
        .iter()
        .filter_map(|record| match &record.operation {
            Operation::Write { offset, bytes } => Some((*offset, bytes.len())),
            _ => None,
        })
        .collect();
    assert_eq!(writes, [(16384 + 7 * 4096, 4096), (16384, 2 * 4096)]);
    let seen = shown(&image, &journal, 998);
    drop(journal);
    let again = reopened(&image);
    assert_eq!(shown(&again, &again.recovered().unwrap(), 998), seen);
}

#[test]
fn what_is_committed_is_shown_and_what_is_checkpointed_is_at_home() {
    let (_, image) = image(8);
    let journal = clean(&image);
    journal.commit_batch(batch(&image, &[(0, 1, 5)]), &image).unwrap();
    journal.commit_batch(batch(&image, &[(1, 3, 6), (600, 2, 1)]), &image).unwrap();
    let all = [(0, 5), (1, 6), (2, 7), (3, 8), (4, 0), (600, 1), (601, 1)];
    for (slot, value) in all {
        assert_eq!((shown(&image, &journal, slot), at_home(&image, slot)), (value, 0));
    }
    assert_eq!((journal.usage().used_blocks, journal.usage().runs), (2, 2));
    journal.quiesce(&image).unwrap();
    for (slot, value) in all {
        assert_eq!((shown(&image, &journal, slot), at_home(&image, slot)), (value, value));
    }
    let usage = journal.usage();
    assert_eq!((usage.used_blocks, usage.runs, usage.active), (0, 0, false));
    let reopened = reopened(&image);
    assert_eq!(clean(&reopened).usage().head, usage.head, "sequences go on");
}

#[test]
fn a_batch_takes_half_a_ring_and_no_more() {
    let (_, image) = image(8);
    let journal = clean(&image);
    let max = journal.max_records();
    assert_eq!(max, 4 * 168);
    let refused = journal.submit(records(&image, max as u64 + 1, 2)).unwrap_err();
    assert_eq!(refused, BatchTooLarge { records: max + 1, max });
    // Each fills half of the ring, so that every other one needs a checkpoint.
    for value in 2..8 {
        journal.commit_batch(records(&image, max as u64, value), &image).unwrap();
        assert_eq!(shown(&image, &journal, 0), value);
    }
    assert_eq!(journal.usage().used_blocks, 8);
}

#[test]
fn a_clean_image_has_an_empty_journal() {
    let (_, image) = image(8);
    let mut setup = image.setup().unwrap();
    let tail = setup.ring.tail();
    setup.ring = setup.ring.with_state(tail, tail.plus(2)).unwrap();
    let refused = qed_journal::Journal::open_clean(image.storage().clone(), &setup).unwrap_err();
    assert!(matches!(refused, JournalError::NotEmpty { .. }), "{refused}");
}
