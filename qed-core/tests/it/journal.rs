//! Journal mode: what a flush leaves in the file, what opening makes of it after a crash, and when
//! the tables get it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qed_core::{
    CrashLeft, CreateOptions, Image, Layout, LockPolicy, OpenError, ReadContext, ReadOnlyImage,
    Recovered, RecoveryPolicy, RefuseBacking, ShownReplay, Shrink, VirtualDisk, WriteContext,
    create, replay_journal, show_replayed,
};
use qed_io::{MemoryStorage, Storage};
use qed_journal::RecoveryError;
use qed_spec::{
    AutoclearFeatures, ClusterCount, Features, GuestOffset, Header, HostCluster, HostOffset,
    JournalBlockHead, JournalRecord, JournalRing, JournalSeed, JournalSequence, L1Entry,
    SectionType, SuperblockBuilder, SuperblockChoice, SuperblockCopy,
};
use zerocopy::IntoBytes;

use crate::support::{JOURNAL, context, new_storage_of, open, small_geometry};

/// Bytes that one L2 table of [`small_geometry`] maps.
const TABLE: u64 = 1024 * 4096;
const DISK: u64 = 4 * TABLE;

fn new_image() -> Arc<MemoryStorage> {
    new_storage_of(JOURNAL, small_geometry(), DISK, false)
}

/// What the file says of its journal.
#[derive(Debug, PartialEq)]
struct State {
    is_active: bool,
    is_kept: bool,
    epoch: u64,
    tail: u64,
}

fn state(storage: &MemoryStorage) -> State {
    let bytes = storage.to_vec();
    let known = Features::CLASSIC | Features::JOURNAL_ACTIVE;
    let header = Header::parse(&bytes, bytes.len() as u64, known).unwrap();
    let (a, b) = (SuperblockCopy::A.offset().get(), SuperblockCopy::B.offset().get());
    let choice = SuperblockChoice::new(&bytes[a as usize..], &bytes[b as usize..]).unwrap();
    let (_, current) = choice.current().unwrap();
    let section = current.section(SectionType::JOURNAL).unwrap();
    State {
        is_active: header.features().contains(Features::JOURNAL_ACTIVE),
        is_kept: header.fields().autoclear_features == AutoclearFeatures::JOURNAL,
        epoch: current.epoch().get(),
        tail: JournalRing::parse(section.payload(), &header).unwrap().tail().get(),
    }
}

/// The L1 table as it lies in the file.
fn l1_table(storage: &MemoryStorage) -> Vec<u8> {
    let bytes = storage.to_vec();
    let known = Features::CLASSIC | Features::JOURNAL_ACTIVE;
    let header = Header::parse(&bytes, bytes.len() as u64, known).unwrap();
    let at = header.fields().l1_table_offset.get() as usize;
    bytes[at..at + 64].to_vec()
}

fn write(image: &Image, at: u64, byte: u8) {
    image.write_at(&[byte; 512], GuestOffset::new(at)).unwrap();
}

#[track_caller]
fn assert_holds(image: &dyn VirtualDisk, at: u64, byte: u8) {
    let mut buf = [0xee; 512];
    image.read_at(&mut buf, at).unwrap();
    assert_eq!(buf, [byte; 512], "at {at:#x}");
}

/// A file with the bytes that this one has now, as a crash would leave it.
fn crashed(storage: &MemoryStorage) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new(storage.to_vec()))
}

/// A context that allows recovery and fails where it runs the hook: a journal needs none.
fn recovering<'a>(hook: &'a qed_core::RecoveryHook<'a>) -> WriteContext<'a> {
    WriteContext {
        cache_limit_bytes: 0,
        ..WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Run(hook))
    }
}

fn no_hook(
    _: &dyn Storage,
    _: &CrashLeft,
) -> Result<Recovered, Box<dyn std::error::Error + Send + Sync>> {
    Err("a journal needs no check".into())
}

// spec-test: QED-JRN-16, QED-JRN-17, QED-JRN-18, QED-JRN-22
#[test]
fn a_flush_writes_the_journal_and_a_close_the_tables() {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    let clean = State { is_active: false, is_kept: true, epoch: 6, tail: 1 };
    assert_eq!(state(&storage), clean);
    write(&image, 0, 1);
    write(&image, 3 * TABLE, 2);
    assert_eq!(state(&storage), clean, "entries wait for a flush");
    image.flush().unwrap();
    assert_eq!(state(&storage), State { is_active: true, ..clean });
    assert_eq!(l1_table(&storage), [0; 64], "tables stay as they were");
    let at_crash = crashed(&storage);

    image.close().unwrap();
    assert_eq!(state(&storage), State { tail: 2, ..clean });
    assert_ne!(l1_table(&storage), [0; 64]);
    let image = open(storage, &RefuseBacking);
    assert_holds(&image, 0, 1);
    assert_holds(&image, 3 * TABLE, 2);

    let refused = Image::open(at_crash.clone(), &context(&RefuseBacking));
    assert!(matches!(refused, Err(OpenError::NeedsRecovery)), "{refused:?}");
    let image = Image::open(at_crash.clone(), &recovering(&no_hook)).unwrap();
    let recovered = state(&at_crash);
    assert!(!recovered.is_active && recovered.is_kept && recovered.epoch != 6, "{recovered:?}");
    assert_eq!(recovered.tail, 2);
    assert_holds(&image, 0, 1);
    assert_holds(&image, 3 * TABLE, 2);
    assert_holds(&image, TABLE, 0);
}

// spec-test: QED-JRN-23, QED-CONS-04
#[test]
fn a_reader_sees_what_the_journal_holds_and_writes_nothing() {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    for slot in 0..40 {
        write(&image, slot * 4096 + 512, 7);
    }
    write(&image, 2 * TABLE, 8);
    image.flush().unwrap();
    let at_crash = crashed(&storage);
    // A file that has yet to grow over the last cluster that the journal names.
    let short = crashed(&storage);
    let shown = show_replayed(&(at_crash.clone() as Arc<dyn Storage>)).unwrap().unwrap();
    assert_eq!(shown.waiting.commits, 1);
    short.set_len(shown.storage.len().unwrap() - 4096).unwrap();
    for storage in [at_crash, short] {
        let before = storage.to_vec();
        let read = ReadContext::new(&RefuseBacking, LockPolicy::Take);
        let image = ReadOnlyImage::open(storage.clone(), &read).unwrap();
        assert!(image.header().features().contains(Features::JOURNAL_ACTIVE));
        assert_holds(&image, 512, 7);
        assert_holds(&image, 39 * 4096 + 512, 7);
        assert_holds(&image, 39 * 4096, 0);
        let ShownReplay { storage: shown, waiting } =
            show_replayed(&(storage.clone() as Arc<dyn Storage>)).unwrap().unwrap();
        assert!(storage.to_vec() == before);

        // What the view shows is what a replay leaves.
        let replay = replay_journal(&(storage.clone() as Arc<dyn Storage>)).unwrap().unwrap();
        assert_eq!(replay, waiting);
        let len = shown.len().unwrap();
        assert_eq!(len, storage.len().unwrap());
        let header = open(storage.clone(), &RefuseBacking).header();
        let tables = header.header_area_len_bytes() as usize..len as usize;
        let mut seen = vec![0; tables.len()];
        shown.read_at(&mut seen, tables.start as u64).unwrap();
        assert!(seen == storage.to_vec()[tables.clone()]);
        for at in tables.step_by(1500) {
            let mut odd = [0; 13];
            if at + odd.len() <= len as usize {
                shown.read_at(&mut odd, at as u64).unwrap();
                assert_eq!(odd, storage.to_vec()[at..at + odd.len()]);
            }
        }
        assert!(show_replayed(&(storage as Arc<dyn Storage>)).unwrap().is_none());
    }
}

// spec-test: QED-JRN-19, QED-JRN-20, QED-JRN-21
#[test]
fn a_ring_that_fills_is_emptied_on_the_way_and_evicted_tables_are_read_through_it() {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    let place = |round: u64| (round % 4) * TABLE + (round * 37 % 1024) * 4096;
    for round in 0..600 {
        write(&image, place(round), (round % 251) as u8 + 1);
        image.flush().unwrap();
    }
    assert!(state(&storage).tail > 500, "{:?}", state(&storage));
    for round in 0..600 {
        assert_holds(&image, place(round), (round % 251) as u8 + 1);
    }
    let recovered = Image::open(crashed(&storage), &recovering(&no_hook)).unwrap();
    for round in 0..600 {
        assert_holds(&recovered, place(round), (round % 251) as u8 + 1);
    }
}

#[test]
fn maintain_empties_a_journal_that_nobody_writes() {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(image.maintain(start).unwrap(), None);
    write(&image, 0, 1);
    assert_eq!(image.maintain(after(1)).unwrap(), Some(after(6)));
    assert!(!state(&storage).is_active, "nothing was due");
    assert_eq!(image.maintain(after(6)).unwrap(), Some(after(11)));
    assert!(state(&storage).is_active, "flushed");
    write(&image, 4096, 2);
    image.flush().unwrap();
    assert_eq!(image.maintain(after(10)).unwrap(), Some(after(15)), "a write puts it off");
    assert!(state(&storage).is_active);
    assert_eq!(image.maintain(after(15)).unwrap(), None);
    assert_eq!(state(&storage), State { is_active: false, is_kept: true, epoch: 6, tail: 3 });
    // Half full: at once.
    for round in 0..4 {
        write(&image, round * 8192 + 65536, 3);
        image.flush().unwrap();
    }
    image.maintain(after(16)).unwrap();
    assert_eq!(state(&storage).tail, 7);
}

// spec-test: QED-JRN-29
#[test]
fn the_header_changes_only_while_the_log_is_empty() {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    let no_log = |image: &Image| {
        let crash = crashed(&storage);
        let replay = replay_journal(&(crash as Arc<dyn Storage>)).unwrap();
        assert!(replay.is_none_or(|replay| replay.commits == 0), "{replay:?}");
        image.header()
    };
    write(&image, DISK - 4096, 5);
    image.flush().unwrap();
    image.resize(DISK + 8192, Shrink::Refuse).unwrap();
    assert_eq!(no_log(&image).image_size(), DISK + 8192);
    write(&image, 0, 6);
    image.flush().unwrap();
    image.resize(TABLE, Shrink::Allow).unwrap();
    assert_eq!(no_log(&image).image_size(), TABLE);
    write(&image, 4096, 7);
    image.flush().unwrap();
    image.set_backing(None).unwrap();
    no_log(&image);
    assert_holds(&image, 4096, 7);
    image.close().unwrap();
    assert_holds(&open(storage, &RefuseBacking), 0, 6);
}

// spec-test: QED-SB-12, QED-SB-17, QED-SB-14
#[test]
fn after_another_program_wrote_the_journal_begins_anew() {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 0, 1);
    image.flush().unwrap();
    image.close().unwrap();
    // As a program that knows no journal leaves it.
    storage.write_at(&[0; 8], 32).unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    let anew = state(&storage);
    assert!(anew.is_kept && anew.epoch != 6 && anew.tail == 1, "{anew:?}");
    write(&image, 4096, 2);
    image.flush().unwrap();
    let image = Image::open(crashed(&storage), &recovering(&no_hook)).unwrap();
    assert_holds(&image, 0, 1);
    assert_holds(&image, 4096, 2);
}

/// Makes this the number of the next block.
fn set_tail(storage: &MemoryStorage, tail: u64) {
    let bytes = storage.to_vec();
    let header = Header::parse(&bytes, bytes.len() as u64, Features::CLASSIC).unwrap();
    let (a, b) = (SuperblockCopy::A.offset().get(), SuperblockCopy::B.offset().get());
    let choice = SuperblockChoice::new(&bytes[a as usize..], &bytes[b as usize..]).unwrap();
    let (copy, current) = choice.current().unwrap();
    let section = current.section(SectionType::JOURNAL).unwrap();
    let tail = JournalSequence::new(tail);
    let ring = JournalRing::parse(section.payload(), &header).unwrap();
    let ring = ring.with_state(tail, tail.previous()).unwrap();
    let mut builder = SuperblockBuilder::new(current.uuid(), current.epoch());
    let mode = current.section(SectionType::MODE).unwrap();
    builder.set_section(SectionType::MODE, mode.payload()).unwrap();
    builder.set_section(SectionType::JOURNAL, &ring.encode()).unwrap();
    storage.write_at(&builder.encode(current.generation()), copy.offset().get()).unwrap();
}

// spec-test: QED-JRN-03, QED-JRN-24
#[test]
fn a_ring_whose_numbers_run_out_begins_anew_in_another_epoch() {
    let half = JournalRing::MAX_SEQUENCE.get() / 2;
    for (tail, next) in [(half, half), (half + 1, 1), (2 * half, 1)] {
        let storage = new_image();
        let epoch = state(&storage).epoch;
        set_tail(&storage, tail);
        let image = open(storage.clone(), &RefuseBacking);
        let opened = state(&storage);
        assert_eq!((opened.tail, opened.epoch == epoch), (next, next == tail), "{tail}");
        for at in 0..20 {
            write(&image, at * 4096, 1);
            image.flush().unwrap();
        }
        let crashed = crashed(&storage);
        assert!(state(&crashed).is_active);
        let again = Image::open(crashed.clone(), &recovering(&no_hook)).unwrap();
        assert!(state(&crashed).tail < half, "a recovery has an epoch of its own");
        for image in [image, again] {
            assert_holds(&image, 19 * 4096, 1);
            image.close().unwrap();
        }
    }
}

// spec-test: QED-JRN-31, QED-MODE-01
#[test]
fn a_bit_without_a_journal_refuses_the_image() {
    for layout in [Layout::Classic, JOURNAL] {
        let storage = new_storage_of(layout, small_geometry(), DISK, false);
        storage.write_at(&[1], 16 + 4).unwrap();
        if layout == JOURNAL {
            for copy in [SuperblockCopy::A, SuperblockCopy::B] {
                storage.write_at(&[0; 4096], copy.offset().get()).unwrap();
            }
        }
        let before = storage.to_vec();
        let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
        let errors = [
            ReadOnlyImage::open(storage.clone(), &read).unwrap_err(),
            Image::open(storage.clone(), &recovering(&no_hook)).unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains("feature bit 32 (JOURNAL_ACTIVE)"), "{error:?}");
        }
        assert!(storage.to_vec() == before);
    }
}

// spec-test: QED-JRN-02
#[test]
fn rings_of_any_legal_length_are_created_and_others_refused() {
    let create_with = |ring_len_bytes| {
        let storage = Arc::new(MemoryStorage::default());
        let Layout::Journal { identity, .. } = JOURNAL else { unreachable!() };
        let layout = Layout::Journal { identity, ring_len_bytes };
        create(&*storage, &CreateOptions { layout, ..CreateOptions::new(1 << 20) })?;
        let image = open(storage.clone(), &RefuseBacking);
        write(&image, 0, 1);
        image.flush().unwrap();
        let image = Image::open(crashed(&storage), &recovering(&no_hook)).unwrap();
        assert_holds(&image, 0, 1);
        Ok::<u64, qed_core::CreateError>(image.header().header_area_len_bytes())
    };
    assert_eq!(create_with(32 << 10).unwrap(), 1 << 16, "the smallest fits one cluster");
    assert_eq!(create_with(1 << 20).unwrap(), 17 << 16);
    for bad in [0, 4096, (32 << 10) - 4096, (32 << 10) + 512, (1 << 30) + 4096] {
        assert!(create_with(bad).is_err(), "{bad}");
    }
}

#[test]
fn flushes_of_many_threads_share_commits_and_lose_nothing() {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let image = &image;
            scope.spawn(move || {
                for round in 0..200 {
                    write(image, (round * 8 + thread) * 4096, thread as u8 + 1);
                    if round % 3 == 0 {
                        image.flush().unwrap();
                    }
                }
                image.flush().unwrap();
            });
        }
    });
    let recovered = Image::open(crashed(&storage), &recovering(&no_hook)).unwrap();
    for at in 0..1600 {
        assert_holds(&recovered, at * 4096, (at % 8) as u8 + 1);
        assert_holds(&image, at * 4096, (at % 8) as u8 + 1);
    }
}

/// An image of two tables with a hand-made commit in its journal.
fn with_commit(physical_size: u64, records: &[JournalRecord]) -> Arc<MemoryStorage> {
    let storage = new_image();
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 0, 1);
    write(&image, TABLE, 2);
    image.close().unwrap();
    let bytes = storage.to_vec();
    let header = Header::parse(&bytes, bytes.len() as u64, Features::CLASSIC).unwrap();
    let (a, b) = (SuperblockCopy::A.offset().get(), SuperblockCopy::B.offset().get());
    let choice = SuperblockChoice::new(&bytes[a as usize..], &bytes[b as usize..]).unwrap();
    let (_, current) = choice.current().unwrap();
    let section = current.section(SectionType::JOURNAL).unwrap();
    let ring = JournalRing::parse(section.payload(), &header).unwrap();
    let head = JournalBlockHead {
        previous_crc32c: 0,
        sequence: ring.tail(),
        stable: ring.tail().previous(),
        generation: current.generation(),
        physical_size: ClusterCount::new(physical_size),
        index: 0,
        count: 1,
    };
    let raw: Vec<_> = records.iter().map(|record| record.encode(small_geometry())).collect();
    let block = head.encode(&raw, &JournalSeed::new(current.uuid(), current.epoch()));
    storage.write_at(block.as_bytes(), ring.offset_of(ring.tail()).get()).unwrap();
    storage.write_at(&[1], 16 + 4).unwrap();
    storage
}

// Header area of 13 clusters, the L1 table in two, then table, cluster, table, cluster.
const L1: u64 = 13;
const FIRST: u64 = 15;
const SECOND: u64 = 18;

fn cluster(number: u64) -> HostCluster {
    HostCluster::new(number).unwrap()
}

/// Where a slot lies of a table at this cluster.
fn at(number: u64, slot: u64) -> HostOffset {
    HostOffset::new(number * 4096 + slot * 8)
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn table(number: u64) -> L1Entry {
    L1Entry::Table(cluster(number))
}

/// Opens an image with these records in its journal, which must not be changed by a refusal.
fn follow(size: u64, records: &[JournalRecord]) -> Result<(), OpenError> {
    let storage = with_commit(size, records);
    let before = storage.to_vec();
    let opened = Image::open(storage.clone(), &recovering(&no_hook));
    if opened.is_err() {
        assert!(storage.to_vec() == before, "refused, and written to: {records:?}");
    }
    opened.map(drop)
}

// spec-test: QED-JRN-08, QED-JRN-14
#[test]
fn a_commit_that_fits_the_image_is_followed() {
    use JournalRecord::{L1Set, L2ClearRun, L2SetRun, L2ZeroRun};
    let good: [&[JournalRecord]; 7] = [
        &[L2SetRun { at: at(FIRST, 5), count: count(2), first: cluster(21) }],
        &[L2ZeroRun { at: at(FIRST + 1, 511), count: count(1) }],
        &[L2ClearRun { at: at(SECOND, 0), count: count(1024) }],
        &[L1Set { at: at(L1, 2), entry: table(21) }, L2ZeroRun { at: at(21, 3), count: count(9) }],
        &[L1Set { at: at(L1, 0), entry: table(FIRST) }],
        &[L1Set { at: at(L1, 1), entry: L1Entry::Unallocated }],
        &[L1Set { at: at(L1 + 1, 511), entry: table(21) }],
    ];
    for records in good {
        follow(23, records).unwrap_or_else(|error| panic!("{records:?}: {error:?}"));
    }
}

// spec-test: QED-JRN-08, QED-JRN-14, QED-JRN-23
#[test]
fn a_commit_that_does_not_fit_the_image_is_not_followed() {
    use JournalRecord::{L1Set, L2SetRun, L2ZeroRun};
    let bad: [(&str, u64, &[JournalRecord]); 13] = [
        ("no table", 23, &[L2ZeroRun { at: at(17, 0), count: count(1) }]),
        ("past a table", 23, &[L2ZeroRun { at: at(FIRST + 1, 511), count: count(2) }]),
        ("the L1 table as a table", 23, &[L2ZeroRun { at: at(L1, 0), count: count(1) }]),
        ("a link outside the L1 table", 23, &[L1Set { at: at(FIRST, 0), entry: table(21) }]),
        ("a table in the L1 table", 23, &[L1Set { at: at(L1, 2), entry: table(L1) }]),
        ("a table across another", 23, &[L1Set { at: at(L1, 2), entry: table(FIRST + 1) }]),
        ("a table twice", 23, &[L1Set { at: at(L1, 2), entry: table(SECOND) }]),
        ("a table past the end", 22, &[L1Set { at: at(L1, 2), entry: table(21) }]),
        (
            "data past the end",
            22,
            &[L2SetRun { at: at(FIRST, 0), count: count(2), first: cluster(21) }],
        ),
        (
            "data in a table",
            23,
            &[L2SetRun { at: at(FIRST, 0), count: count(2), first: cluster(SECOND - 1) }],
        ),
        (
            "data in the L1 table",
            23,
            &[L2SetRun { at: at(FIRST, 0), count: count(1), first: cluster(L1) }],
        ),
        (
            "an unlinked table",
            23,
            &[
                L1Set { at: at(L1, 1), entry: L1Entry::Unallocated },
                L2ZeroRun { at: at(SECOND, 0), count: count(1) },
            ],
        ),
        (
            "a file that ends in a table",
            SECOND + 1,
            &[L2ZeroRun { at: at(FIRST, 0), count: count(1) }],
        ),
    ];
    for (what, size, records) in bad {
        let refused = follow(size, records);
        let is_refused = matches!(
            refused,
            Err(OpenError::JournalRecovery(RecoveryError::Corrupt { .. })
                | OpenError::JournalCutsTables)
        );
        assert!(is_refused, "{what}: {refused:?}");
    }
}
