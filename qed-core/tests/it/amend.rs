//! Another layout for an image: every direction keeps the disk, and what stands in the way of the
//! header area makes room.

mod faults;
mod lower_l1;
mod refused;
mod scene;

use std::sync::Arc;

use qed_core::{
    AmendError, Consistency, CorruptTable, CrashLeft, Image, ImageError, Layout, LockPolicy,
    RecoveryPolicy, amend,
};
use qed_io::{MemoryStorage, Storage};
use qed_spec::{
    ANCHOR_LEN_BYTES, Anchor, AutoclearFeatures, BackingName, ConsistencyMode, Epoch, Generation,
    Geometry, GuestOffset, ImageUuid, JournalSequence, SectionType, StoredBackingFormat,
    SuperblockBuilder, SuperblockCopy,
};

use crate::amend::scene::{
    COMPAT, Scene, amend_to, current, header, journal, leaks, open_again, uses_of,
};
use crate::support::open;

const RING: u64 = 32 << 10;

fn layouts() -> [Layout; 4] {
    [Layout::Classic, COMPAT, journal(RING), journal(9 * RING)]
}

fn shapes() -> [Geometry; 6] {
    [(4096, 1), (4096, 2), (4096, 16), (16 << 10, 1), (32 << 10, 2), (64 << 10, 4)]
        .map(|(cluster, table)| Geometry::new(cluster, table).unwrap())
}

fn mode_of(layout: Layout) -> (Option<ConsistencyMode>, AutoclearFeatures) {
    match layout {
        Layout::Classic => (None, AutoclearFeatures::empty()),
        Layout::Compat(_) => (Some(ConsistencyMode::Compat), AutoclearFeatures::TABLE_DIRTY),
        Layout::Journal { .. } => (Some(ConsistencyMode::Journal), AutoclearFeatures::JOURNAL),
    }
}

fn ring_len(storage: &MemoryStorage) -> u64 {
    current(storage, |superblock| {
        let section = superblock.section(SectionType::JOURNAL).unwrap();
        u64::from_le_bytes(section.payload()[8..16].try_into().unwrap())
    })
    .unwrap()
}

// spec-test: QED-HDR-08, QED-HDR-11, QED-MODE-01, QED-MODE-03, QED-TBL-08, QED-DIRTY-06
#[test]
fn every_direction_keeps_the_disk_and_leaks_nothing() {
    for (geometry, backing) in
        shapes().into_iter().flat_map(|shape| [(shape, false), (shape, true)])
    {
        for (from, to) in layouts().into_iter().flat_map(|from| layouts().map(|to| (from, to))) {
            let mut scene = Scene::new(from, geometry, backing);
            let case = format!("{geometry:?} backing {backing}: {from:?} to {to:?}");
            amend_to(&scene.storage, to).unwrap_or_else(|error| panic!("{case}: {error}"));
            let (mode, bits) = mode_of(to);
            assert_eq!(Consistency::read(&*scene.storage).unwrap().mode(), mode, "{case}");
            assert_eq!(header(&scene.storage).fields().autoclear_features, bits, "{case}");
            if let Layout::Journal { ring_len_bytes, .. } = to {
                assert_eq!(ring_len(&scene.storage), ring_len_bytes, "{case}");
            }
            assert_eq!(leaks(&scene.storage), 0, "{case}");
            // Another session goes on, and the image has the layout that it says.
            scene.write_more();
            assert_eq!(leaks(&scene.storage), 0, "{case}");
            let before = scene.storage.to_vec();
            amend_to(&scene.storage, to).unwrap();
            assert!(scene.storage.to_vec() == before, "{case}: a second call wrote");
        }
    }
}

#[test]
fn nothing_moves_where_the_first_cluster_has_room() {
    let geometry = Geometry::new(64 << 10, 4).unwrap();
    for to in [COMPAT, journal(RING)] {
        let scene = Scene::new(Layout::Classic, geometry, true);
        let before = scene.storage.to_vec();
        amend_to(&scene.storage, to).unwrap();
        assert_eq!(header(&scene.storage).fields().header_size_clusters, 1);
        assert!(scene.storage.to_vec()[64 << 10..] == before[64 << 10..]);
        amend_to(&scene.storage, Layout::Classic).unwrap();
        assert_eq!(scene.storage.to_vec()[..512], before[..512]);
    }
}

#[test]
fn the_area_ends_behind_a_table_that_lies_across_its_end() {
    // The L1 table is clusters 1 to 16; superblocks and bitmap need the first five.
    let scene = Scene::new(Layout::Classic, Geometry::new(4096, 16).unwrap(), false);
    amend_to(&scene.storage, COMPAT).unwrap();
    assert_eq!(header(&scene.storage).fields().header_size_clusters, 17);
    // An L2 table lies across the end of the ring that comes now.
    let uses = uses_of(&scene.storage);
    let table = uses.tables[0] / 4096;
    let blocks = table + 1 - 5;
    amend_to(&scene.storage, journal(blocks * 4096)).unwrap();
    assert_eq!(u64::from(header(&scene.storage).fields().header_size_clusters), table + 16);
    scene.assert_reads();
}

// spec-test: QED-SB-12
#[test]
fn what_a_guest_wrote_where_superblocks_go_is_no_superblock() {
    let scene = Scene::empty(Layout::Classic, Geometry::new(4096, 1).unwrap());
    let mut forged = SuperblockBuilder::new(ImageUuid::new([1; 16]), Epoch::new(1));
    forged.set_section(SectionType::MODE, &[9, 0, 0, 0]).unwrap();
    let forged = forged.encode(Generation::new(1 << 40).unwrap());
    let image = open(scene.storage.clone(), &qed_core::RefuseBacking);
    for cluster in 0..3 {
        image.write_at(&forged, GuestOffset::new(cluster * 4096)).unwrap();
    }
    image.close().unwrap();
    // L1, L2, then data at copy B.
    assert!(uses_of(&scene.storage).data.contains(&SuperblockCopy::B.offset().get()));
    for layout in [COMPAT, Layout::Classic, journal(RING)] {
        amend_to(&scene.storage, layout).unwrap();
        let image = open_again(&scene.storage, &qed_core::RefuseBacking);
        let mut found = [0; 4096];
        image.read_at(&mut found, GuestOffset::new(8192)).unwrap();
        assert!(found == forged);
    }
}

// spec-test: QED-TBL-09
#[test]
fn what_slots_past_the_end_of_the_disk_lead_to_is_not_written_over() {
    let geometry = Geometry::new(4096, 2).unwrap();
    for l1_is_in_the_way in [true, false] {
        let scene = Scene::new(Layout::Classic, geometry, false);
        if !l1_is_in_the_way {
            amend_to(&scene.storage, COMPAT).unwrap();
        }
        let l1 = header(&scene.storage).fields().l1_table_offset.get();
        // Another program shrank the disk and left the table of its last slot.
        let in_the_way = header(&scene.storage).header_area_len_bytes() + 4 * 4096;
        scene.storage.write_at(&in_the_way.to_le_bytes(), l1 + 8 * 700).unwrap();
        let before = scene.storage.to_vec();
        let error = amend_to(&scene.storage, journal(RING)).unwrap_err();
        let AmendError::Image(ImageError::Corrupt(CorruptTable::L1PastDisk { l1: slot, value })) =
            error
        else {
            panic!("{error}");
        };
        assert_eq!((slot.get(), value), (700, in_the_way));
        assert!(scene.storage.to_vec() == before);
        scene.storage.write_at(&[0; 8], l1 + 8 * 700).unwrap();
        amend_to(&scene.storage, journal(RING)).unwrap();
        scene.assert_reads();
    }
}

// spec-test: QED-SB-13, QED-SB-17, QED-SB-18
#[test]
fn the_superblock_keeps_its_identity_and_what_it_does_not_know() {
    let geometry = Geometry::new(4096, 2).unwrap();
    let scene = Scene::new(Layout::Classic, geometry, true);
    let name = BackingName::new(b"base").unwrap();
    let backing_format = Some(StoredBackingFormat::new("qcow2", name).unwrap());
    let anchor = Anchor { backing_format, superblocks: None }.encode();
    assert_eq!(anchor.len(), ANCHOR_LEN_BYTES);
    scene.storage.write_at(&anchor, Anchor::OFFSET.get()).unwrap();
    amend_to(&scene.storage, COMPAT).unwrap();
    let unknown = SectionType::new(77);
    let written = current(&scene.storage, |superblock| {
        let mut builder = SuperblockBuilder::from_superblock(superblock);
        builder.set_section(unknown, b"not ours").unwrap();
        builder.encode(superblock.generation().next().unwrap())
    });
    // The copy that is current is A or B; the other one is written next.
    let at = if scene.storage.to_vec()[8192 + 16] > scene.storage.to_vec()[12288 + 16] {
        SuperblockCopy::B
    } else {
        SuperblockCopy::A
    };
    scene.storage.write_at(&written.unwrap(), at.offset().get()).unwrap();
    let mut epochs = Vec::new();
    for layout in [journal(RING), journal(2 * RING), COMPAT, journal(RING)] {
        amend_to(&scene.storage, layout).unwrap();
        let (uuid, epoch, section, format) = current(&scene.storage, |superblock| {
            let section = superblock.section(unknown).map(|it| it.payload().to_vec());
            let format = superblock.backing_format(name).unwrap().map(str::to_owned);
            (superblock.uuid(), superblock.epoch().get(), section, format)
        })
        .unwrap();
        assert_eq!(uuid, ImageUuid::new([3; 16]), "the first one");
        assert_eq!(section.as_deref(), Some(&b"not ours"[..]));
        assert_eq!(format.as_deref(), Some("qcow2"));
        assert!(!epochs.contains(&epoch), "an epoch that came before");
        epochs.push(epoch);
    }
}

// spec-test: QED-JRN-24
#[test]
fn a_ring_of_another_length_begins_anew_and_holds_commits() {
    for (from, to) in [(RING, 2 * RING), (4 * RING, RING)] {
        let scene = Scene::new(journal(from), Geometry::new(4096, 2).unwrap(), false);
        amend_to(&scene.storage, journal(to)).unwrap();
        let tail = current(&scene.storage, |superblock| {
            let section = superblock.section(SectionType::JOURNAL).unwrap();
            u64::from_le_bytes(section.payload()[16..24].try_into().unwrap())
        });
        assert_eq!(tail, Some(JournalSequence::FIRST.get()));
        let image = open(scene.storage.clone(), &qed_core::RefuseBacking);
        image.write_at(&[0xcd; 512], GuestOffset::new(scene.free())).unwrap();
        image.flush().unwrap();
        let crashed: Arc<dyn Storage> = Arc::new(MemoryStorage::new(scene.storage.to_vec()));
        let hook = |_: &dyn Storage, _: &CrashLeft| Err("a journal needs no check".into());
        // An image that was not closed is recovered before it changes.
        let refused = amend(&crashed, COMPAT, LockPolicy::Take, RecoveryPolicy::Refuse);
        assert!(refused.is_err());
        amend(&crashed, COMPAT, LockPolicy::Take, RecoveryPolicy::Run(&hook)).unwrap();
        let image: Image = open(crashed, &qed_core::RefuseBacking);
        let mut found = [0; 512];
        image.read_at(&mut found, GuestOffset::new(scene.free())).unwrap();
        assert_eq!(found, [0xcd; 512]);
    }
}
