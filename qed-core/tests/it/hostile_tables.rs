//! Tables that name what they must not: no guest write reaches metadata, no read panics.

use std::sync::Arc;

use qed_core::{
    CorruptTable, Image, ImageError, LockPolicy, OpenError, ReadContext, ReadOnlyImage,
    RefuseBacking, ZeroMode,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{Features, GuestOffset};

use crate::support::{context, new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 8 << 20;
/// Header, L1 table of two clusters, then the first L2 table.
const L1: u64 = CLUSTER;
const L2: u64 = 3 * CLUSTER;

/// An image with two L2 tables: guest clusters 0 and 1024 are allocated.
fn storage() -> Arc<MemoryStorage> {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    image.write_at(&[2; 512], GuestOffset::new(1024 * CLUSTER)).unwrap();
    image.close().unwrap();
    storage
}

fn put(storage: &MemoryStorage, at: u64, value: u64) {
    storage.write_at(&value.to_le_bytes(), at).unwrap();
}

fn second_table(storage: &MemoryStorage) -> u64 {
    let bytes = storage.to_vec();
    u64::from_le_bytes(bytes[L1 as usize + 8..L1 as usize + 16].try_into().unwrap())
}

// spec-test: QED-TBL-03, QED-TBL-05, QED-TBL-07, QED-TBL-08, QED-TBL-10
#[test]
fn an_l2_entry_into_metadata_or_nowhere_is_an_error_and_its_neighbours_work() {
    let second = second_table(&storage());
    let end = storage().len().unwrap();
    let bad = [
        CLUSTER / 2,
        L1,
        L1 + CLUSTER,
        L2,
        L2 + CLUSTER,
        second,
        second + CLUSTER,
        end,
        end + CLUSTER,
        1 << 62,
        u64::MAX - CLUSTER + 1,
        L2 + 1,
        2,
        3,
        511,
        u64::MAX,
        1 << 63,
    ];
    for value in bad {
        let storage = storage();
        put(&storage, L2 + 8, value);
        let image = open(storage.clone(), &RefuseBacking);
        let at = GuestOffset::new(CLUSTER);
        let errors = [
            image.write_at(&[9; 512], at).unwrap_err(),
            image.write_zeroes(at, CLUSTER, ZeroMode::IfNeeded).unwrap_err(),
            image.read_at(&mut [0; 512], at).unwrap_err(),
        ];
        for error in errors {
            let ImageError::Corrupt(CorruptTable::L2Entry { l1, l2, value: found }) = error else {
                panic!("{value:#x}: {error}");
            };
            assert_eq!((l1.get(), l2.get(), found), (0, 1, value));
        }
        image.write_at(&[9; 512], GuestOffset::new(2 * CLUSTER)).unwrap();
        image.close().unwrap();
        let bytes = storage.to_vec();
        let kept = &bytes[L2 as usize + 8..L2 as usize + 16];
        assert_eq!(kept, value.to_le_bytes(), "the evidence is kept");
    }
}

// spec-test: QED-TBL-02
#[test]
fn a_bad_l1_slot_refuses_writing_and_is_met_when_reading() {
    let end = storage().len().unwrap();
    for value in
        [1, 511, CLUSTER / 2, L1, L1 + CLUSTER, L2, L2 + CLUSTER, end, end - CLUSTER, u64::MAX]
    {
        let storage = storage();
        put(&storage, L1 + 8, value);
        let before = storage.to_vec();
        let error = Image::open(storage.clone(), &context(&RefuseBacking)).unwrap_err();
        let OpenError::Image(ImageError::Corrupt(corrupt)) = error else {
            panic!("{value:#x}: {error}");
        };
        let is_named = match corrupt {
            CorruptTable::L1Entry { l1, .. } => l1.get() == 1,
            CorruptTable::L1Overlap { first, second, value: found } => {
                (first.get(), second.get(), found) == (0, 1, value)
            }
            _ => false,
        };
        assert!(is_named, "{value:#x}: {corrupt}");
        let overlaps = [L2, L2 + CLUSTER].contains(&value);
        assert!(!overlaps || corrupt.to_string().contains("L1[0] and L1[1]"), "{corrupt}");
        let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
        let image = ReadOnlyImage::open(storage.clone(), &read).unwrap();
        let mut sector = [0; 512];
        image.read_at(&mut sector, GuestOffset::new(0)).unwrap();
        assert_eq!(sector, [1; 512]);
        if value != L2 && value != L2 + CLUSTER && value != end - CLUSTER {
            image.read_at(&mut sector, GuestOffset::new(1024 * CLUSTER)).unwrap_err();
        }
        assert!(storage.to_vec() == before);
    }
}

// spec-test: QED-CONS-06, QED-TBL-07
#[test]
fn a_last_cluster_that_the_file_covers_in_part_is_not_used() {
    let storage = storage();
    let end = storage.len().unwrap();
    storage.write_at(&[5; 512], end).unwrap();
    put(&storage, L2 + 8, end);
    let image = open(storage.clone(), &RefuseBacking);
    image.read_at(&mut [0; 512], GuestOffset::new(CLUSTER)).unwrap_err();
    image.write_at(&[6; 512], GuestOffset::new(2 * CLUSTER)).unwrap();
    image.close().unwrap();
    let bytes = storage.to_vec();
    let place = u64::from_le_bytes(bytes[L2 as usize + 16..L2 as usize + 24].try_into().unwrap());
    assert_eq!(place, end + CLUSTER);
}

// spec-test: QED-CONS-05
#[test]
fn a_dirty_image_opened_for_reading_takes_dangling_entries_for_unallocated() {
    let storage = storage();
    let end = storage.len().unwrap();
    storage.set_len(end + 512).unwrap();
    put(&storage, L2 + 8, end);
    put(&storage, L1 + 8, end + 7 * CLUSTER);
    put(&storage, 16, Features::NEED_CHECK.bits());
    let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
    let image = ReadOnlyImage::open(storage, &read).unwrap();
    for at in [CLUSTER, 1024 * CLUSTER] {
        let mut sector = [1; 512];
        image.read_at(&mut sector, GuestOffset::new(at)).unwrap();
        assert_eq!(sector, [0; 512]);
    }
}

// spec-test: QED-CONS-05
#[test]
fn a_dirty_image_opened_for_reading_has_no_use_for_unaligned_entries_past_the_end() {
    let storage = storage();
    let end = storage.len().unwrap();
    put(&storage, L2 + 8, end + 512);
    put(&storage, L1 + 8, end + 7 * CLUSTER + 1);
    put(&storage, 16, Features::NEED_CHECK.bits());
    let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
    let image = ReadOnlyImage::open(storage, &read).unwrap();
    for at in [CLUSTER, 1024 * CLUSTER] {
        image.read_at(&mut [1; 512], GuestOffset::new(at)).unwrap_err();
    }
}

#[test]
fn whatever_the_tables_say_no_guest_write_reaches_metadata() {
    let mut random = crate::support::Random(3);
    for _ in 0..100 {
        let storage = storage();
        let clusters = storage.len().unwrap() / CLUSTER + 2;
        for _ in 0..200 {
            let table = if random.below(2) == 0 { L2 } else { second_table(&storage) };
            put(&storage, table + 8 * random.below(1024), random.below(clusters) * CLUSTER);
        }
        let before = storage.to_vec();
        let image = open(storage.clone(), &RefuseBacking);
        for cluster in 0..DISK / CLUSTER {
            let at = GuestOffset::new(cluster * CLUSTER);
            // A corrupt entry refuses the write; all others go through.
            drop(image.write_at(&[0xaa; 512], at));
        }
        let after = storage.to_vec();
        let tables = second_table(&storage) as usize;
        for metadata in [0..L2 as usize + 2 * 4096, tables..tables + 2 * 4096] {
            assert!(after[metadata.clone()] == before[metadata], "before any flush");
        }
    }
}

/// What writing, zeroing and reading at `at` say.
fn errors_at(image: &Image, at: u64) -> [CorruptTable; 3] {
    let at = GuestOffset::new(at);
    let errors = [
        image.write_at(&[9; 512], at).unwrap_err(),
        image.write_zeroes(at, CLUSTER, ZeroMode::IfNeeded).unwrap_err(),
        image.read_at(&mut [0; 512], at).unwrap_err(),
    ];
    errors.map(|error| match error {
        ImageError::Corrupt(corrupt) => corrupt,
        error => panic!("{error}"),
    })
}

fn assert_shared(image: &Image, at: u64, (l1, l2): (u64, u64), value: u64) {
    for error in errors_at(image, at) {
        let CorruptTable::L2Shared { l1: slot, l2: entry, value: found } = error else {
            panic!("{error}");
        };
        assert_eq!((slot.get(), entry.get(), found), (l1, l2, value));
    }
}

// spec-test: QED-TBL-11
#[test]
fn two_entries_of_a_slice_that_name_one_cluster_are_errors_both() {
    let storage = storage();
    let data = u64::from_le_bytes(storage.to_vec()[L2 as usize..][..8].try_into().unwrap());
    put(&storage, L2 + 8 * 300, data);
    let before = storage.to_vec();
    let image = open(storage.clone(), &RefuseBacking);
    assert_shared(&image, 0, (0, 0), data);
    assert_shared(&image, 300 * CLUSTER, (0, 300), data);
    let mut sector = [0; 512];
    image.read_at(&mut sector, GuestOffset::new(1024 * CLUSTER)).unwrap();
    assert_eq!(sector, [2; 512]);
    image.write_at(&[9; 512], GuestOffset::new(CLUSTER)).unwrap();
    image.close().unwrap();
    let after = storage.to_vec();
    assert!(after[data as usize..][..4096] == before[data as usize..][..4096]);
    // A reader harms nobody.
    let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
    let image = ReadOnlyImage::open(storage, &read).unwrap();
    image.read_at(&mut sector, GuestOffset::new(300 * CLUSTER)).unwrap();
    assert_eq!(sector, [1; 512]);
}

// spec-test: QED-TBL-11
#[test]
fn an_entry_is_an_error_from_when_another_slice_is_read_that_names_its_cluster() {
    let storage = storage();
    let data = u64::from_le_bytes(storage.to_vec()[L2 as usize..][..8].try_into().unwrap());
    put(&storage, second_table(&storage) + 8 * 600, data);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[3; 512], GuestOffset::new(0)).unwrap();
    // Another slice of the second table says nothing of it.
    image.write_at(&[3; 512], GuestOffset::new(1024 * CLUSTER)).unwrap();
    assert_shared(&image, (1024 + 600) * CLUSTER, (1, 600), data);
    assert_shared(&image, 0, (0, 0), data);
    image.write_at(&[3; 512], GuestOffset::new(5 * CLUSTER)).unwrap();
    image.close().unwrap();
    assert_eq!(storage.to_vec()[data as usize..][..512], [3; 512]);
}

// spec-test: QED-TBL-11
#[test]
fn what_is_named_twice_stays_an_error_when_its_slice_is_read_again() {
    // Each table has two slices, and the smallest cache 128.
    const TABLES: u64 = 200;
    let coverage = small_geometry().l2_coverage_bytes();
    let storage = new_storage(small_geometry(), TABLES * coverage, false);
    let image = open(storage.clone(), &RefuseBacking);
    for table in 0..TABLES {
        image.write_at(&[7; 512], GuestOffset::new(table * coverage)).unwrap();
        image.write_at(&[8; 512], GuestOffset::new(table * coverage + (2 << 20))).unwrap();
    }
    image.close().unwrap();
    let bytes = storage.to_vec();
    let word = |at: u64| u64::from_le_bytes(bytes[at as usize..][..8].try_into().unwrap());
    let (first, last) = (word(L1), word(L1 + 8 * (TABLES - 1)));
    put(&storage, last + 8, word(first));
    let mut small = context(&RefuseBacking);
    small.cache_limit_bytes = 0;
    let image = Image::open(storage, &small).unwrap();
    let read_all = |tables: std::ops::Range<u64>| {
        for table in tables {
            for within in [0, 2 << 20] {
                let at = GuestOffset::new(table * coverage + within);
                image.read_at(&mut [0; 512], at).unwrap();
            }
        }
    };
    // So is one that this session wrote to.
    image.write_at(&[3; 512], GuestOffset::new(CLUSTER)).unwrap();
    read_all(0..TABLES - 1);
    image.read_at(&mut [0; 512], GuestOffset::new(0)).unwrap();
    read_all(1..TABLES - 1);
    assert_shared(&image, (TABLES - 1) * coverage + CLUSTER, (TABLES - 1, 1), word(first));
    for _ in 0..2 {
        read_all(1..TABLES - 1);
        assert_shared(&image, 0, (0, 0), word(first));
    }
}
