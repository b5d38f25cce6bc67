//! An image that goes from one opener to the next, as a virtual machine monitor hands it over.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qed::{Error, ErrorKind, Image, Keeps, Mode, PendingLost};
use qed_core::{LockPolicy, Ownership, RefuseBacking, WriteContext, read_owner};
use qed_io::{Access, FileOptions, FileStorage};

const DISK: u64 = 1 << 20;
const MODES: [Mode; 3] = [Mode::Classic, Mode::Compat, Mode::Journal { len_bytes: 64 << 10 }];

fn byte(image: &Image, at: u64) -> u8 {
    let mut byte = [0];
    image.read_at(&mut byte, at).unwrap();
    byte[0]
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn open_file(path: &Path) -> Arc<FileStorage> {
    Arc::new(
        FileStorage::open(path, FileOptions { access: Access::ReadWrite, direct: false }).unwrap(),
    )
}

fn has_owner(path: &Path) -> bool {
    let owner = read_owner(&*open_file(path)).unwrap();
    owner.is_some_and(|owner| owner.token().is_some())
}

// spec-test: QED-HAND-01, QED-HAND-03, QED-HAND-04
#[test]
fn an_inactive_image_is_read_while_another_has_it_and_written_once_it_is_given() {
    for mode in MODES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.qed");
        let options = || Image::options().shared();
        let there = options().inactive(&path);
        assert_eq!(kind(there.view()), Some(ErrorKind::NotFound), "{mode:?}");
        let here = options().mode(mode).create(&path, DISK).unwrap();
        here.write_at(&[1; 512], 0).unwrap();
        here.flush().unwrap();

        let before = std::fs::read(&path).unwrap();
        let view = there.view().unwrap();
        assert_eq!((view.size(), byte(&view, 0)), (DISK, 1), "{mode:?}");
        assert_eq!(kind(view.deactivate()), Some(ErrorKind::ReadOnly));
        assert_eq!(kind(there.activate()), Some(ErrorKind::Locked));
        assert_eq!(kind(there.take_over()), Some(ErrorKind::Locked), "the lock decides");
        assert!(std::fs::read(&path).unwrap() == before, "an inactive image is written: {mode:?}");

        assert_eq!(has_owner(&path), mode != Mode::Classic, "{mode:?}");
        here.write_at(&[2; 512], 512).unwrap();
        here.deactivate().unwrap();
        here.deactivate().unwrap();
        assert!(!has_owner(&path), "{mode:?}");
        assert_eq!(kind(here.write_at(&[3; 512], 0)), Some(ErrorKind::ReadOnly));

        // One that asks for no recovery finds nothing to recover.
        Image::options().open(&path).unwrap().deactivate().unwrap();
        let now = there.activate().unwrap();
        assert_eq!((byte(&now, 0), byte(&now, 512)), (1, 2), "{mode:?}");
        now.write_at(&[4; 512], 0).unwrap();
        now.deactivate().unwrap();
        assert_eq!(byte(&options().inactive(&path).activate().unwrap(), 0), 4, "and back");
    }
}

#[test]
fn an_image_with_a_request_in_flight_is_not_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.qed");
    let here = Image::options().create(&path, DISK).unwrap();
    let there = Image::options().inactive(&path);
    let request = here.core().unwrap().request();
    assert!(matches!(here.deactivate(), Err(Error::InUse)));
    assert_eq!(kind(there.activate()), Some(ErrorKind::Locked));
    drop(request);
    here.deactivate().unwrap();
    there.activate().unwrap();
}

/// An image in the middle of being written by another host, which no lock of this one reaches.
fn written_elsewhere(folder: &Path, mode: Mode) -> PathBuf {
    let (path, copy) = (folder.join("there.qed"), folder.join("vm.qed"));
    Image::options().mode(mode).create(&path, DISK).unwrap().deactivate().unwrap();
    let ownership = Ownership {
        boot_id: [7; 16],
        host_name: b"elsewhere",
        since: 1,
        token: NonZeroU64::MIN,
        salt: [5, 6],
        log: None,
        keeps: Keeps::Owner,
        lost: PendingLost::Refuse,
        shared: true,
        take_over: false,
    };
    let context = WriteContext {
        ownership: Some(&ownership),
        ..WriteContext::new(&RefuseBacking, LockPolicy::None, qed::RECOVER)
    };
    let there = qed_core::Image::open(open_file(&path), &context).unwrap();
    there.write_at(&[5; 512], qed_spec::GuestOffset::new(0)).unwrap();
    there.flush().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    copy
}

// spec-test: QED-HAND-03
#[test]
fn an_owner_on_another_host_is_replaced_only_where_somebody_says_that_it_is_cut_off() {
    for mode in [MODES[1], MODES[2]] {
        let folder = tempfile::tempdir().unwrap();
        let path = written_elsewhere(folder.path(), mode);
        let here = Image::options().shared().inactive(&path);
        assert_eq!(byte(&here.view().unwrap(), 0), 5, "{mode:?}");
        let before = std::fs::read(&path).unwrap();
        assert_eq!(kind(here.activate()), Some(ErrorKind::Locked), "{mode:?}");
        assert!(std::fs::read(&path).unwrap() == before, "a refused image is written: {mode:?}");
        let disk = here.take_over().unwrap();
        assert_eq!(byte(&disk, 0), 5, "{mode:?}");
        disk.deactivate().unwrap();
        assert_eq!(byte(&here.activate().unwrap(), 0), 5, "{mode:?}");
    }
}
