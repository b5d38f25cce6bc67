//! Corrupt images that QEMU opens, writes and calls clean.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use qed_check::{FindingKind, RecoverError, Repair, recovery_hook, repair};
use qed_core::{
    CorruptTable, Image, ImageError, LockPolicy, OpenError, ReadContext, ReadOnlyImage,
    RecoveryPolicy, RefuseBacking, WriteContext,
};
use qed_io::{FileOptions, FileStorage, Storage};
use qed_spec::{Features, Geometry, GuestOffset};

use super::{img, qemu_does, write};
use crate::support::{
    Folder, Under, checked, close, create_image, number_at, open_for_writing, set_number,
    write_image,
};

const CLUSTER: u64 = 4096;
/// The header is cluster 0, the L1 table follows it.
const L1: u64 = CLUSTER;
const FEATURES: u64 = 16;

/// An image with two allocated clusters; where its L2 table is.
fn two_clusters(folder: &Folder, name: &str) -> (PathBuf, u64) {
    let image = folder.file(name);
    create_image(&image, Geometry::new(4096, 2).unwrap(), 1 << 20, Under::Nothing);
    write_image(&image, &[write(0..CLUSTER, 1), write(CLUSTER..2 * CLUSTER, 2)]);
    let table = number_at(&image, L1);
    (image, table)
}

fn is_dirty(image: &Path) -> bool {
    number_at(image, FEATURES) & Features::NEED_CHECK.bits() != 0
}

fn storage(image: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::open(image, FileOptions::READ_WRITE).unwrap())
}

// spec-test: QED-QEMU-09
#[test]
fn two_entries_for_one_cluster_are_mended_here_and_left_by_qemu() {
    let folder = Folder::new();
    let (image, table) = two_clusters(&folder, "image");
    set_number(&image, table + 8, number_at(&image, table));
    let repaired = img(&["check", "-r", "all", "-f", "qed"], &image);
    assert_eq!(repaired.code, Some(2), "{}", repaired.stdout);
    assert_eq!(checked(&image).counts.of(FindingKind::L2Duplicate), 1, "nothing was mended");
    qemu_does(&image, &["write -q -P 9 4k 4k"]).success();
    let read = qemu_does(&image, &["read -P 9 0 4k"]).success();
    assert!(!read.stdout.contains("failed"), "a write to one is a write to both");

    let report = repair(&*storage(&image), Repair::All).unwrap();
    assert_eq!((report.corruptions(), report.repaired.counts.of(FindingKind::L2Duplicate)), (0, 1));
    write_image(&image, &[write(CLUSTER..2 * CLUSTER, 5)]);
    let kept = qemu_does(&image, &["read -P 9 0 4k"]).success();
    assert!(!kept.stdout.contains("failed"), "{}", kept.stdout);
}

// spec-test: QED-QEMU-10
#[test]
fn the_mark_of_a_corrupt_image_is_kept_here_and_cleared_by_qemu() {
    let folder = Folder::new();
    let (image, table) = two_clusters(&folder, "image");
    set_number(&image, table + 8, number_at(&image, table));
    set_number(&image, FEATURES, Features::NEED_CHECK.bits());
    let told = img(&["info", "-f", "qed", "--output=json"], &image).success();
    assert!(told.stdout.contains("\"dirty-flag\": false"), "{}", told.stdout);

    let recovery = RecoveryPolicy::Run(&recovery_hook);
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, recovery);
    let Err(OpenError::Recovery(why)) = Image::open(storage(&image), &context) else {
        panic!("a corrupt image opens for writing");
    };
    let Some(RecoverError::Corrupt(report)) = why.downcast_ref() else { panic!("{why}") };
    assert_eq!(report.counts.of(FindingKind::L2Duplicate), 1);
    assert!(is_dirty(&image));
    let read = ReadContext::new(&RefuseBacking, LockPolicy::Take);
    let open = ReadOnlyImage::open(storage(&image), &read).unwrap();
    assert!(open.header().features().contains(Features::NEED_CHECK), "and it is told");
    drop(open);

    qemu_does(&image, &["read -q 0 4k"]).success();
    assert!(!is_dirty(&image), "an open and a close clear the mark");
    assert_eq!(checked(&image).counts.of(FindingKind::L2Duplicate), 1, "of a corrupt image");
}

// spec-test: QED-QEMU-09
#[test]
fn an_entry_that_names_a_table_is_followed_by_qemu() {
    let folder = Folder::new();
    for ours in [true, false] {
        let (image, table) = two_clusters(&folder, if ours { "ours" } else { "theirs" });
        set_number(&image, table + 8, L1);
        if ours {
            let open = open_for_writing(&image);
            let error = open.write_at(&[9; 4096], GuestOffset::new(CLUSTER)).unwrap_err();
            let is_refused =
                matches!(error, ImageError::Corrupt(CorruptTable::L2Entry { value: L1, .. }));
            assert!(is_refused, "{error}");
            close(open);
            assert_eq!(number_at(&image, L1), table);
        } else {
            qemu_does(&image, &["write -q -P 9 4k 4k"]).success();
            assert_eq!(number_at(&image, L1), 0x0909_0909_0909_0909, "the guest owns the L1 table");
        }
    }
}

// spec-test: QED-QEMU-14
#[test]
fn a_cluster_that_the_file_cuts_off_is_told_and_never_given_out() {
    let folder = Folder::new();
    let (image, table) = two_clusters(&folder, "image");
    let len = storage(&image).len().unwrap();
    let last = number_at(&image, table + 8);
    assert_eq!(last, len - CLUSTER);
    storage(&image).set_len(len - 512).unwrap();
    let refused = qemu_does(&image, &["read 4k 512"]);
    assert!(refused.code == Some(1) && refused.stdout.contains("read failed"), "{refused:?}");

    let found = |kind| checked(&image).counts.of(kind);
    assert_eq!(found(FindingKind::L2InPartialTail), 1);
    let open = open_for_writing(&image);
    let error = open.read_at(&mut [0; 512], GuestOffset::new(CLUSTER)).unwrap_err();
    let is_named = matches!(error, ImageError::Corrupt(CorruptTable::L2Entry { .. }));
    assert!(is_named, "{error}");
    open.write_at(&[5; 4096], GuestOffset::new(9 * CLUSTER)).unwrap();
    close(open);
    assert_eq!(found(FindingKind::L2Duplicate), 0);
    assert_ne!(number_at(&image, table + 8 * 9), last);
}
