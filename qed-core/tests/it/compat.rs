//! Compat mode: the marks of single tables from their first write to their clearing, and what
//! opening makes of what another program left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use qed_core::{
    Checked, CrashLeft, CreateOptions, ExtentKind, GivenBacking, Identity, Image, ImageError,
    Layout, LockPolicy, OpenError, Recovered, RecoveryPolicy, RefuseBacking, Shrink, WriteContext,
    create,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind, Storage};
use qed_spec::{
    AutoclearFeatures, ConsistencyMode, DirtyBitmap, Epoch, Features, Geometry, GuestOffset,
    Header, ImageUuid, SectionType, SuperblockBuilder, SuperblockChoice, SuperblockCopy,
};

use crate::support::{Random, context, open, small_geometry};

const LAYOUT: Layout =
    Layout::Compat(Identity { uuid: ImageUuid::new([3; 16]), epoch: Epoch::new(4) });

/// Bytes that one L2 table of [`small_geometry`] maps.
const TABLE: u64 = 1024 * 4096;

fn new_image(image_size: u64) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::default());
    let options = CreateOptions {
        geometry: small_geometry(),
        layout: LAYOUT,
        ..CreateOptions::new(image_size)
    };
    create(&*storage, &options).unwrap();
    storage
}

/// What the file says of its state.
#[derive(Debug, PartialEq)]
struct State {
    needs_check: bool,
    keeps_marks: bool,
    /// Marked slots.
    marked: Vec<u64>,
    epoch_size: u64,
}

fn state(storage: &MemoryStorage) -> State {
    let bytes = storage.to_vec();
    let header = Header::parse(&bytes, bytes.len() as u64, Features::CLASSIC).unwrap();
    let (a, b) = (SuperblockCopy::A.offset().get(), SuperblockCopy::B.offset().get());
    let choice = SuperblockChoice::new(&bytes[a as usize..], &bytes[b as usize..]).unwrap();
    let (_, current) = choice.current().unwrap();
    let section = current.section(SectionType::TABLE_DIRTY).unwrap();
    let bitmap = DirtyBitmap::parse(section.payload(), &header).unwrap();
    let marks = &bytes[bitmap.offset().get() as usize..][..bitmap.len_bytes() as usize];
    let is_set = |slot: &u64| marks[(slot / 8) as usize] >> (slot % 8) & 1 == 1;
    State {
        needs_check: header.features().contains(Features::NEED_CHECK),
        keeps_marks: header.fields().autoclear_features == AutoclearFeatures::TABLE_DIRTY,
        marked: (0..bitmap.len_bytes() * 8).filter(is_set).collect(),
        epoch_size: bitmap.epoch_size(),
    }
}

fn write(image: &Image, at: u64) {
    image.write_at(&[9; 512], GuestOffset::new(at)).unwrap();
}

/// A file with the bytes that this one has now, as a crash would leave it.
fn crashed(storage: &MemoryStorage) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new(storage.to_vec()))
}

// spec-test: QED-DIRTY-03, QED-DIRTY-04, QED-DIRTY-05
#[test]
fn marks_are_set_by_the_flush_that_needs_them_and_cleared_lazily() {
    let storage = new_image(8 * TABLE);
    let empty = storage.len().unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    let clean =
        |epoch_size| State { needs_check: false, keeps_marks: true, marked: vec![], epoch_size };
    assert_eq!(state(&storage), clean(empty));
    write(&image, 0);
    write(&image, 5 * TABLE);
    assert_eq!(state(&storage), clean(empty), "entries wait for a flush");
    image.flush().unwrap();
    let marked = |slots: &[u64], needs_check, epoch_size| State {
        needs_check,
        keeps_marks: true,
        marked: slots.to_vec(),
        epoch_size,
    };
    assert_eq!(state(&storage), marked(&[0, 5], true, empty));
    write(&image, TABLE - 512);
    write(&image, 6 * TABLE);
    image.flush().unwrap();
    assert_eq!(state(&storage), marked(&[0, 5, 6], true, empty));
    let end = empty + 3 * 2 * 4096 + 4 * 4096;
    image.flush().unwrap();
    assert_eq!(state(&storage), marked(&[0, 5, 6], false, end), "NEED_CHECK first");
    image.flush().unwrap();
    assert_eq!(state(&storage), clean(end), "then the marks");
    write(&image, 4096);
    image.close().unwrap();
    assert_eq!(state(&storage), clean(end + 4096));
    assert_eq!(storage.len().unwrap(), end + 4096);
}

#[test]
fn a_table_that_stays_marked_costs_no_flush_more() {
    let storage = new_image(8 * TABLE);
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 0);
    image.flush().unwrap();
    image.flush().unwrap();
    let flushed = state(&storage);
    assert_eq!((flushed.needs_check, &*flushed.marked), (false, &[0][..]));
    write(&image, 4096);
    image.flush().unwrap();
    assert_eq!(state(&storage).marked, [0]);
    assert!(state(&storage).needs_check);
}

// spec-test: QED-DIRTY-06, QED-DIRTY-08
#[test]
fn an_image_whose_bitmap_was_not_kept_is_checked_and_begins_anew() {
    let storage = new_image(8 * TABLE);
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 3 * TABLE);
    image.flush().unwrap();
    let other = crashed(&storage);
    drop(image);
    // As a program without knowledge of the bitmap leaves it: bits cleared, clean.
    other.write_at(&[0], 16).unwrap();
    other.write_at(&[0; 8], 32).unwrap();
    let refused = Image::open(other.clone(), &context(&RefuseBacking));
    assert!(matches!(refused, Err(OpenError::NeedsRecovery)));
    let called = std::cell::Cell::new(0);
    let hook = |_: &dyn Storage, left: &CrashLeft| {
        assert_eq!(*left, CrashLeft::AllTables);
        called.set(called.get() + 1);
        Ok(Recovered { checked: Checked::AllTables, mended: 0 })
    };
    let with_hook = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Run(&hook));
    let image = Image::open(other.clone(), &with_hook).unwrap();
    assert_eq!(called.get(), 1);
    let anew = state(&other);
    assert_eq!((anew.keeps_marks, anew.marked.len()), (true, 0));
    assert_eq!(anew.epoch_size, other.len().unwrap());
    image.close().unwrap();
    open(other, &RefuseBacking).close().unwrap();
}

// spec-test: QED-DIRTY-09
#[test]
fn after_a_crash_an_entry_that_another_program_linked_is_not_followed() {
    let storage = new_image(8 * TABLE);
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 0);
    write(&image, TABLE);
    image.close().unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 4096);
    image.flush().unwrap();
    let crashed = crashed(&storage);
    drop(image);
    // Another program appends a cluster and links it in the second table, which has no mark.
    let end = crashed.len().unwrap();
    crashed.set_len(end + 4096).unwrap();
    let mut slot = [0; 8];
    crashed.read_at(&mut slot, 5 * 4096 + 8).unwrap();
    crashed.write_at(&end.to_le_bytes(), u64::from_le_bytes(slot) + 8).unwrap();
    // What a check of the marked table does when it finds nothing.
    let hook = |storage: &dyn Storage, left: &CrashLeft| {
        assert!(matches!(left, CrashLeft::DirtyTables(bits) if bits.count() == 1), "{left:?}");
        storage.write_at(&[0], 16)?;
        Ok(Recovered { checked: Checked::DirtyTables, mended: 0 })
    };
    let with_hook = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Run(&hook));
    let image = Image::open(crashed, &with_hook).unwrap();
    let mut sector = [0; 512];
    image.read_at(&mut sector, GuestOffset::new(4096)).unwrap();
    assert_eq!(sector, [9; 512], "a marked table is believed");
    let foreign = image.write_at(&sector, GuestOffset::new(TABLE + 4096));
    assert!(matches!(foreign, Err(ImageError::Corrupt(_))), "{foreign:?}");
}

// spec-test: QED-MODE-01
#[test]
fn an_unknown_mode_or_an_undecided_superblock_is_not_written() {
    let spoil = |change: &dyn Fn(&mut SuperblockBuilder)| {
        let storage = new_image(TABLE);
        let mut builder = SuperblockBuilder::new(ImageUuid::new([3; 16]), Epoch::new(4));
        change(&mut builder);
        let generation = qed_spec::Generation::new(2).unwrap();
        storage.write_at(&builder.encode(generation), SuperblockCopy::B.offset().get()).unwrap();
        Image::open(storage, &context(&RefuseBacking)).err()
    };
    let unknown = spoil(&|builder| builder.set_section(SectionType::MODE, &[3, 0, 0, 0]).unwrap());
    assert!(matches!(unknown, Some(OpenError::Mode(_))), "{unknown:?}");
    let journal = ConsistencyMode::Journal.encode();
    let journal = spoil(&|builder| builder.set_section(SectionType::MODE, &journal).unwrap());
    assert!(matches!(journal, Some(OpenError::NoJournal)), "{journal:?}");
    assert!(spoil(&|_| {}).is_none(), "without a mode the image is classic");

    let storage = new_image(TABLE);
    let mut builder = SuperblockBuilder::new(ImageUuid::new([3; 16]), Epoch::new(99));
    builder.set_section(SectionType::MODE, &[1, 0, 0, 0]).unwrap();
    let same = builder.encode(qed_spec::Generation::FIRST);
    storage.write_at(&same, SuperblockCopy::B.offset().get()).unwrap();
    let refused = Image::open(storage, &context(&RefuseBacking)).err();
    assert!(matches!(refused, Some(OpenError::Superblock(_))), "{refused:?}");
}

#[test]
fn over_a_backing_file_no_mark_is_needed() {
    let backing = GivenBacking(Some(Arc::new(crate::support::Bytes(vec![1; TABLE as usize]))));
    let storage = Arc::new(MemoryStorage::default());
    let options = CreateOptions {
        geometry: small_geometry(),
        layout: LAYOUT,
        backing: Some(qed_core::CreateBacking {
            name: b"base".to_vec(),
            format: qed_core::BackingFormat::Raw,
        }),
        ..CreateOptions::new(2 * TABLE)
    };
    create(&*storage, &options).unwrap();
    let image = open(storage.clone(), &backing);
    write(&image, 0);
    image.flush().unwrap();
    let flushed = state(&storage);
    assert_eq!((flushed.needs_check, flushed.marked.len()), (false, 0));
}

#[test]
fn shrinking_lowers_the_recorded_end_before_it_cuts() {
    let storage = new_image(8 * TABLE);
    let image = open(storage.clone(), &RefuseBacking);
    write(&image, 0);
    write(&image, 7 * TABLE);
    image.flush().unwrap();
    image.flush().unwrap();
    let before = state(&storage).epoch_size;
    image.resize(TABLE, Shrink::Allow).unwrap();
    assert!(state(&storage).epoch_size < before);
    assert!(state(&storage).epoch_size <= storage.len().unwrap());
    image.close().unwrap();
    assert_eq!(state(&storage).epoch_size, storage.len().unwrap());
}

#[test]
fn every_shape_is_created_and_written() {
    let mut random = Random(7);
    for bits in 12..=20 {
        for tables in [1, 2, 4, 8, 16] {
            let geometry = Geometry::new(1 << bits, tables).unwrap();
            let storage = Arc::new(MemoryStorage::default());
            let options = CreateOptions { geometry, layout: LAYOUT, ..CreateOptions::new(1 << 30) };
            create(&*storage, &options).unwrap();
            let image = open(storage.clone(), &RefuseBacking);
            let at = random.below(1 << 21) * 512;
            write(&image, at);
            image.close().unwrap();
            let image = open(storage, &RefuseBacking);
            let mut sector = [0; 512];
            image.read_at(&mut sector, GuestOffset::new(at)).unwrap();
            assert_eq!(sector, [9; 512]);
        }
    }
}

#[test]
fn a_flush_is_one_though_the_file_system_has_no_room_to_clear_a_mark() {
    let storage = new_image(TABLE);
    let faulty = Arc::new(Faulty::new(storage.clone()));
    let image = Image::open(faulty.clone(), &context(&RefuseBacking)).unwrap();
    write(&image, 0);
    image.flush().unwrap();
    let ExtentKind::Data(data) = image.map(GuestOffset::new(0), 1).unwrap().kind else { panic!() };
    let fill = || {
        let is_metadata = move |request: &qed_io::Request| {
            request.range.start < data.get() && request.kind == RequestKind::Write
        };
        faulty.fail_when(is_metadata, Fault::NoSpace, Repeat::Always);
    };
    fill();
    for _ in 0..3 {
        write(&image, 0);
        image.flush().expect("all of it is in its place");
    }
    // Whoever looks after the marks is told.
    let now = Instant::now();
    image.maintain(now).unwrap();
    image.maintain(now + Duration::from_secs(6)).unwrap_err();
    assert!(state(&storage).needs_check);

    faulty.heal();
    image.flush().unwrap();
    assert!(!state(&storage).needs_check, "there is room again");
    fill();
    write(&image, 0);
    faulty.fail_when(|request| request.kind == RequestKind::Flush, Fault::Io, Repeat::Once);
    image.flush().expect_err("a flush of the storage that failed");
    image.flush().expect_err("and for good");
}
