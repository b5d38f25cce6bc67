//! The death of a process at the edges: after failures, in the middle of a resize, on a block device, with a
//! log that is full, or that says what no process wrote.

use std::sync::Arc;

use qed_core::{
    CreateOptions, GivenBacking, Image, Layout, OpenError, PendingLogError, RefuseBacking, Shrink,
    ZeroMode, create,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind, Storage};
use qed_pending::{FileId, LogPlace, MIN_SLOTS};
use qed_spec::{
    GuestCluster, GuestOffset, PENDING_HEADER_LEN_BYTES, PendingBinding, PendingRecord,
};

use crate::process_death::{CLUSTER, DISK, Guest, Host, MODES, dies, found, left_by_the_dead};
use crate::support::{Bytes, JOURNAL, new_storage_of, small_geometry};

/// Guest clusters in a slice of a table.
const SLICE: u64 = 512;

fn first_byte(image: &Image, cluster: u64) -> u8 {
    let mut byte = [0];
    image.read_at(&mut byte, GuestOffset::new(cluster * CLUSTER)).unwrap();
    byte[0]
}

fn write(image: &Image, cluster: u64, byte: u8) {
    image.write_at(&[byte; 512], GuestOffset::new(cluster * CLUSTER)).unwrap();
}

// spec-test: QED-PEND-04
#[test]
fn a_flush_that_failed_is_one_for_the_next_process_in_each_mode() {
    for mode in MODES {
        let (host, disk) = (Host::new(), new_storage_of(mode, small_geometry(), DISK, false));
        let faulty = Arc::new(Faulty::new(disk.clone()));
        let image = host.open_over(faulty.clone(), &RefuseBacking).unwrap();
        write(&image, 3, 1);
        let is_flush = |request: &qed_io::Request| request.kind == RequestKind::Flush;
        faulty.fail_when(is_flush, Fault::Io, Repeat::Once);
        image.flush().unwrap_err();
        dies(image);
        let refused = host.open(&disk).unwrap_err();
        let is_stopped = matches!(refused, OpenError::PendingLost(PendingLogError::Stopped));
        assert!(is_stopped, "{mode:?}: {refused:?}");
    }
}

// spec-test: QED-PEND-10
#[test]
fn a_replay_puts_no_older_value_in_the_place_of_a_newer_one() {
    const SLICES: u64 = 110;
    for mode in MODES {
        let mut host = Host::new();
        let disk = SLICES * SLICE * CLUSTER;
        let storage = new_storage_of(mode, small_geometry(), disk, false);
        let image = host.open(&storage).unwrap();
        write(&image, 0, 1);
        (1..SLICES).for_each(|slice| write(&image, slice * SLICE, 2));
        image.discard(GuestOffset::new(0), CLUSTER).unwrap();
        write(&image, 0, 9);
        let words = host.place.words();
        image.flush().unwrap();
        dies(image);
        // Before the tail moved; and the next one, with little memory, at each of its flushes.
        let left = storage.to_vec();
        host.cache_limit_bytes = 0;
        for number in 0.. {
            let storage = Arc::new(MemoryStorage::new(left.clone()));
            host.place.put(words.as_deref());
            let faulty = Arc::new(Faulty::new(storage.clone()));
            let mut flushes = 0;
            let is_one = move |request: &qed_io::Request| {
                flushes += u64::from(request.kind == RequestKind::Flush);
                request.kind == RequestKind::Flush && flushes > number
            };
            let is_one = std::sync::Mutex::new(is_one);
            faulty.fail_when(
                move |request| (is_one.lock().unwrap())(request),
                Fault::Io,
                Repeat::Always,
            );
            let opened = host.open_over(faulty, &RefuseBacking);
            let is_over = opened.is_ok();
            opened.map(dies).ok();
            let image = Host::started_anew().open(&storage).unwrap();
            assert_eq!(first_byte(&image, 0), 9, "{mode:?}: flushed, then lost at flush {number}");
            if is_over {
                assert!(number > 2, "room was made on the way");
                break;
            }
        }
    }
}

// spec-test: QED-PEND-11
#[test]
fn a_process_may_die_in_a_resize_over_a_longer_backing_file() {
    for (mode, number) in MODES.into_iter().flat_map(|mode| (0..40).map(move |n| (mode, n))) {
        let (host, size) = (Host::new(), 4 * CLUSTER);
        let storage = new_storage_of(mode, small_geometry(), size, true);
        let faulty = Arc::new(Faulty::new(storage.clone()));
        let gate = || GivenBacking(Some(Arc::new(Bytes(vec![7; 9 * CLUSTER as usize])) as _));
        let image = host.open_over(faulty.clone(), &gate()).unwrap();
        write(&image, 1, 1);
        // What comes after this one does not come to the disk.
        faulty.fail_nth(faulty.requests() + number, Fault::Io, Repeat::Always);
        let is_done = image.resize(9 * CLUSTER, Shrink::Refuse).is_ok();
        if matches!(host.place.find(), Ok(Some(log)) if log.word(qed_spec::PendingWord::Stopped) == 1)
        {
            continue;
        }
        dies(image);
        let image = host
            .open_over(storage, &gate())
            .unwrap_or_else(|error| panic!("{mode:?} {number}: {error}"));
        assert_eq!(first_byte(&image, 1), 1);
        assert!(!is_done || image.image_size() == 9 * CLUSTER);
    }
}

// spec-test: QED-PEND-06
#[test]
fn what_is_answered_after_a_close_that_failed_is_there() {
    for (mode, number) in MODES.into_iter().flat_map(|mode| (0..24).map(move |n| (mode, n))) {
        let (host, storage) = (Host::new(), new_storage_of(mode, small_geometry(), DISK, false));
        let faulty = Arc::new(Faulty::new(storage.clone()));
        let image = host.open_over(faulty.clone(), &RefuseBacking).unwrap();
        write(&image, 0, 1);
        faulty.fail_nth(faulty.requests() + number, Fault::Io, Repeat::Once);
        let is_closed = image.close().is_ok();
        let is_answered = image.write_at(&[2; 512], GuestOffset::new(CLUSTER)).is_ok();
        assert!(!is_closed || !is_answered);
        dies(image);
        if is_answered {
            let image = host.open(&storage).unwrap();
            assert_eq!(found(&image), [1, 2], "{mode:?}: request {number} of the close failed");
        }
    }
}

// spec-test: QED-PEND-05
#[test]
fn logs_with_few_slots_are_filled_and_used_again() {
    for mode in MODES {
        let place = LogPlace::own_small(FileId { file: [1, 2], birth: [3, 4] }, MIN_SLOTS, 1000);
        let host = Host { place, ..Host::new() };
        let storage = new_storage_of(mode, small_geometry(), DISK, false);
        let mut guest = Guest::new(31, &[]);
        for _ in 0..3 {
            let image = host.open(&storage).unwrap();
            guest.finds_all(&image);
            for round in 0..3_u64 {
                guest.works(&image, 200);
                // Each cluster has a record of its own, and the flush comes by itself.
                for cluster in 0..DISK / CLUSTER {
                    let at = GuestOffset::new(cluster * CLUSTER);
                    if cluster % 3 == round {
                        guest.zeroes(&image, at, CLUSTER, ZeroMode::Unmap);
                    }
                }
            }
            dies(image);
        }
        guest.finds_all(&host.open(&storage).unwrap());
    }
}

// spec-test: QED-PEND-07
#[test]
fn a_device_may_get_longer_before_the_next_process_opens() {
    let mut options = CreateOptions::new(DISK);
    options.geometry = small_geometry();
    for mode in MODES {
        options.layout = mode;
        let device = Arc::new(MemoryStorage::device(vec![0x5a; 24 << 20]));
        create(&*device, &options).unwrap();
        let host = Host::new();
        let mut guest = Guest::new(41, &[]);
        let mut left = device;
        for life in 0..6 {
            let image = host.open(&left).unwrap();
            guest.finds_all(&image);
            image.sweep().unwrap();
            guest.works(&image, 60);
            if life % 2 == 1 {
                image.flush().unwrap();
                guest.works(&image, 3);
            }
            dies(image);
            let mut bytes = left.to_vec();
            bytes.resize(bytes.len() + (1 << 20), 0x5b);
            left = Arc::new(MemoryStorage::device(bytes));
        }
        guest.finds_all(&host.open(&left).unwrap());
    }
}

/// The slot of a record.
fn slot_of(words: &mut [u64], number: u64) -> &mut [u64] {
    let start = PENDING_HEADER_LEN_BYTES / 8 + number as usize * 8;
    &mut words[start..start + 8]
}

// spec-test: QED-PEND-07
#[test]
fn a_log_that_says_what_no_process_wrote_is_refused_and_nothing_is_changed() {
    for mode in MODES {
        let (host, storage) = left_by_the_dead(mode);
        let words = host.place.words().unwrap();
        let salt = host.place.find().unwrap().unwrap().binding().salt;
        let number = words[16];
        let mut mine = words.clone();
        let own: [u64; 8] = slot_of(&mut mine, number).try_into().unwrap();
        let own = PendingRecord::parse(&own, salt, number).unwrap();
        let len = storage.len().unwrap();
        let record = |guest, count, value, was| PendingRecord {
            guest: GuestCluster::new(guest),
            count,
            value,
            was,
        };
        let mut word = [0; 8];
        storage.read_at(&mut word, 40).unwrap();
        let l1 = u64::from_le_bytes(word);
        let hostile = [
            record(1, u32::MAX, own.value, 0),
            record(1, 512, own.value, 0),
            record(0, 512, len - 511 * CLUSTER, 0),
            record(SLICE - 1, 2, own.value, 0),
            record(DISK / CLUSTER - 1, 2, own.value, 0),
            record(1, 1, CLUSTER - 8, 0),
            record(1, 1, 1 << 63, 0),
            record(1, 1, u64::MAX - CLUSTER + 1, 0),
            record(1, 1, len, 0),
            record(1, 1, l1, 0),
            record(1, 1, l1 + CLUSTER, 0),
            record(1, 1, own.value, own.value),
        ];
        for forged in hostile {
            let (_, storage) = left_by_the_dead(mode);
            let mut words = words.clone();
            slot_of(&mut words, number).copy_from_slice(&forged.encode(salt, number));
            host.place.put(Some(&words));
            let refused = host.open(&storage).map(dies);
            assert!(
                matches!(refused, Err(OpenError::PendingLost(_))),
                "{mode:?}: {forged:?}: {refused:?}"
            );
            let image = Host::started_anew().open(&storage).unwrap();
            assert_eq!(found(&image), [1, 0], "{forged:?}");
        }
        // One cluster for two.
        let mut words = words.clone();
        let twice = record(5, 1, own.value, 0).encode(salt, number + 1);
        slot_of(&mut words, number + 1).copy_from_slice(&twice);
        host.place.put(Some(&words));
        let (_, storage) = left_by_the_dead(mode);
        assert!(matches!(host.open(&storage), Err(OpenError::PendingLost(_))));
    }
}

#[test]
fn records_behind_the_end_of_the_disk_have_no_say() {
    let (host, storage) = left_by_the_dead(JOURNAL);
    let mut words = host.place.words().unwrap();
    let salt = host.place.find().unwrap().unwrap().binding().salt;
    let number = words[16] + 1;
    let guest = GuestCluster::new(u64::MAX);
    let behind = PendingRecord { guest, count: u32::MAX, value: 1, was: 0 };
    slot_of(&mut words, number).copy_from_slice(&behind.encode(salt, number));
    host.place.put(Some(&words));
    assert_eq!(found(&host.open(&storage).unwrap()), [1, 2]);
}

// spec-test: QED-PEND-06
#[test]
fn a_log_that_differs_in_one_thing_is_that_of_another() {
    for mode in MODES {
        let (host, storage) = left_by_the_dead(mode);
        let words = host.place.words().unwrap();
        let own = *host.place.find().unwrap().unwrap().binding();
        let [device, inode] = own.file;
        let [secs, nanos] = own.birth;
        let others = [
            ("file", PendingBinding { file: [device + 1, inode], ..own }),
            ("file", PendingBinding { file: [device, inode + 1], ..own }),
            ("file", PendingBinding { birth: [secs + 1, nanos], ..own }),
            ("file", PendingBinding { birth: [secs, nanos + 1], ..own }),
            ("UUID", PendingBinding { uuid: [9; 16], ..own }),
            ("token", PendingBinding { token: own.token + 1, ..own }),
            ("number of slots", PendingBinding { slots: MIN_SLOTS - 1, ..own }),
        ];
        for (which, other) in others {
            let slots = other.slots as usize * 8;
            let mut words = words[..PENDING_HEADER_LEN_BYTES / 8 + slots].to_vec();
            words[..16].copy_from_slice(&other.encode());
            host.place.put(Some(&words));
            let refused = host.open(&storage).map(dies);
            let is_told = matches!(
                refused,
                Err(OpenError::PendingLost(PendingLogError::OfAnother { what })) if what == which
            );
            assert!(is_told, "{mode:?}: {which}: {refused:?}");
        }
        // Another boot: what it has is of no use, and nobody is told.
        let other = PendingBinding { boot_id: [9; 16], ..own };
        let mut words = words.clone();
        words[..16].copy_from_slice(&other.encode());
        host.place.put(Some(&words));
        let opened = host.open(&storage);
        if mode == Layout::Classic {
            assert_eq!(found(&opened.unwrap()), [1, 0]);
        } else {
            assert!(matches!(opened, Err(OpenError::PendingLost(_))), "OWNER names this boot");
        }
    }
}

#[test]
fn words_that_are_no_log_are_none() {
    for (mode, index) in [(Layout::Classic, 1), (JOURNAL, 1)] {
        let (host, storage) = left_by_the_dead(mode);
        let words = host.place.words().unwrap();
        // Fewer slots than a change may need, and more than there are.
        for slots in [0_u64, 1, u64::from(MIN_SLOTS) - 1, u64::from(u32::MAX)] {
            let mut forged = words.clone();
            forged[index] = forged[index] & 0xffff_ffff | slots << 32;
            host.place.put(Some(&forged));
            assert!(host.place.find().unwrap().is_none());
        }
        let mut forged = words.clone();
        forged[16] = u64::MAX;
        host.place.put(Some(&forged));
        assert!(host.place.find().unwrap().is_none(), "no number is behind the last");
        host.place.put(Some(&words[..9]));
        assert!(host.place.find().unwrap().is_none());
        let opened = host.open(&storage);
        let is_told = matches!(opened, Err(OpenError::PendingLost(PendingLogError::Missing)));
        assert_eq!(is_told, mode == JOURNAL, "a classic image names no boot");
    }
}
