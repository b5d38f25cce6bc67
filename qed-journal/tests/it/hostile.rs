//! Rings that no writer of ours leaves behind, with checksums that are right: each is refused, and
//! nothing of it is followed.

use std::sync::Arc;

use qed_io::MemoryStorage;
use qed_journal::{JournalFault, Recovery, RecoveryError, TestImage};
use qed_spec::{
    ClusterCount, Generation, JournalBlockError, JournalBlockHead, JournalSeed, JournalSequence,
    RawJournalBlock, RawJournalRecord,
};
use zerocopy::IntoBytes;

const RING: u64 = 16384;
const BLOCKS: u64 = 8;
/// First byte behind the header area: the tables.
const TABLES: u64 = RING + BLOCKS * 4096;

/// A ring that is written block by block.
struct Forgery {
    image: TestImage,
    seed: JournalSeed,
    last_crc32c: u32,
}

impl Forgery {
    fn new() -> Self {
        let image = TestImage::create(Arc::new(MemoryStorage::default()), BLOCKS).unwrap();
        let setup = image.setup().unwrap();
        Self { image, seed: JournalSeed::new(setup.uuid, setup.epoch), last_crc32c: 0 }
    }

    /// The head that the block with this number has in a log of commits of one block.
    fn head(&self, sequence: u64) -> JournalBlockHead {
        JournalBlockHead {
            previous_crc32c: self.last_crc32c,
            sequence: JournalSequence::new(sequence),
            stable: JournalSequence::new(sequence - 1),
            generation: Generation::FIRST,
            physical_size: ClusterCount::new(100),
            index: 0,
            count: 1,
        }
    }

    /// Writes a block to the place of another number perhaps than it carries.
    fn put_at(&mut self, place: u64, head: JournalBlockHead, records: &[RawJournalRecord]) {
        let block = head.encode(records, &self.seed);
        self.last_crc32c = block.crc32c.get();
        self.put_raw(place, &block);
    }

    fn put(&mut self, head: JournalBlockHead, records: &[RawJournalRecord]) {
        self.put_at(head.sequence.get(), head, records);
    }

    fn put_raw(&self, place: u64, block: &RawJournalBlock) {
        let at = RING + place % BLOCKS * 4096;
        self.image.storage().write_at(block.as_bytes(), at).unwrap();
    }

    fn read(&self) -> Result<Recovery, RecoveryError> {
        let setup = self.image.setup().unwrap();
        Recovery::read(self.image.storage().clone(), setup, |_| Ok(true))
    }

    #[track_caller]
    fn refused(&self, block: u64, expected: JournalFault) {
        match self.read() {
            Err(RecoveryError::Corrupt { sequence, fault, .. }) => {
                assert_eq!((sequence.get(), fault), (block, expected));
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn accepted(&self, commits: u64) {
        assert_eq!(self.read().unwrap().commits(), commits);
    }
}

fn record(kind: u32, count: u32, at: u64, value: u64) -> RawJournalRecord {
    RawJournalRecord { kind: kind.into(), count: count.into(), at: at.into(), value: value.into() }
}

/// A record that any image takes.
fn plain() -> RawJournalRecord {
    record(3, 1, TABLES, 0)
}

/// Whether a journal with this record in its only commit is read, and why it is not.
fn with_record(raw: RawJournalRecord) -> Result<Recovery, RecoveryError> {
    let mut forgery = Forgery::new();
    forgery.put(forgery.head(1), &[plain(), raw]);
    forgery.read()
}

// spec-test: QED-JRN-07, QED-JRN-08
#[test]
fn records_that_have_no_meaning() {
    let cluster = 4096;
    for raw in [
        record(0, 1, TABLES, 0),
        record(6, 1, TABLES, 0),
        record(u32::MAX, 1, TABLES, 0),
        record(3, 0, TABLES, 0),
        record(3, 1, TABLES + 4, 0),
        record(3, u32::MAX, 1 << 63, 0),
        record(4, 1, !7, 0),
        record(3, 1, TABLES, 1),
        record(4, 1, TABLES, 1),
        record(1, 2, TABLES, TABLES),
        record(1, 1, TABLES, 1),
        record(1, 1, TABLES, TABLES + 8),
        record(2, 1, TABLES, 0),
        record(2, 1, TABLES, 1),
        record(2, 1, TABLES, TABLES + 512),
        record(2, u32::MAX, TABLES, (1 << 63) - cluster),
        record(5, 1, 0, 0),
        record(5, 1, TABLES + 8, 0),
        record(5, 1, TABLES, 7),
    ] {
        match with_record(raw) {
            Err(RecoveryError::Corrupt { fault: JournalFault::Record(_), .. }) => {}
            other => panic!("{raw:?}: {other:?}"),
        }
    }
}

// spec-test: QED-JRN-09, QED-JRN-11
#[test]
fn a_record_without_meaning_in_a_torn_commit_is_of_no_account() {
    let mut forgery = Forgery::new();
    forgery.put(forgery.head(1), &[plain()]);
    let half = JournalBlockHead { count: 2, ..forgery.head(2) };
    forgery.put(half, &[record(9, 1, TABLES, 0)]);
    forgery.accepted(1);
}

// spec-test: QED-JRN-12
#[test]
fn half_a_commit_that_was_durable_is_a_loss() {
    let mut forgery = Forgery::new();
    forgery.put(forgery.head(1), &[plain()]);
    forgery.put(JournalBlockHead { count: 3, ..forgery.head(2) }, &[plain()]);
    forgery.accepted(1);
    let stable = JournalSequence::new(2);
    let second = JournalBlockHead { count: 3, index: 1, stable, ..forgery.head(3) };
    forgery.put(second, &[plain()]);
    forgery.refused(4, JournalFault::Lost { stable });
}

// spec-test: QED-JRN-08
#[test]
fn records_that_leave_the_image() {
    let end = 100 * 4096;
    let cluster = 4096;
    let behind_header = 100 - u32::try_from(TABLES / cluster).unwrap();
    for raw in [
        record(3, 1, 0, 0),
        record(4, 1, 8192, 0),
        record(3, 512, RING + 8, 0),
        record(3, 1, TABLES - 8, 0),
        record(3, 2, TABLES - 8, 0),
        record(3, 1, end, 0),
        record(3, 2, end - 8, 0),
        record(4, u32::MAX, TABLES, 0),
        record(1, 1, TABLES, TABLES - cluster),
        record(1, 1, TABLES, end),
        record(2, 1, TABLES, RING),
        record(2, 2, TABLES, end - cluster),
        record(2, 1, TABLES, 1 << 62),
        record(5, 1, RING, 0),
        record(5, behind_header + 1, TABLES, 0),
    ] {
        match with_record(raw) {
            Err(RecoveryError::Corrupt { fault: JournalFault::Refused { .. }, .. }) => {}
            other => panic!("{raw:?}: {other:?}"),
        }
    }
    for raw in [
        record(3, 1, end - 8, 0),
        record(1, 1, TABLES, end - cluster),
        record(1, 1, TABLES, 0),
        record(2, 2, TABLES, end - 2 * cluster),
        record(5, behind_header, TABLES, 0),
    ] {
        assert_eq!(with_record(raw).unwrap().commits(), 1, "{raw:?}");
    }
}

// spec-test: QED-JRN-06
#[test]
fn intact_blocks_that_break_a_rule_of_blocks() {
    type Change = fn(&mut JournalBlockHead);
    let cases: [(Change, JournalBlockError); 3] = [
        (|head| head.index = 1, JournalBlockError::Index { index: 1, count: 1 }),
        (|head| head.count = 0, JournalBlockError::Index { index: 0, count: 0 }),
        (
            |head| head.stable = head.sequence,
            JournalBlockError::Stable {
                stable: JournalSequence::FIRST,
                sequence: JournalSequence::FIRST,
            },
        ),
    ];
    for (change, error) in cases {
        let mut forgery = Forgery::new();
        let mut head = forgery.head(1);
        change(&mut head);
        forgery.put(head, &[plain()]);
        forgery.refused(1, JournalFault::Block(error));
    }
}

// spec-test: QED-JRN-09, QED-JRN-10, QED-JRN-13, QED-JRN-14
#[test]
fn blocks_that_do_not_follow_each_other() {
    type Change = fn(&mut JournalBlockHead);
    let cases: [(Change, JournalFault); 8] = [
        (|head| head.previous_crc32c ^= 1, JournalFault::Chain),
        (|head| (head.index, head.count) = (1, 2), JournalFault::Chain),
        (|head| head.count = 5, JournalFault::CommitTooLong { count: 5, max: 4 }),
        (|head| head.count = u32::MAX, JournalFault::CommitTooLong { count: u32::MAX, max: 4 }),
        (
            |head| head.generation = Generation::new(2).unwrap(),
            JournalFault::Newer { found: Generation::new(2).unwrap(), current: Generation::FIRST },
        ),
        (
            |head| head.sequence = JournalSequence::new(10),
            JournalFault::Misplaced { found: JournalSequence::new(10) },
        ),
        (
            |head| {
                (head.sequence, head.stable) = (JournalSequence::new(1), JournalSequence::new(0))
            },
            JournalFault::Misplaced { found: JournalSequence::new(1) },
        ),
        (
            |head| head.physical_size = ClusterCount::new(99),
            JournalFault::PhysicalSize { found: ClusterCount::new(99) },
        ),
    ];
    for (change, fault) in cases {
        let mut forgery = Forgery::new();
        forgery.put(forgery.head(1), &[plain()]);
        let mut head = forgery.head(2);
        change(&mut head);
        forgery.put_at(2, head, &[plain()]);
        forgery.refused(2, fault);
    }
}

// spec-test: QED-JRN-09
#[test]
fn blocks_of_one_commit_that_disagree() {
    type Change = fn(&mut JournalBlockHead);
    let changes: [Change; 5] = [
        |head| head.count = 3,
        |head| head.index = 0,
        |head| head.index = 2,
        |head| head.physical_size = ClusterCount::new(101),
        |head| head.previous_crc32c ^= 1,
    ];
    for change in changes {
        let mut forgery = Forgery::new();
        forgery.put(JournalBlockHead { count: 4, ..forgery.head(1) }, &[plain()]);
        let mut head = JournalBlockHead { count: 4, index: 1, ..forgery.head(2) };
        head.stable = JournalSequence::new(0);
        change(&mut head);
        forgery.put(head, &[plain()]);
        forgery.refused(2, JournalFault::Chain);
    }
}

#[test]
fn sizes_that_no_image_has() {
    for found in [0, TABLES / 4096 - 1, 1 << 52, u64::MAX] {
        let mut forgery = Forgery::new();
        let physical_size = ClusterCount::new(found);
        forgery.put(JournalBlockHead { physical_size, ..forgery.head(1) }, &[]);
        forgery.refused(1, JournalFault::PhysicalSize { found: physical_size });
    }
    for found in [TABLES / 4096, 1 << 51] {
        let mut forgery = Forgery::new();
        let physical_size = ClusterCount::new(found);
        forgery.put(JournalBlockHead { physical_size, ..forgery.head(1) }, &[]);
        forgery.accepted(1);
    }
}

// spec-test: QED-JRN-11, QED-JRN-12
#[test]
fn a_missing_block_that_others_say_was_durable() {
    // Block 2 is missing; those of the case lie behind it and say that it was, or was not, durable.
    for (behind, stable, lost) in
        [(&[][..], 0, false), (&[3], 2, true), (&[3], 1, false), (&[5], 4, true), (&[4], 2, true)]
    {
        let mut forgery = Forgery::new();
        forgery.put(forgery.head(1), &[plain()]);
        for sequence in behind {
            let head = forgery.head(*sequence);
            forgery.put(JournalBlockHead { stable: JournalSequence::new(stable), ..head }, &[]);
        }
        if lost {
            forgery.refused(2, JournalFault::Lost { stable: JournalSequence::new(stable) });
        } else {
            forgery.accepted(1);
        }
    }
}

// spec-test: QED-JRN-05, QED-JRN-11
#[test]
fn a_full_ring_ends_where_it_began() {
    let mut forgery = Forgery::new();
    for sequence in 1..=BLOCKS {
        forgery.put(forgery.head(sequence), &[plain()]);
    }
    forgery.accepted(BLOCKS);
    let other = JournalSeed::new(forgery.image.setup().unwrap().uuid, qed_spec::Epoch::new(99));
    for sequence in 1..=BLOCKS {
        forgery.put_raw(sequence, &forgery.head(sequence).encode(&[plain()], &other));
    }
    forgery.accepted(0);
}

/// Numbers that go wrong, drawn in an order that a seed gives.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }

    fn offset(&mut self) -> u64 {
        let near = [0, 8, RING, TABLES, TABLES + 4096, 99 * 4096, 100 * 4096, 1 << 62, 1 << 63, !0];
        let value = near[usize::try_from(self.next(near.len() as u64)).unwrap()];
        [value, value.wrapping_sub(8), value.wrapping_add(4096), value | 1]
            [usize::try_from(self.next(4)).unwrap()]
    }

    fn record(&mut self) -> RawJournalRecord {
        let counts = [0, 1, 2, 511, 513, 70_000, u32::MAX];
        let count = counts[usize::try_from(self.next(7)).unwrap()];
        let kind = u32::try_from(self.next(7)).unwrap();
        let value = if self.next(2) == 0 { 0 } else { self.offset() };
        record(kind, count, self.offset(), value)
    }
}

// spec-test: QED-JRN-08, QED-JRN-23
#[test]
fn whatever_a_ring_holds_recovery_answers_and_leaves_the_header_area_alone() {
    let mut read = 0;
    for seed in 0..4000 {
        let mut numbers = Numbers(seed);
        let mut forgery = Forgery::new();
        for sequence in 1..=1 + numbers.next(BLOCKS) {
            let mut head = forgery.head(sequence);
            match numbers.next(12) {
                0 => head.count = u32::try_from(numbers.next(6)).unwrap(),
                1 => head.index = u32::try_from(numbers.next(6)).unwrap(),
                2 => head.stable = JournalSequence::new(numbers.next(12)),
                3 => head.physical_size = ClusterCount::new(numbers.offset() >> 12),
                4 => head.sequence = JournalSequence::new(numbers.next(20)),
                _ => {}
            }
            let records: Vec<_> = (0..numbers.next(3)).map(|_| numbers.record()).collect();
            forgery.put_at(sequence, head, &records);
        }
        let mut before = vec![0; usize::try_from(TABLES).unwrap()];
        forgery.image.storage().read_at(&mut before, 0).unwrap();
        let Ok(recovery) = forgery.read() else { continue };
        // A file of the largest sizes does not fit in memory; that is an error and no more.
        if recovery.replay().is_ok() {
            read += 1;
        }
        let mut after = vec![0; before.len()];
        forgery.image.storage().read_at(&mut after, 0).unwrap();
        assert!(before == after, "seed {seed}");
    }
    assert!(read > 100, "only {read} rings were replayed");
}
