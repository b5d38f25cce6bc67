//! Commits, checkpoints and closing, without a crash.

use std::sync::Arc;

use qed_io::{MemoryStorage, Operation, Recorder};
use qed_journal::{Batch, DataOrder, Journal, Opened, TestImage};
/// An image with a ring of 8 blocks on a recorder.
fn image() -> (Arc<Recorder>, TestImage) {
    let recorder = Arc::new(Recorder::new(Arc::new(MemoryStorage::default())));
    let image = TestImage::create(recorder.clone(), 8).unwrap();
    (recorder, image)
}

fn clean(image: &TestImage) -> Journal {
    match image.journal().unwrap() {
        Opened::Clean(journal) => journal,
        Opened::Dirty(recovery) => panic!("{recovery:?}"),
    }
}

fn batch(image: &TestImage, sets: &[(u64, u32, u64)]) -> Batch {
    let record = |&(slot, count, value)| image.record(slot, count, value);
    Batch {
        records: sets.iter().map(record).collect(),
        physical_size: image.physical_size(1000),
        data: DataOrder::Together,
    }
}

/// The value of a slot as the journal shows it.
fn shown(image: &TestImage, journal: &Journal, slot: u64) -> u64 {
    let mut bytes = [0; 8];
    journal.read_at(&mut bytes, image.slot(slot)).unwrap();
    image.value_of(u64::from_le_bytes(bytes))
}

/// The value of a slot in the file.
fn at_home(image: &TestImage, slot: u64) -> u64 {
    let mut bytes = [0; 8];
    image.storage().read_at(&mut bytes, image.slot(slot).get()).unwrap();
    image.value_of(u64::from_le_bytes(bytes))
}

#[test]
fn a_commit_is_one_write_and_one_flush() {
    let (recorder, image) = image();
    let journal = clean(&image);
    journal.commit_batch(batch(&image, &[(0, 1, 5)]), &image).unwrap();
    let before = recorder.records().len();
    journal.commit_batch(batch(&image, &[(1, 3, 6), (600, 2, 1)]), &image).unwrap();
    let operations: Vec<Operation> =
        recorder.records().into_iter().skip(before).map(|record| record.operation).collect();
    let [Operation::Write { offset, bytes }, Operation::Flush] = &operations[..] else {
        panic!("{operations:?}");
    };
    assert_eq!((*offset, bytes.len()), (16384 + 2 * 4096, 4096), "block 2 of the ring");
    for (slot, value) in [(0, 5), (1, 6), (2, 7), (3, 8), (4, 0), (600, 1), (601, 1)] {
        assert_eq!((shown(&image, &journal, slot), at_home(&image, slot)), (value, 0));
    }
    journal.quiesce(&image).unwrap();
    for (slot, value) in [(0, 5), (1, 6), (2, 7), (3, 8), (4, 0), (600, 1), (601, 1)] {
        assert_eq!((shown(&image, &journal, slot), at_home(&image, slot)), (value, value));
    }
    assert!(!journal.usage().active);
    let reopened = TestImage::open(image.storage().clone()).unwrap();
    assert_eq!(clean(&reopened).usage().used_blocks, 0);
}

#[test]
fn what_was_not_checkpointed_is_recovered() {
    let (_, image) = image();
    let journal = clean(&image);
    for value in 2..30 {
        journal.commit_batch(batch(&image, &[(value, 1, value), (0, 1, value)]), &image).unwrap();
    }
    drop(journal);
    let reopened = TestImage::open(image.storage().clone()).unwrap();
    let Opened::Dirty(recovery) = reopened.journal().unwrap() else { panic!("not dirty") };
    assert!(recovery.commits() > 0);
    let mut seen = [0; 8 * 32];
    let at = reopened.slot(0);
    reopened.storage().read_at(&mut seen, at.get()).unwrap();
    recovery.overlay(1000).unwrap().patch(&mut seen, at);
    let journal = reopened.recovered().unwrap();
    let mut home = [0; 8 * 32];
    reopened.storage().read_at(&mut home, at.get()).unwrap();
    assert_eq!(seen, home, "a reader sees what recovery writes");
    assert_eq!(at_home(&reopened, 0), 29);
    for value in 2..30 {
        assert_eq!(at_home(&reopened, value), value);
    }
    journal.commit_batch(batch(&reopened, &[(7, 1, 70)]), &reopened).unwrap();
    assert_eq!(shown(&reopened, &journal, 7), 70);
    assert_eq!(journal.usage().used_blocks, 1);
}
