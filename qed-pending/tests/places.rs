//! Logs in real folders: what one process leaves the next one finds, and what is not this user's alone is
//! not touched.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use qed_io::{Access, FileOptions, FileStorage};
use qed_pending::{LogPlace, PendingLog, PlaceError, SLOTS, boot_id};
use qed_spec::{Geometry, GuestCluster, PendingBinding, PendingRecord};
use tempfile::TempDir;

const MEMORY: &str = "/dev/shm";

fn geometry() -> Geometry {
    Geometry::new(4096, 1).unwrap()
}

/// A folder in memory, and a file whose log lies there.
fn scene() -> (TempDir, FileStorage) {
    let folder = tempfile::tempdir_in(MEMORY).unwrap();
    let path = folder.path().join("image");
    fs::write(&path, [0; 512]).unwrap();
    let options = FileOptions { access: Access::ReadWrite, direct: false };
    let file = FileStorage::open(&path, options).unwrap();
    (folder, file)
}

fn new_log(place: &LogPlace, slots: u32) -> PendingLog {
    let binding = PendingBinding {
        slots,
        salt: [1, 2],
        uuid: [3; 16],
        boot_id: boot_id().unwrap(),
        token: 4,
        file: place.id().file,
        birth: place.id().birth,
    };
    place.create(binding, 512).unwrap()
}

fn append(log: &PendingLog, guest: u64, value: u64, olds: &[u64]) {
    let mut room = log.room(olds.len() as u64).unwrap();
    room.append(GuestCluster::new(guest), value, olds.iter().copied(), geometry());
}

fn record(guest: u64, count: u32, value: u64, was: u64) -> PendingRecord {
    PendingRecord { guest: GuestCluster::new(guest), count, value, was }
}

#[test]
fn the_next_process_finds_what_was_appended() {
    let (folder, file) = scene();
    let place = LogPlace::make_in(&folder.path().join("logs"), &file).unwrap();
    assert!(place.find().unwrap().is_none());
    let log = new_log(&place, SLOTS);
    append(&log, 7, 4096, &[0, 0, 0]);
    // Old values in no row are runs of their own.
    append(&log, 100, 0, &[8192, 12288, 1, 1, 4096]);
    drop(log);
    let place = LogPlace::in_folder(&folder.path().join("logs"), &file).unwrap();
    let log = place.find().unwrap().unwrap();
    let expected = [
        record(7, 3, 4096, 0),
        record(100, 2, 0, 8192),
        record(102, 2, 0, 1),
        record(104, 1, 0, 4096),
    ];
    assert_eq!(log.go_on(), expected);
    log.is_home(log.boundary() - 1);
    append(&log, 9, 1, &[0]);
    let again = place.find().unwrap().unwrap();
    assert_eq!(again.go_on(), [record(104, 1, 0, 4096), record(9, 1, 1, 0)]);
    log.remove();
    assert!(place.find().unwrap().is_none());
}

// spec-test: QED-PEND-05
#[test]
fn a_log_takes_no_more_than_it_has_slots_and_uses_them_again() {
    let (folder, file) = scene();
    let place = LogPlace::make_in(&folder.path().join("logs"), &file).unwrap();
    let log = new_log(&place, 3);
    for round in 0..5 {
        let unused = log.room(2).unwrap();
        assert!(log.room(2).is_none(), "promised to another");
        drop(unused);
        (0..3).for_each(|guest| append(&log, 10 * round + guest, 4096, &[0]));
        assert!(log.room(1).is_none());
        let place = LogPlace::in_folder(&folder.path().join("logs"), &file).unwrap();
        let found = place.find().unwrap().unwrap().go_on();
        assert_eq!(found, [0, 1, 2].map(|guest| record(10 * round + guest, 1, 4096, 0)));
        log.is_home(log.boundary());
        log.is_home(1);
        assert!(place.find().unwrap().unwrap().go_on().is_empty(), "the tail does not go back");
    }
}

// spec-test: QED-PEND-09
#[test]
fn a_number_without_a_record_is_passed_over() {
    let (folder, file) = scene();
    let logs = folder.path().join("logs");
    let place = LogPlace::make_in(&logs, &file).unwrap();
    let log = new_log(&place, 8);
    (0..4).for_each(|guest| append(&log, guest, 4096, &[0]));
    drop(log);
    // As a thread leaves the second that dies before it stores the number.
    let path = fs::read_dir(&logs).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    let slot = 4096 + 2 * 64;
    bytes[slot + 56..slot + 64].fill(0);
    fs::write(&path, &bytes).unwrap();
    let log = place.find().unwrap().unwrap();
    assert_eq!(log.go_on(), [0, 2, 3].map(|guest| record(guest, 1, 4096, 0)));
    assert_eq!(log.boundary(), 5);
}

// spec-test: QED-PEND-06
#[test]
fn a_folder_or_a_file_that_others_may_write_is_not_used() {
    let (folder, file) = scene();
    let logs = folder.path().join("logs");
    let place = LogPlace::make_in(&logs, &file).unwrap();
    drop(new_log(&place, 8));
    let path = fs::read_dir(&logs).unwrap().next().unwrap().unwrap().path();
    let chmod =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let is_refused = |result: Result<(), PlaceError>| {
        assert!(matches!(result, Err(PlaceError::NotOurs { .. })), "{result:?}");
    };
    chmod(&path, 0o644);
    is_refused(place.find().map(drop));
    chmod(&path, 0o600);
    fs::hard_link(&path, folder.path().join("another")).unwrap();
    is_refused(place.find().map(drop));
    fs::remove_file(folder.path().join("another")).unwrap();
    assert!(place.find().unwrap().is_some());
    chmod(&logs, 0o770);
    is_refused(LogPlace::in_folder(&logs, &file).map(drop));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&logs, &link).unwrap();
    let linked = LogPlace::in_folder(&link, &file);
    assert!(matches!(linked, Err(PlaceError::Io { .. })), "{linked:?}");
    let target = fs::rename(&path, folder.path().join("moved"));
    target.and_then(|()| std::os::unix::fs::symlink(folder.path().join("moved"), &path)).unwrap();
    assert!(matches!(place.find(), Err(PlaceError::Io { .. })), "a log that is a link");
}

#[test]
fn what_is_no_log_is_none_and_costs_no_memory() {
    let (folder, file) = scene();
    let logs = folder.path().join("logs");
    let place = LogPlace::make_in(&logs, &file).unwrap();
    drop(new_log(&place, 8));
    let path = fs::read_dir(&logs).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&path).unwrap();
    for len in [0, 1, 4096, whole.len() - 8, whole.len() + 64] {
        let mut bytes = whole.clone();
        bytes.resize(len, 0);
        fs::write(&path, bytes).unwrap();
        assert!(place.find().unwrap().is_none(), "{len} bytes");
    }
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(place.find().unwrap().is_none(), "a terabyte");
    fs::write(&path, &whole).unwrap();
    assert!(place.find().unwrap().is_some());
    let mut flipped = whole;
    flipped[20] ^= 1;
    fs::write(&path, flipped).unwrap();
    assert!(place.find().unwrap().is_none(), "another salt");
}

#[test]
fn a_folder_that_is_not_in_memory_keeps_no_log() {
    let on_disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let (_folder, file) = scene();
    let logs = on_disk.path().join("logs");
    let refused = LogPlace::make_in(&logs, &file).unwrap_err();
    assert!(matches!(refused, PlaceError::Io { .. }), "{refused:?}");
    assert!(!logs.exists(), "and is not left behind");
}
