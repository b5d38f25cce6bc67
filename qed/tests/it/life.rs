//! From creation to close, and what stands in the way of either.

use std::io::{IoSlice, IoSliceMut};
use std::path::Path;
use std::time::Instant;

use qed::{DiscardMode, ErrorKind, Image, LockPolicy, Mode, Shrink};

const DISK: u64 = 1 << 20;

fn kind<T>(result: Result<T, qed::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A copy of an image while it is being written, as a crash leaves it.
fn crashed(folder: &Path, mode: Mode) -> std::path::PathBuf {
    let (path, copy) = (folder.join("running.qed"), folder.join("crashed.qed"));
    let disk = Image::options().mode(mode).create(&path, DISK).unwrap();
    disk.write_at(&[7; 4096], 0).unwrap();
    disk.flush().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    disk.close().unwrap();
    std::fs::remove_file(path).unwrap();
    copy
}

#[test]
fn a_crash_is_recovered_where_that_was_asked_for() {
    for mode in [Mode::Classic, Mode::Compat, Mode::Journal { len_bytes: 64 << 10 }] {
        let folder = tempfile::tempdir().unwrap();
        let path = crashed(folder.path(), mode);
        assert_eq!(kind(Image::options().open(&path)), Some(ErrorKind::Dirty), "{mode:?}");
        let before = std::fs::read(&path).unwrap();
        let mut bytes = [0; 4096];
        Image::options().read_only().open(&path).unwrap().read_at(&mut bytes, 0).unwrap();
        assert_eq!((bytes, std::fs::read(&path).unwrap() == before), ([7; 4096], true));
        let disk = Image::options().recover().open(&path).unwrap();
        disk.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 4096]);
        disk.close().unwrap();
        drop(disk);
        Image::options().open(&path).unwrap();
    }
}

#[test]
fn what_no_crash_explains_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = crashed(folder.path(), Mode::Classic);
    let mut bytes = std::fs::read(&path).unwrap();
    // The first slot of the L1 table names the table itself.
    bytes.copy_within(40..48, 64 << 10);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(kind(Image::options().recover().open(&path)), Some(ErrorKind::Corrupt));
}

#[test]
fn a_file_that_exists_is_kept_and_one_that_cannot_be_an_image_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qed");
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(kind(Image::options().create(&path, DISK)), Some(ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(kind(Image::options().open(&path)), Some(ErrorKind::Corrupt));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(kind(Image::options().open(&path)), Some(ErrorKind::NotFound));
    let invalid = [
        (Image::options(), DISK + 1),
        (Image::options().cluster_size(5000), DISK),
        (Image::options().table_size(3), DISK),
        (Image::options().mode(Mode::Journal { len_bytes: 5 }), DISK),
        (Image::options().cluster_size(4096).table_size(1), 1 << 50),
    ];
    for (options, size) in invalid {
        let text = format!("{options:?}");
        assert_eq!(kind(options.create(&path, size)), Some(ErrorKind::InvalidInput), "{text}");
        assert!(!path.exists(), "{text}");
    }
}

#[test]
fn an_image_in_use_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qed");
    let disk = Image::options().create(&path, DISK).unwrap();
    assert_eq!(kind(Image::options().open(&path)), Some(ErrorKind::Locked));
    assert_eq!(kind(Image::options().read_only().open(&path)), Some(ErrorKind::Locked));
    Image::options().read_only().lock(LockPolicy::None).open(&path).unwrap();
    disk.close().unwrap();
    Image::options().open(&path).unwrap().close().unwrap();
    let reader = Image::options().read_only().open(&path).unwrap();
    assert_eq!(kind(Image::options().open(&path)), Some(ErrorKind::Locked));
    reader.close().unwrap();
    Image::options().open(&path).unwrap();
}

#[test]
fn each_call_does_what_it_says_by_offsets_that_are_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qed");
    let options = || Image::options().cache_limit(1 << 20).direct();
    let disk = options().journal().cluster_size(4096).table_size(2).create(&path, DISK).unwrap();
    disk.write_vectored_at(&[IoSlice::new(&[1; 5]), IoSlice::new(&[2; 4096])], 4093).unwrap();
    disk.write_zeroes(4094, 2).unwrap();
    let (mut first, mut second) = ([9; 4], [9; 3]);
    let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    disk.read_vectored_at(&mut bufs, 4092).unwrap();
    assert_eq!((first, second), ([0, 1, 0, 0], [1, 1, 2]));

    let (mut at, mut stored) = (0, 0);
    while at < DISK {
        let extent = disk.extent_at(at, DISK - at).unwrap();
        stored += if extent.kind.is_stored() { extent.len } else { 0 };
        at += extent.len;
    }
    assert_eq!((at, stored), (DISK, 3 * 4096));
    let now = Instant::now();
    let due = disk.maintain(now).unwrap().expect("there is something to write home");
    assert!(due > now);
    assert_eq!(kind(disk.resize(DISK / 2, Shrink::Refuse)), Some(ErrorKind::Refused));
    disk.resize(2 * DISK, Shrink::Refuse).unwrap();
    assert_eq!(disk.size(), 2 * DISK);
    for past_end in [
        kind(disk.read_at(&mut first, 2 * DISK - 3)),
        kind(disk.write_at(&first, u64::MAX)),
        kind(disk.write_zeroes(2 * DISK, 1)),
        kind(disk.write_vectored_at(&[IoSlice::new(&first)], u64::MAX - 1)),
        kind(disk.read_vectored_at(&mut [IoSliceMut::new(&mut first)], 2 * DISK - 3)),
    ] {
        assert_eq!(past_end, Some(ErrorKind::InvalidInput));
    }
    disk.flush().unwrap();
    disk.close().unwrap();
    drop(disk);

    let disk = options().read_only().open(&path).unwrap();
    disk.read_at(&mut second, 4096).unwrap();
    assert_eq!((disk.size(), second), (2 * DISK, [1, 1, 2]));
    for refused in [
        kind(disk.write_at(&first, 0)),
        kind(disk.write_zeroes(0, 1)),
        kind(disk.resize(512, Shrink::Allow)),
    ] {
        assert_eq!(refused, Some(ErrorKind::ReadOnly));
    }
    assert!(disk.core().is_none());
    disk.flush().unwrap();
    disk.close().unwrap();
}

#[test]
fn what_is_discarded_is_used_again_or_stays_as_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, uses_again) in [(DiscardMode::Reuse, true), (DiscardMode::Ignore, false)] {
        let path = folder.path().join(format!("{mode:?}.qed"));
        let disk = Image::options().discard(mode).create(&path, DISK).unwrap();
        disk.write_at(&[7; 256 << 10], 0).unwrap();
        disk.flush().unwrap();
        disk.discard(1, 192 << 10).unwrap();
        let mut bytes = [0; 256 << 10];
        disk.read_at(&mut bytes, 0).unwrap();
        let zeros = if uses_again { 128 << 10 } else { 0 };
        assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), zeros, "{mode:?}");
        disk.flush().unwrap();
        let end = disk.space_usage().unwrap().expect("it is written").end;
        disk.core().expect("it is written").sweep().unwrap();
        disk.write_at(&[8; 128 << 10], 512 << 10).unwrap();
        let usage = disk.space_usage().unwrap().expect("it is written");
        assert_eq!(usage.end == end, uses_again, "{mode:?}: {usage:?}");
        disk.close().unwrap();
    }
    let disk = Image::options().read_only().open(folder.path().join("Reuse.qed")).unwrap();
    assert_eq!(kind(disk.discard(0, 65536)), Some(ErrorKind::ReadOnly));
    assert!(disk.space_usage().unwrap().is_none());
}
