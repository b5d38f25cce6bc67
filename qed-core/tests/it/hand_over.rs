//! Images that two hosts can write, where no lock reaches from one to the other: who may open one, what is
//! durable when, and how a stale owner finds out. Both hosts share a storage in memory.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qed_core::{
    Image, ImageError, Keeps, Layout, LockPolicy, OpenError, Ownership, PendingLost,
    RecoveryPolicy, RefuseBacking, WriteContext, read_owner,
};
use qed_io::{MemoryStorage, Operation, Outcome, Recorder, Storage};
use qed_spec::GuestOffset;

use crate::process_death::clear_need_check;
use crate::support::{COMPAT, JOURNAL, new_storage_of, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 2048 * CLUSTER;
/// Bytes that hold sector 0 and the superblocks.
const HEAD: u64 = 16 << 10;

/// What makes a host write what it has.
type End = fn(&Image) -> Result<(), ImageError>;

/// A host with its token.
#[derive(Clone, Copy)]
struct Host {
    number: u8,
    take_over: bool,
    shared: bool,
}

const HERE: Host = Host { number: 1, take_over: false, shared: true };
const THERE: Host = Host { number: 2, take_over: false, shared: true };

impl Host {
    fn open(self, storage: Arc<dyn Storage>) -> Result<Image, OpenError> {
        let ownership = Ownership {
            boot_id: [self.number; 16],
            host_name: &[b'a' + self.number],
            since: 1,
            token: NonZeroU64::new(self.number.into()).unwrap(),
            salt: [5, 6],
            log: None,
            keeps: Keeps::Owner,
            lost: PendingLost::Refuse,
            shared: self.shared,
            take_over: self.take_over,
        };
        let context = WriteContext {
            ownership: Some(&ownership),
            ..WriteContext::new(
                &RefuseBacking,
                LockPolicy::None,
                RecoveryPolicy::Run(&clear_need_check),
            )
        };
        Image::open(storage, &context)
    }

    fn takes_over(self) -> Self {
        Self { take_over: true, ..self }
    }
}

fn storage(layout: Layout) -> Arc<MemoryStorage> {
    new_storage_of(layout, small_geometry(), DISK, false)
}

fn token(storage: &dyn Storage) -> Option<u64> {
    read_owner(storage).unwrap().and_then(|owner| owner.token()).map(NonZeroU64::get)
}

fn write(image: &Image, byte: u8, cluster: u64) -> Result<(), ImageError> {
    image.write_at(&[byte; 512], GuestOffset::new(cluster * CLUSTER))
}

fn read(image: &Image, cluster: u64) -> u8 {
    let mut byte = [0];
    image.read_at(&mut byte, GuestOffset::new(cluster * CLUSTER)).unwrap();
    byte[0]
}

// spec-test: QED-HAND-03
#[test]
fn an_owner_that_no_lock_reaches_is_not_replaced_unless_somebody_says_so() {
    for layout in [COMPAT, JOURNAL] {
        let storage = storage(layout);
        let here = HERE.open(storage.clone()).unwrap();
        assert_eq!(token(&*storage), Some(1));
        let refused = THERE.open(storage.clone()).unwrap_err();
        assert!(matches!(&refused, OpenError::Owned { host, .. } if host == "b"), "{refused}");
        assert_eq!(token(&*storage), Some(1), "a refused host writes");
        here.close().unwrap();
        assert_eq!(token(&*storage), None);
        let there = THERE.open(storage.clone()).unwrap();
        drop(HERE.takes_over().open(storage.clone()).unwrap());
        drop(there);
    }
}

/// Whose image it is, is durable before anything else is written, and nobody's when all else is.
// spec-test: QED-HAND-03, QED-HAND-04
#[test]
fn the_owner_is_durable_first_and_given_up_last() {
    for layout in [COMPAT, JOURNAL] {
        let recorder = Arc::new(Recorder::new(storage(layout)));
        let image = HERE.open(recorder.clone()).unwrap();
        let opened = recorder.records();
        for record in &opened {
            let place = match &record.operation {
                Operation::Write { offset, bytes } => offset + bytes.len() as u64,
                Operation::Flush => 0,
                other => panic!("{other:?} while it opens"),
            };
            assert!(place <= HEAD, "written before its owner is durable: {place:#x}");
        }
        assert_eq!(opened.last().unwrap().operation, Operation::Flush);
        assert_eq!(token(&*recorder), Some(1));
        write(&image, 1, 3).unwrap();
        image.close().unwrap();
        let closing = recorder.records();
        let is_change = |operation: &Operation| !matches!(operation, Operation::Flush);
        let last = closing.iter().rposition(|record| is_change(&record.operation)).unwrap();
        let Operation::Write { offset: 0, bytes } = &closing[last].operation else {
            panic!("{:?} is written last", closing[last])
        };
        assert_eq!(bytes[36] & 1 << 5, 0, "OWNED is set to the end");
        assert!(last + 1 < closing.len(), "it is not durable");
        assert!(closing.iter().all(|record| record.completion.unwrap().outcome == Outcome::Done));
    }
}

/// A host that was cut off, and of which somebody said so, comes back with entries to write.
// spec-test: QED-HAND-05
#[test]
fn a_stale_owner_writes_no_table_once_another_has_the_image() {
    let ends: [(&str, End); 4] = [
        ("flush", Image::flush),
        ("close", Image::close),
        ("timer", |image| {
            let later = Instant::now() + Duration::from_secs(60);
            image.maintain(later)?;
            image.maintain(later + Duration::from_secs(60)).map(drop)
        }),
        ("resize", |image| match image.resize(2 * DISK, qed_core::Shrink::Refuse) {
            Err(qed_core::ResizeError::Image(error)) => Err(error),
            other => panic!("{other:?}"),
        }),
    ];
    for layout in [COMPAT, JOURNAL] {
        for (name, end) in ends {
            let storage = storage(layout);
            let here = HERE.open(storage.clone()).unwrap();
            write(&here, 1, 3).unwrap();
            here.flush().unwrap();
            write(&here, 2, 900).unwrap();

            let there = THERE.takes_over().open(storage.clone()).unwrap();
            write(&there, 3, 1000).unwrap();
            there.flush().unwrap();
            let before = head_and_tables(&*storage, &there);
            let ended = end(&here).unwrap_err();
            assert!(matches!(ended, ImageError::NotOurs), "{layout:?} {name}: {ended}");
            assert!(head_and_tables(&*storage, &there) == before, "{layout:?} {name} writes");
            assert!(write(&here, 4, 1500).is_err(), "{layout:?} {name} goes on");
            assert!(matches!(here.flush(), Err(ImageError::NotOurs)), "{layout:?} {name}");
            drop(here);
            assert!(head_and_tables(&*storage, &there) == before, "{layout:?} {name} writes");

            write(&there, 5, 1001).unwrap();
            there.close().unwrap();
            let again = HERE.open(storage).unwrap();
            assert_eq!([3, 1000, 1001].map(|at| read(&again, at)), [1, 3, 5], "{layout:?} {name}");
        }
    }
}

/// A program that knows no owners clears the bit, as QEMU does.
// spec-test: QED-HAND-05, QED-HAND-07
#[test]
fn a_stale_owner_notices_a_program_that_knows_no_owners() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let storage = storage(layout);
        let here = HERE.open(storage.clone()).unwrap();
        write(&here, 2, 900).unwrap();
        let mut autoclear = [0; 8];
        storage.read_at(&mut autoclear, 32).unwrap();
        assert_eq!(autoclear[4] & 1 << 5, 1 << 5);
        storage.write_at(&[0; 8], 32).unwrap();
        assert!(matches!(here.flush(), Err(ImageError::NotOurs)), "{layout:?}");
    }
}

#[test]
fn an_owner_that_locks_reach_is_not_asked_for_again() {
    let storage = storage(COMPAT);
    let here = Host { shared: false, ..HERE }.open(storage.clone()).unwrap();
    write(&here, 2, 900).unwrap();
    storage.write_at(&[0; 8], 32).unwrap();
    here.flush().unwrap();
}

/// Header area with superblocks, dirty bits and journal, and all tables of the disk as `image` has them.
fn head_and_tables(storage: &dyn Storage, image: &Image) -> Vec<u8> {
    let header = image.header();
    let table = header.geometry().table_size_bytes();
    let mut places = vec![(0, header.header_area_len_bytes())];
    let l1 = header.fields().l1_table_offset.get();
    places.push((l1, table));
    let mut slots = vec![0; usize::try_from(table).unwrap()];
    storage.read_at(&mut slots, l1).unwrap();
    let slots = slots.chunks(8).map(|slot| u64::from_le_bytes(slot.try_into().unwrap()));
    places.extend(slots.filter(|slot| *slot > 1).map(|slot| (slot, table)));
    let mut all = Vec::new();
    for (at, len) in places {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        storage.read_at(&mut bytes, at).unwrap();
        all.extend(bytes);
    }
    all
}
