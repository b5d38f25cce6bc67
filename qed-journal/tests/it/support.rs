//! A small image, and what its slots hold.

use std::sync::Arc;

use qed_io::{MemoryStorage, Operation, Recorder};
use qed_journal::{Batch, DataOrder, Journal, Opened, TestImage};

/// An image with a ring of as many blocks, and the log of what happens to it from now on.
pub(crate) fn image(ring_blocks: u64) -> (Arc<Recorder>, TestImage) {
    let memory = Arc::new(MemoryStorage::default());
    TestImage::create(memory.clone(), ring_blocks).unwrap();
    let recorder = Arc::new(Recorder::new(memory));
    let image = TestImage::open(recorder.clone()).unwrap();
    (recorder, image)
}

/// The same image as another program finds it.
pub(crate) fn reopened(image: &TestImage) -> TestImage {
    TestImage::open(image.storage().clone()).unwrap()
}

pub(crate) fn clean(image: &TestImage) -> Journal {
    match image.journal().unwrap() {
        Opened::Clean(journal) => journal,
        Opened::Dirty(recovery) => panic!("{recovery:?}"),
    }
}

/// Sets of slot, count and value: see [`TestImage::record`].
pub(crate) fn batch(image: &TestImage, sets: &[(u64, u32, u64)]) -> Batch {
    let record = |&(slot, count, value)| image.record(slot, count, value);
    Batch {
        records: sets.iter().map(record).collect(),
        physical_size: image.physical_size(1000),
        data: DataOrder::Together,
    }
}

/// A batch of as many records.
pub(crate) fn records(image: &TestImage, count: u64, value: u64) -> Batch {
    let sets: Vec<_> = (0..count).map(|n| (n % 1000 * 2, 1, value + n % 7)).collect();
    batch(image, &sets)
}

/// The value of a slot as the journal shows it.
pub(crate) fn shown(image: &TestImage, journal: &Journal, slot: u64) -> u64 {
    let mut bytes = [0; 8];
    journal.read_at(&mut bytes, image.slot(slot)).unwrap();
    image.value_of(u64::from_le_bytes(bytes))
}

/// The value of a slot in the file.
pub(crate) fn at_home(image: &TestImage, slot: u64) -> u64 {
    let mut bytes = [0; 8];
    image.storage().read_at(&mut bytes, image.slot(slot).get()).unwrap();
    image.value_of(u64::from_le_bytes(bytes))
}

/// What was done since `from` records of the log, in letters: W for a write into the ring, T for
/// one into tables, S for sector 0, B for a superblock, F for a flush.
pub(crate) fn letters(recorder: &Recorder, from: usize, ring_blocks: u64) -> String {
    let letter = |operation| match operation {
        Operation::Write { offset: 0, .. } => 'S',
        Operation::Write { offset: 8192..16384, .. } => 'B',
        Operation::Write { offset, .. } if offset < 16384 + ring_blocks * 4096 => 'W',
        Operation::Write { .. } => 'T',
        Operation::Flush => 'F',
        other => panic!("{other:?}"),
    };
    recorder.records().into_iter().skip(from).map(|record| letter(record.operation)).collect()
}
