//! Images and layouts that are refused: nothing is written, and the message says what to do.

use std::sync::Arc;

use qed_core::{AmendError, ImageError, Layout, LockPolicy, OpenError, RecoveryPolicy, amend};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{Features, Geometry};

use crate::amend::scene::{COMPAT, Scene, amend_to, header, journal, uses_of};

fn small() -> Geometry {
    Geometry::new(4096, 2).unwrap()
}

#[track_caller]
fn refused(scene: &Scene, layout: Layout) -> AmendError {
    let before = scene.storage.to_vec();
    let error = amend_to(&scene.storage, layout).unwrap_err();
    assert!(scene.storage.to_vec() == before, "{error}: written to");
    error
}

#[test]
fn a_ring_of_a_length_that_none_has() {
    let scene = Scene::new(Layout::Classic, small(), false);
    for len in [0, 4096, (32 << 10) + 1, 2 << 30] {
        let error = refused(&scene, journal(len));
        assert!(matches!(error, AmendError::JournalRing(_)), "{error}");
    }
}

// spec-test: QED-TBL-10
#[test]
fn tables_with_an_entry_that_breaks_a_rule() {
    // Unaligned, past the end, the L1 table, another table, the cluster of another entry.
    let wrong: [fn(&Scene) -> u64; 5] = [
        |_| 4097,
        |scene| scene.storage.to_vec().len() as u64,
        |_| 4096,
        |scene| uses_of(&scene.storage).tables[1],
        |scene| *uses_of(&scene.storage).data.first().unwrap(),
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        let scene = Scene::new(Layout::Classic, small(), false);
        let (table, value) = (uses_of(&scene.storage).tables[0], wrong(&scene));
        scene.storage.write_at(&value.to_le_bytes(), table + 40 * 8).unwrap();
        let error = refused(&scene, journal(32 << 10));
        assert!(
            matches!(error, AmendError::Image(ImageError::Corrupt(_))),
            "entry {number}, {value:#x}: {error}"
        );
    }
}

#[test]
fn an_image_that_was_not_closed_without_a_recovery() {
    let scene = Scene::new(Layout::Classic, small(), false);
    let dirty = Features::NEED_CHECK.bits();
    scene.storage.write_at(&dirty.to_le_bytes(), 16).unwrap();
    let error = refused(&scene, COMPAT);
    assert!(matches!(error, AmendError::Open(OpenError::NeedsRecovery)), "{error}");
}

#[test]
fn a_backing_file_name_where_superblocks_go() {
    let scene = Scene::new(Layout::Classic, Geometry::new(64 << 10, 2).unwrap(), true);
    scene.storage.write_at(b"base", 8190).unwrap();
    scene.storage.write_at(&8190_u32.to_le_bytes(), 56).unwrap();
    let error = refused(&scene, COMPAT);
    assert!(matches!(error, AmendError::NameInTheWay { end: 8194, .. }), "{error}");
    assert!(error.to_string().contains("8194"), "{error}");
    // One that ends before them stays where it is.
    scene.storage.write_at(b"base", 8188).unwrap();
    scene.storage.write_at(&8188_u32.to_le_bytes(), 56).unwrap();
    amend_to(&scene.storage, COMPAT).unwrap();
    assert_eq!(header(&scene.storage).backing_name_place(), Some((8188, 4)));
    scene.assert_reads();
}

#[test]
fn a_block_device_where_clusters_would_have_to_move() {
    let scene = Scene::new(Layout::Classic, small(), false);
    let device: Arc<dyn Storage> = Arc::new(MemoryStorage::device(scene.storage.to_vec()));
    let error = amend(&device, COMPAT, LockPolicy::Take, RecoveryPolicy::Refuse).unwrap_err();
    assert!(matches!(error, AmendError::Image(ImageError::NoSpace { .. })), "{error}");
    // Without anything in the way it needs no space.
    let scene = Scene::new(Layout::Classic, Geometry::new(64 << 10, 2).unwrap(), false);
    let device: Arc<dyn Storage> = Arc::new(MemoryStorage::device(scene.storage.to_vec()));
    amend(&device, COMPAT, LockPolicy::Take, RecoveryPolicy::Refuse).unwrap();
}
