//! A virtual disk reads as its model, and its extents say so.

use qed_core::{GuestExtentKind, VirtualDisk};

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
