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
