//! Space that nothing names: free where the next writer uses it, leaked in a classic image.

use qed_check::{CheckOptions, FindingKind, Repair, Report, check, repair};
use qed_io::{MemoryStorage, Operation, Recorder, Storage};
use qed_spec::{
    Epoch, Generation, ImageUuid, SUPERBLOCK_LEN_BYTES, SectionType, SuperblockBuilder,
};

use crate::image::{AUTOCLEAR_AT, CLUSTER, TestImage};
use crate::watched::Watched;

type Sections<'a> = &'a [(SectionType, &'a [u8])];

const PHYSICAL_SIZE: u64 = 1 << 34;
const DEVICE_CLUSTERS: u64 = 16;

/// Superblocks in the first five clusters, the L1 table in the next, a table in 6 with data in 7, 9 and
/// 10; nothing names 8 and 11.
fn image(sections: Sections<'_>) -> TestImage {
    let mut image = TestImage::with_header(5, 1, 600, 12);
    image.table(0, 6);
    for (slot, cluster) in [(0, 7), (1, 9), (2, 10)] {
        image.set_l2(6, slot, cluster * CLUSTER);
    }
    let mut builder = SuperblockBuilder::new(ImageUuid::new([5; 16]), Epoch::new(5));
    for (kind, payload) in sections {
        builder.set_section(*kind, payload).unwrap();
    }
    image.bytes[8192..8192 + SUPERBLOCK_LEN_BYTES]
        .copy_from_slice(&builder.encode(Generation::FIRST));
    image
}

/// The image in compat mode on a device that records these clusters of its own.
fn device(physical: u64, autoclear: u64) -> MemoryStorage {
    let payload = [physical * CLUSTER, u64::MAX].map(u64::to_le_bytes);
    let sections: [(_, &[u8]); 2] =
        [(SectionType::MODE, &[1, 0, 0, 0]), (SectionType::PHYSICAL_SIZE, payload.as_flattened())];
    let mut image = image(&sections);
    image.set_features(AUTOCLEAR_AT, autoclear);
    image.bytes.resize(usize::try_from(DEVICE_CLUSTERS * CLUSTER).unwrap(), 0xee);
    MemoryStorage::device(image.bytes)
}

fn checked(storage: &dyn Storage) -> Report {
    check(storage, &CheckOptions::default()).unwrap()
}

// spec-test: QED-CHK-02
#[test]
fn what_nothing_names_is_free_in_both_modes_and_leaked_in_a_classic_image() {
    let cases: [(Sections<'_>, _); 4] = [
        (&[(SectionType::MODE, &[1, 0, 0, 0])], Some(2)),
        (&[(SectionType::MODE, &[2, 0, 0, 0])], Some(2)),
        (&[(SectionType::MODE, &[3, 0, 0, 0])], None),
        (&[], None),
    ];
    for (sections, free) in cases {
        let report = image(sections).check();
        assert_eq!(report.statistics.free_clusters, free, "{sections:?}");
        assert_eq!(report.leaks(), if free.is_some() { 0 } else { 2 }, "{sections:?}");
        assert_eq!((report.unnamed_clusters(), report.is_clean()), (2, free.is_some()));
        assert_eq!(report.statistics.image_end.get(), 11 * CLUSTER);
        assert_eq!(report.statistics.space_end.get(), 12 * CLUSTER);
    }
}

#[test]
fn copies_of_a_superblock_without_a_choice_name_no_mode() {
    let mut image = image(&[(SectionType::MODE, &[1, 0, 0, 0])]);
    let other = SuperblockBuilder::new(ImageUuid::new([6; 16]), Epoch::new(6));
    image.bytes[12288..16384].copy_from_slice(&other.encode(Generation::FIRST));
    assert_eq!((image.check().leaks(), image.check().statistics.free_clusters), (2, None));
}

#[test]
fn a_repair_leaves_free_space_to_the_next_writer() {
    let mut image = image(&[(SectionType::MODE, &[1, 0, 0, 0])]);
    for what in [Repair::Leaks, Repair::All] {
        let storage = Recorder::new(image.storage());
        assert!(repair(&storage, what).unwrap().is_clean());
        assert!(storage.records().is_empty(), "{:?}", storage.records());
    }
    // Part of a cluster is no space that anybody could use.
    image.bytes.extend([9; 100]);
    let storage = image.storage();
    let report = repair(&*storage, Repair::Leaks).unwrap();
    assert_eq!(report.repaired.counts.of(FindingKind::UnusedPartialTail), 1);
    assert_eq!(report.statistics.free_clusters, Some(2));
    assert_eq!(storage.to_vec().len() as u64, 12 * CLUSTER);
    // What a broken entry led to is kept, and is what the next writer finds free.
    image.bytes.truncate(12 << 12);
    image.set_l2(6, 2, 10 * CLUSTER + 8);
    let report = repair(&*image.storage(), Repair::All).unwrap();
    assert!(report.is_clean());
    assert_eq!((report.repaired.kept_clusters, report.statistics.free_clusters), (3, Some(3)));
}

// spec-test: QED-CHK-06, QED-FREE-02
#[test]
fn leaks_are_cut_off_and_punched_when_what_unnamed_them_is_durable() {
    let image = image(&[]);
    let memory = image.storage();
    let storage = Recorder::new(memory.clone());
    let report = repair(&storage, Repair::Leaks).unwrap();
    assert_eq!(report.repaired.counts.of(FindingKind::LeakAtEnd), 1);
    assert_eq!((report.leaks(), report.repaired.punched_bytes), (1, CLUSTER));
    let operations: Vec<_> = storage.records().into_iter().map(|it| it.operation).collect();
    let leak = 8 * CLUSTER..9 * CLUSTER;
    let expected = [
        Operation::Flush,
        Operation::SetLen(11 * CLUSTER),
        Operation::Flush,
        Operation::Flush,
        Operation::PunchHole(leak.clone()),
        Operation::Flush,
    ];
    assert_eq!(operations, expected);
    let mut bytes = image.bytes[..11 << 12].to_vec();
    bytes[8 << 12..9 << 12].fill(0);
    assert!(memory.to_vec() == bytes, "only the leaks changed");

    // Where the storage knows of holes nothing is left to do.
    let report = repair(&Watched::with_holes(memory), Repair::Leaks).unwrap();
    assert_eq!((report.leaks(), report.repaired.punched_bytes), (1, 0));
}

// spec-test: QED-CHK-02, QED-DEV-05
#[test]
fn on_a_device_what_was_handed_out_counts() {
    // What is recorded of the device, and the end of the space and the free clusters.
    let cases = [
        (14, PHYSICAL_SIZE, 14, 4),
        (DEVICE_CLUSTERS, PHYSICAL_SIZE, DEVICE_CLUSTERS, 6),
        // Another program appended behind it.
        (8, PHYSICAL_SIZE, 11, 1),
        // It was recorded of another device, breaks a rule, or is not kept up.
        (DEVICE_CLUSTERS + 1, PHYSICAL_SIZE, 11, 1),
        (3, PHYSICAL_SIZE, 11, 1),
        (14, 0, 11, 1),
    ];
    for (physical, autoclear, end, free) in cases {
        let report = checked(&device(physical, autoclear));
        let statistics = report.statistics;
        assert_eq!(statistics.space_end.get(), end * CLUSTER, "{physical} {autoclear:#x}");
        assert_eq!(statistics.free_clusters, Some(free), "{physical} {autoclear:#x}");
        assert_eq!(statistics.image_end.get(), 11 * CLUSTER);
        assert!(report.is_clean(), "{:?}", report.findings);
    }
}

#[test]
fn leaks_of_a_classic_image_on_a_device_are_discarded() {
    let mut image = image(&[]);
    image.bytes.resize(usize::try_from(DEVICE_CLUSTERS * CLUSTER).unwrap(), 0xee);
    let memory = MemoryStorage::device(image.bytes.clone());
    let report = checked(&memory);
    assert_eq!((report.leaks(), report.statistics.free_clusters), (1, None));
    let report = repair(&memory, Repair::Leaks).unwrap();
    assert_eq!((report.leaks(), report.repaired.punched_bytes), (1, CLUSTER));
    image.bytes[8 << 12..9 << 12].fill(MemoryStorage::DISCARDED);
    assert!(memory.to_vec() == image.bytes, "only the leak changed");
}

// spec-test: QED-CHK-08
#[test]
fn copies_go_behind_what_a_device_has_handed_out() {
    let storage = device(14, PHYSICAL_SIZE);
    storage.write_at(&(9 * CLUSTER).to_le_bytes(), 6 * CLUSTER + 8 * 8).unwrap();
    let before = storage.to_vec();
    let report = repair(&storage, Repair::All).unwrap();
    assert_eq!(report.repaired.counts.of(FindingKind::L2Duplicate), 1);
    let after = storage.to_vec();
    assert_eq!(after[8 << 12..14 << 12], before[8 << 12..14 << 12], "what may have been in use");
    assert_eq!(after[14 << 12..15 << 12], before[9 << 12..10 << 12], "the copy");
    // What was recorded is over: the next writer looks for the end by itself.
    assert_eq!(after[AUTOCLEAR_AT..AUTOCLEAR_AT + 8], [0; 8]);
    assert_eq!(report.statistics.space_end.get(), 15 * CLUSTER);
}
