//! Image locks: the same bytes as QEMU's, and the same answers as between two QEMU processes.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use qed_io::{
    Clash, FileOptions, FileStorage, ImageLock, LockError, Permission, PermissionSet, Storage,
};

use crate::support::{QemuIo, on_disk, qed_image};

/// A way to hold an image, ours and QEMU's for the same purpose.
struct Mode {
    lock: ImageLock,
    access: FileOptions,
    qemu: &'static [&'static str],
}

const MODES: [Mode; 3] = [
    Mode { lock: ImageLock::READ, access: FileOptions::READ_ONLY, qemu: &["-r", "-f", "qed"] },
    Mode {
        lock: ImageLock::READ_SHARED,
        access: FileOptions::READ_ONLY,
        qemu: &["-r", "-U", "-f", "qed"],
    },
    Mode { lock: ImageLock::WRITE, access: FileOptions::READ_WRITE, qemu: &["-f", "qed"] },
];

fn ours(mode: &Mode, path: &Path) -> Result<FileStorage, String> {
    let storage = FileStorage::open(path, mode.access).unwrap();
    storage.lock(mode.lock).map_err(|error| error.to_string())?;
    Ok(storage)
}

fn qemus(mode: &Mode, path: &Path) -> Result<QemuIo, String> {
    QemuIo::open(mode.qemu, path)
}

/// What the second of two holders was told: nothing, or the sentence about the lock.
fn told<T>(second: Result<T, String>) -> Option<String> {
    let said = second.err()?.to_lowercase();
    let start = said.find("failed to get").unwrap_or_else(|| panic!("not about a lock: {said}"));
    let end = said[start..].find(" lock").unwrap_or_else(|| panic!("no lock named: {said}"));
    Some(said[start..start + end].to_owned())
}

#[test]
fn we_and_qemu_exclude_each_other_as_two_qemus_do() {
    let folder = on_disk();
    let path = folder.path().join("image");
    qed_image(&path);
    let mut conflicts = 0;
    for first in &MODES {
        for second in &MODES {
            let want = {
                let _first = qemus(first, &path).unwrap();
                told(qemus(second, &path))
            };
            let (a, b) = (first.qemu, second.qemu);
            {
                let _first = ours(first, &path).unwrap();
                assert_eq!(told(qemus(second, &path)), want, "ours as {a:?}, then qemu-io {b:?}");
                assert_eq!(told(ours(second, &path)), want, "ours as {a:?}, then as {b:?}");
            }
            {
                let _first = qemus(first, &path).unwrap();
                assert_eq!(told(ours(second, &path)), want, "qemu-io {a:?}, then ours as {b:?}");
            }
            conflicts += u32::from(want.is_some());
        }
    }
    assert_eq!(conflicts, 3, "writer and writer, and reader and writer both ways");
}

#[test]
fn the_locked_bytes_are_qemus() {
    let folder = on_disk();
    let path = folder.path().join("image");
    qed_image(&path);
    for mode in &MODES {
        let want = {
            let _qemu = qemus(mode, &path).unwrap();
            locked_bytes(&path)
        };
        assert!(!want.is_empty());
        let _ours = ours(mode, &path).unwrap();
        assert_eq!(locked_bytes(&path), want, "{:?}", mode.qemu);
    }
    assert_eq!(locked_bytes(&path), BTreeSet::new());
}

/// The locked bytes of a file: those that the kernel would refuse to a writer of its own. (Its list,
/// `/proc/locks`, can miss a line while other tests take and release locks.)
fn locked_bytes(path: &Path) -> BTreeSet<i64> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let is_locked = |byte: &i64| {
        let mut question = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: *byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut question)).unwrap();
        question.l_type != libc::F_UNLCK as libc::c_short
    };
    (0..300).filter(is_locked).collect()
}

#[test]
fn a_live_qemu_is_named_by_the_permission_that_clashes() {
    let folder = on_disk();
    let path = folder.path().join("image");
    qed_image(&path);
    let _guest = QemuIo::open(&["-f", "qed"], &path).unwrap();
    let storage = FileStorage::open(&path, FileOptions::READ_WRITE).unwrap();
    let clash = |lock| match storage.lock(lock) {
        Err(LockError::Held { permission, clash }) => (permission, clash),
        other => panic!("{other:?}"),
    };
    assert_eq!(clash(ImageLock::READ), (Permission::Write, Clash::InUse));
    assert_eq!(clash(ImageLock::WRITE), (Permission::Write, Clash::NotShared));
    let resizes =
        ImageLock { uses: PermissionSet::of(&[Permission::Resize]), shares: PermissionSet::ALL };
    assert_eq!(clash(resizes), (Permission::Resize, Clash::NotShared));
    // What was refused holds nothing: only the guest's bytes are locked.
    assert_eq!(locked_bytes(&path), BTreeSet::from([100, 101, 103, 201, 203]));
    storage.lock(ImageLock::READ_SHARED).unwrap();
}

#[test]
fn a_raw_disk_of_a_guest_may_be_read_beside_a_writer() {
    let folder = on_disk();
    let path = folder.path().join("image");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let reader = QemuIo::open(&["-r", "-f", "raw"], &path).unwrap();
    let writer = FileStorage::open(&path, FileOptions::READ_WRITE).unwrap();
    writer.lock(ImageLock::WRITE).unwrap();
    drop(reader);
    assert!(QemuIo::open(&["-r", "-f", "raw"], &path).is_ok());
    let refused = QemuIo::open(&["-f", "raw"], &path).map(drop).unwrap_err();
    assert!(refused.contains("Failed to get \"write\" lock"), "{refused}");
    assert!(refused.contains("Is another process using the image"), "{refused}");
}

#[test]
fn a_lock_replaces_the_one_before_and_a_refused_one_does_not() {
    let folder = on_disk();
    let path = folder.path().join("image");
    std::fs::write(&path, b"bytes").unwrap();
    let open = || FileStorage::open(&path, FileOptions::READ_WRITE).unwrap();
    let (first, second) = (open(), open());

    first.lock(ImageLock::READ).unwrap();
    second.lock(ImageLock::READ).unwrap();
    assert!(first.lock(ImageLock::WRITE).is_err(), "the other reader is in the way");
    assert_eq!(locked_bytes(&path), BTreeSet::from([100, 201, 203]));
    assert!(second.lock(ImageLock::WRITE).is_err(), "the first is a reader still");

    second.lock(ImageLock::NONE).unwrap();
    first.lock(ImageLock::WRITE).unwrap();
    assert_eq!(locked_bytes(&path), BTreeSet::from([100, 101, 103, 201, 203]));
    assert!(second.lock(ImageLock::READ).is_err());

    first.lock(ImageLock::READ).unwrap();
    assert_eq!(locked_bytes(&path), BTreeSet::from([100, 201, 203]));
    second.lock(ImageLock::READ).unwrap();
}

#[test]
fn dropping_the_storage_unlocks_even_if_the_descriptor_lives_on() {
    let folder = on_disk();
    let path = folder.path().join("image");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let duplicate = file.try_clone().unwrap();
    let storage = FileStorage::from_fd(file).unwrap();
    storage.lock(ImageLock::WRITE).unwrap();
    assert!(!locked_bytes(&path).is_empty());
    drop(storage);
    assert_eq!(locked_bytes(&path), BTreeSet::new());
    drop(duplicate);
}
