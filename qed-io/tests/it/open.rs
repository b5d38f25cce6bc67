//! What becomes a storage, what is refused, and what an open one says of itself.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use qed_io::{
    Access, FileKind, FileOptions, FileStorage, Growth, OpenError, RefusedKind, RunKind, Storage,
    StorageRun,
};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::support::{on_disk, on_tmpfs};

#[track_caller]
fn refused(path: &Path, want: RefusedKind) {
    for options in [FileOptions::READ_ONLY, FileOptions::READ_WRITE] {
        match FileStorage::open(path, options) {
            Err(OpenError::Refused { found }) => assert_eq!(found, want),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_holds_no_image_is_refused_without_waiting() {
    let folder = on_disk();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();

    refused(&pipe, RefusedKind::Pipe);
    refused(&socket, RefusedKind::Socket);
    refused(folder.path(), RefusedKind::Directory);
    refused(Path::new("/dev/null"), RefusedKind::CharacterDevice);
}

#[test]
fn a_missing_file_is_the_operating_systems_error() {
    let folder = on_disk();
    match FileStorage::open(folder.path().join("none"), FileOptions::READ_ONLY) {
        Err(OpenError::Io(error)) => assert_eq!(error.kind(), ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_cannot_bypass_the_cache_is_refused_by_name() {
    let options = FileOptions { direct: true, ..FileOptions::READ_ONLY };
    let result = FileStorage::open("/proc/self/status", options);
    assert!(matches!(result, Err(OpenError::DirectUnsupported)), "{result:?}");
}

#[test]
fn a_storage_for_reading_changes_nothing() {
    let folder = on_disk();
    let path = folder.path().join("image");
    std::fs::write(&path, b"bytes").unwrap();
    for direct in [false, true] {
        let options = FileOptions { direct, ..FileOptions::READ_ONLY };
        let storage = FileStorage::open(&path, options).unwrap();
        assert_eq!((storage.access(), storage.is_direct()), (Access::ReadOnly, direct));
        let results = [
            storage.write_at(b"x", 0),
            storage.write_vectored_at(&[qed_io::Piece::Own(b"x")], 0),
            storage.set_len(2),
            storage.write_zeroes(0..2),
            storage.punch_hole(0..2).map(drop),
        ];
        for result in results {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        storage.flush().unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
}

#[test]
fn an_open_descriptor_is_taken_over_as_it_is() {
    let folder = on_disk();
    let path = folder.path().join("image");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let storage = FileStorage::from_fd(options.open(&path).unwrap()).unwrap();
    assert_eq!((storage.access(), storage.is_direct()), (Access::ReadWrite, false));
    storage.write_at(b"bytes", 3).unwrap();

    let direct = File::options()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(&path)
        .unwrap();
    let storage = FileStorage::from_fd(direct).unwrap();
    assert_eq!((storage.access(), storage.is_direct()), (Access::ReadOnly, true));
    let mut bytes = [0; 5];
    storage.read_at(&mut bytes, 3).unwrap();
    assert_eq!(&bytes, b"bytes");
}

#[test]
fn a_descriptor_that_cannot_serve_is_refused_by_name() {
    let folder = on_disk();
    let path = folder.path().join("image");
    let write_only = File::create(&path).unwrap();
    assert!(matches!(FileStorage::from_fd(write_only), Err(OpenError::NotReadable)));

    let append = File::options().read(true).append(true).open(&path).unwrap();
    assert!(matches!(FileStorage::from_fd(append), Err(OpenError::AppendMode)));

    let place = rustix::fs::open(&path, OFlags::PATH, Mode::empty()).unwrap();
    assert!(matches!(FileStorage::from_fd(place), Err(OpenError::NotReadable)));

    let (pipe, _end) = std::io::pipe().unwrap();
    let found = FileStorage::from_fd(std::os::fd::OwnedFd::from(pipe));
    assert!(matches!(found, Err(OpenError::Refused { found: RefusedKind::Pipe })));
}

#[test]
fn hard_links_are_one_file_and_copies_are_two() {
    let folder = on_disk();
    let [first, link, copy] = ["first", "link", "copy"].map(|name| folder.path().join(name));
    std::fs::write(&first, b"bytes").unwrap();
    std::fs::hard_link(&first, &link).unwrap();
    std::fs::copy(&first, &copy).unwrap();
    let identity = |path| FileStorage::open(path, FileOptions::READ_ONLY).unwrap().identity();
    assert_eq!(identity(&first), identity(&link));
    assert_ne!(identity(&first), identity(&copy));
    assert_eq!(identity(&first).inode, std::fs::metadata(&first).unwrap().ino());
}

#[test]
fn holes_are_told_from_data() {
    const MIB: u64 = 1 << 20;
    for folder in [on_disk(), on_tmpfs()] {
        let path = folder.path().join("image");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let storage = FileStorage::from_fd(file).unwrap();
        assert_eq!((storage.kind(), storage.growth()), (FileKind::Regular, Growth::Zeros));
        storage.set_len(4 * MIB).unwrap();
        storage.write_at(&[1; MIB as usize], MIB).unwrap();

        let cases = [
            (0, RunKind::Hole, MIB),
            (5, RunKind::Hole, MIB - 5),
            (MIB, RunKind::Data, MIB),
            (MIB + 5, RunKind::Data, MIB - 5),
            (2 * MIB, RunKind::Hole, 2 * MIB),
            (4 * MIB, RunKind::Data, 0),
            (u64::MAX, RunKind::Data, 0),
        ];
        for (at, kind, len) in cases {
            assert_eq!(storage.run_at(at).unwrap(), StorageRun { len, kind }, "at {at}");
        }

        let blocks = || std::fs::metadata(&path).unwrap().blocks();
        let before = blocks();
        assert!(storage.punch_hole(MIB..2 * MIB).unwrap());
        assert!(blocks() < before, "the space was given back");
        assert_eq!(storage.run_at(0).unwrap(), StorageRun { len: 4 * MIB, kind: RunKind::Hole });
        // Zeros on a hole, and past the end, take no space.
        storage.write_zeroes(0..64 * MIB).unwrap();
        assert_eq!(storage.len().unwrap(), 64 * MIB);
        assert!(blocks() < before, "{} blocks", blocks());
    }
}

#[test]
fn what_no_file_can_hold_is_an_error() {
    let folder = on_disk();
    for direct in [false, true] {
        let path = folder.path().join(format!("image-{direct}"));
        std::fs::write(&path, [7; 100]).unwrap();
        let options = FileOptions { direct, ..FileOptions::READ_WRITE };
        let storage = FileStorage::open(&path, options).unwrap();
        let huge = i64::MAX as u64;
        let cases = [
            (storage.read_at(&mut [0; 2], 99), ErrorKind::UnexpectedEof),
            (storage.read_at(&mut [0], 100), ErrorKind::UnexpectedEof),
            (storage.read_at(&mut [0], u64::MAX), ErrorKind::UnexpectedEof),
            (storage.write_at(&[0], huge), ErrorKind::FileTooLarge),
            (storage.write_at(&[0; 2], u64::MAX), ErrorKind::FileTooLarge),
            (storage.set_len(huge + 1), ErrorKind::FileTooLarge),
            (storage.write_zeroes(100..u64::MAX), ErrorKind::FileTooLarge),
        ];
        for (index, (result, want)) in cases.into_iter().enumerate() {
            assert_eq!(result.unwrap_err().kind(), want, "case {index}, direct {direct}");
        }
        storage.read_at(&mut [], u64::MAX).unwrap();
        storage.write_at(&[], u64::MAX).unwrap();
        storage.write_zeroes(500..500).unwrap();
        assert!(storage.punch_hole(200..u64::MAX).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), [7; 100]);
    }
}
