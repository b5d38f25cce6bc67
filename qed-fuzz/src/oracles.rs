//! Oracles: they return, or they panic and say where an image is not what it must be.

pub(crate) mod chain;
pub(crate) mod compat;
pub(crate) mod confinement;
pub(crate) mod dialogue;
pub(crate) mod guest;
pub(crate) mod header;
pub(crate) mod journal;
pub(crate) mod qcow2;
pub(crate) mod qemu;
pub(crate) mod reference;
pub(crate) mod repair;
pub(crate) mod replay;
pub(crate) mod superblock;
pub(crate) mod validity;
pub(crate) mod virtqueue;

use qed_check::{CheckOptions, Report, check};
use qed_core::{BackingError, GuestExtent, GuestExtentKind, VirtualDisk};
use qed_io::Storage;

use crate::model::Model;
use crate::size::usize_of;

/// The disk reads as the model from end to end, and its extents cover each byte once; those that
/// say zeros are.
///
/// # Panics
/// At the first byte that differs or extent that lies.
#[track_caller]
pub fn assert_reads_as(disk: &dyn VirtualDisk, model: &Model) {
    assert_eq!(disk.len(), model.size(), "size of the disk");
    let mut bytes = vec![0xee; model.bytes().len()];
    disk.read_at(&mut bytes, 0).expect("the disk can be read");
    if bytes != model.bytes() {
        let differs = |(found, want)| found != want;
        let at = bytes.iter().zip(model.bytes()).position(differs).unwrap_or_default();
        panic!("byte {at:#x} is {:#x}, the model has {:#x}", bytes[at], model.bytes()[at]);
    }
    let mut at = 0;
    while at < disk.len() {
        let extent = disk.extent_at(at, disk.len() - at).expect("the disk can be mapped");
        assert!(extent.len > 0 && extent.len <= disk.len() - at, "an extent at {at:#x}");
        if matches!(extent.kind, GuestExtentKind::Zero | GuestExtentKind::Unallocated) {
            let range = usize_of(at)..usize_of(at + extent.len);
            assert!(is_zero(&bytes[range]), "a zero extent at {at:#x} has data");
        }
        at += extent.len;
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| *chunk == [0; 4096][..chunk.len()])
}

/// The image has no corruption and does not ask for a check. Leaks are the caller's business.
///
/// # Panics
/// If it has, with what was found.
#[track_caller]
pub fn assert_sound(storage: &dyn Storage) -> Report {
    let report = check(storage, &CheckOptions::default()).expect("the image can be checked");
    assert_eq!(report.corruptions(), 0, "{:?}", report.findings);
    assert!(!report.dirty, "NEED_CHECK is set in an image that was closed");
    report
}

/// As [`assert_sound`], and nothing is leaked or free.
///
/// # Panics
/// If anything is.
#[track_caller]
pub fn assert_clean(storage: &dyn Storage) {
    let report = assert_sound(storage);
    assert_eq!((report.leaks(), report.unnamed_clusters()), (0, 0), "{:?}", report.findings);
}

/// A disk, read as `VirtualDisk` says that it may be.
#[derive(Debug)]
pub(crate) struct Strict<D>(pub(crate) D);

impl<D: VirtualDisk> VirtualDisk for Strict<D> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        let end = offset.checked_add(buf.len() as u64);
        assert!(end.is_some_and(|end| end <= self.len()), "read past the end of the disk below");
        self.0.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        self.0.extent_at(offset, max_len)
    }
}
