//! Creating files: what happens to an existing target, and what is left behind on failure.

use std::io::ErrorKind;

use qed_io::{
    Existing, FileOptions, FileStorage, ImageLock, LockError, NewFileOptions, OpenError,
    RefusedKind, Storage,
};

use crate::support::{BUFFERED, DIRECT, on_disk, on_tmpfs};

const OVER: NewFileOptions = NewFileOptions { existing: Existing::Truncate, ..BUFFERED };

#[test]
fn a_new_file_is_empty_open_and_locked() {
    for (folder, options) in [(on_disk(), BUFFERED), (on_disk(), DIRECT), (on_tmpfs(), DIRECT)] {
        let path = folder.path().join("image");
        let storage = FileStorage::create(&path, options).unwrap();
        assert!(storage.was_created());
        assert!(storage.is_empty().unwrap());
        storage.write_at(b"bytes", 0).unwrap();
        let other = FileStorage::open(&path, FileOptions::READ_ONLY).unwrap();
        assert!(!other.was_created());
        assert!(matches!(other.lock(ImageLock::READ), Err(LockError::Held { .. })));
    }
}

#[test]
fn an_existing_file_is_refused_or_cut_to_nothing() {
    let folder = on_disk();
    let path = folder.path().join("image");
    std::fs::write(&path, b"bytes").unwrap();
    match FileStorage::create(&path, BUFFERED) {
        Err(OpenError::Io(error)) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
    let storage = FileStorage::create(&path, OVER).unwrap();
    assert!(!storage.was_created());
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn a_file_in_use_is_not_truncated() {
    let folder = on_disk();
    let path = folder.path().join("image");
    std::fs::write(&path, b"bytes").unwrap();
    let user = FileStorage::open(&path, FileOptions::READ_ONLY).unwrap();
    user.lock(ImageLock::READ).unwrap();
    let result = FileStorage::create(&path, OVER);
    assert!(matches!(result, Err(OpenError::Lock(LockError::Held { .. }))));
    assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
}

#[test]
fn of_those_who_make_a_file_at_one_time_one_gets_it() {
    let folder = on_disk();
    let start = std::sync::Barrier::new(4);
    for round in 0..300 {
        let path = folder.path().join(round.to_string());
        let got = std::thread::scope(|scope| {
            let takers = [(); 4].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    let made = FileStorage::create(&path, OVER);
                    // Nobody gives up a lock before all have tried.
                    start.wait();
                    made.map(drop)
                })
            });
            takers.map(|taker| taker.join().unwrap().is_ok())
        });
        assert_eq!(got.into_iter().filter(|got| *got).count(), 1, "round {round}");
    }
}

/// Between finding the file and locking it, another has taken the one byte that stands for making it.
#[test]
fn a_file_that_another_is_making_is_left_to_it() {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    let folder = on_disk();
    let path = folder.path().join("image");
    let maker = std::fs::File::create(&path).unwrap();
    let claim = |kind: i32| {
        let (kind, whence) = (i16::try_from(kind).unwrap(), i16::try_from(libc::SEEK_SET).unwrap());
        let (start, len) = (300, 1);
        let byte =
            libc::flock { l_type: kind, l_whence: whence, l_start: start, l_len: len, l_pid: 0 };
        fcntl(&maker, FcntlArg::F_OFD_SETLK(&byte)).unwrap();
    };
    claim(libc::F_WRLCK);
    let refused = FileStorage::create(&path, OVER);
    assert!(matches!(refused, Err(OpenError::Lock(LockError::Held { .. }))), "{refused:?}");
    claim(libc::F_UNLCK);
    // Whoever made the file lets others make it again once it is locked.
    let first = FileStorage::create(&path, OVER).unwrap();
    claim(libc::F_WRLCK);
    drop(first);
    assert!(path.exists());
}

#[test]
fn what_was_made_has_its_name_though_others_remove_theirs() {
    let folder = on_disk();
    let path = folder.path().join("image");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let Ok(storage) = FileStorage::create(&path, OVER) else { continue };
                    assert!(storage.is_at(&path));
                    std::fs::remove_file(&path).unwrap();
                    drop(storage);
                }
            });
        }
    });
}

#[test]
fn a_link_is_followed_to_a_file_that_does_not_exist_yet() {
    let folder = on_disk();
    let [link, target] = ["link", "target"].map(|name| folder.path().join(name));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    FileStorage::create(&link, OVER).unwrap().write_at(b"bytes", 0).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"bytes");
}

#[test]
fn what_is_no_file_is_refused_as_a_target() {
    let folder = on_disk();
    let result = FileStorage::create(folder.path(), OVER);
    assert!(matches!(result, Err(OpenError::Refused { found: RefusedKind::Directory })));
    let result = FileStorage::create("/dev/null", OVER);
    assert!(matches!(result, Err(OpenError::Refused { found: RefusedKind::CharacterDevice })));
}
