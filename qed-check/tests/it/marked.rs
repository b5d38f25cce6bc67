//! Recovery by the dirty bitmap: only marked tables are read, unless something leaves doubt.

use qed_check::{Checked, FindingKind, RecoverError, Recovered};
use qed_io::MemoryStorage;
use qed_spec::{
    ConsistencyMode, Epoch, Generation, ImageUuid, SectionType, SuperblockBuilder, SuperblockCopy,
};

use crate::image::{AUTOCLEAR_AT, CLUSTER, FEATURES_AT, NEED_CHECK, TestImage, recover};

const TABLE_DIRTY: u64 = 1 << 32;
const PHYSICAL_SIZE: u64 = 1 << 34;
const BITMAP_AT: usize = 16384;
/// Header area, L1 table, and two tables with a data cluster each.
const FIRST_TABLE: u64 = 6;
const SECOND_TABLE: u64 = 7;
const FILE_CLUSTERS: u64 = 10;

/// A dirty image with these bits in its bitmap, whose unmarked tables name nothing at or above
/// `epoch_size`.
fn dirty(marks: u8, epoch_size: u64) -> TestImage {
    let mut image = TestImage::with_header(5, 1, 1500, FILE_CLUSTERS);
    image.table(0, FIRST_TABLE);
    image.table(1, SECOND_TABLE);
    image.set_l2(FIRST_TABLE, 0, 8 * CLUSTER);
    image.set_l2(SECOND_TABLE, 0, 9 * CLUSTER);
    image.set_features(FEATURES_AT, NEED_CHECK);
    image.set_features(AUTOCLEAR_AT, TABLE_DIRTY);
    let mut builder = SuperblockBuilder::new(ImageUuid::new([5; 16]), Epoch::new(5));
    builder.set_section(SectionType::MODE, &ConsistencyMode::Compat.encode()).unwrap();
    let section = [BITMAP_AT as u64, 512, epoch_size];
    let section: Vec<u8> = section.into_iter().flat_map(u64::to_le_bytes).collect();
    builder.set_section(SectionType::TABLE_DIRTY, &section).unwrap();
    let at = usize::try_from(SuperblockCopy::A.offset().get()).unwrap();
    image.bytes[at..at + 4096].copy_from_slice(&builder.encode(Generation::FIRST));
    image.bytes[BITMAP_AT] = marks;
    image
}

/// The features of both kinds, and the marks, that a successful recovery leaves.
#[track_caller]
fn recovered(image: &TestImage) -> (TestImage, [u64; 2], u8) {
    let storage = image.storage();
    let done = recover(&*storage).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(done, Recovered { checked: Checked::DirtyTables, mended: 1 });
    let after = image.with_bytes(storage.to_vec());
    let features = [after.features(FEATURES_AT), after.features(AUTOCLEAR_AT)];
    let marks = after.bytes[BITMAP_AT];
    (after, features, marks)
}

#[track_caller]
fn refused(image: &TestImage, kind: FindingKind) {
    let storage = image.storage();
    let Err(RecoverError::Corrupt(report)) = recover(&*storage) else {
        panic!("not refused as corrupt");
    };
    assert!(report.counts.of(kind) > 0, "{:?}", report.findings);
    assert_eq!(storage.to_vec(), image.bytes, "nothing was changed");
}

// spec-test: QED-DIRTY-07
#[test]
fn only_marked_tables_are_read_and_mended() {
    let mut image = dirty(1, FILE_CLUSTERS * CLUSTER);
    image.set_l2(FIRST_TABLE, 3, FILE_CLUSTERS * CLUSTER);
    // An entry that a full check would refuse, in a table without a mark.
    image.set_l2(SECOND_TABLE, 3, 4097);
    let (after, features, marks) = recovered(&image);
    assert_eq!((features, marks), ([0, TABLE_DIRTY], 0));
    assert_eq!(after.get(FIRST_TABLE * CLUSTER + 24), 0, "named what the file never grew to");
    assert_eq!(after.get(FIRST_TABLE * CLUSTER), 8 * CLUSTER);
    assert_eq!(after.get(SECOND_TABLE * CLUSTER + 24), 4097, "not looked at");
}

// spec-test: QED-DIRTY-07
#[test]
fn without_a_mark_or_a_bitmap_all_tables_are_read() {
    let spoil: [fn(&mut TestImage); 5] = [
        |image| image.bytes[BITMAP_AT] = 0,
        |image| image.set_features(AUTOCLEAR_AT, 0),
        |image| image.bytes[8192 + 20] ^= 1,
        |image| image.bytes[8192 + 48 + 16 + 8] ^= 1,
        |image| image.set_l1(2, 5000 * CLUSTER),
    ];
    for spoil in spoil {
        let mut image = dirty(1, FILE_CLUSTERS * CLUSTER);
        image.set_l2(SECOND_TABLE, 3, 4097);
        spoil(&mut image);
        refused(&image, FindingKind::L2Unaligned);
    }
}

// spec-test: QED-DEV-05, QED-DEV-07
#[test]
fn the_end_of_a_device_stays_recorded_where_only_marked_tables_are_in_doubt() {
    let mut image = dirty(1, FILE_CLUSTERS * CLUSTER);
    image.set_features(AUTOCLEAR_AT, TABLE_DIRTY | PHYSICAL_SIZE);
    let all_tables = image.with_bytes({
        let mut bytes = image.bytes.clone();
        bytes[BITMAP_AT] = 0;
        bytes
    });
    let on_device = |image: &TestImage| MemoryStorage::device(image.bytes.clone());
    let kept = TABLE_DIRTY | PHYSICAL_SIZE;
    for (storage, expected) in [
        (on_device(&image), kept),
        (on_device(&all_tables), 0),
        // The length of a file says where it ends.
        (MemoryStorage::new(image.bytes.clone()), TABLE_DIRTY),
    ] {
        recover(&storage).unwrap();
        let after = image.with_bytes(storage.to_vec());
        assert_eq!([after.features(FEATURES_AT), after.features(AUTOCLEAR_AT)], [0, expected]);
    }
}

// spec-test: QED-DIRTY-09
#[test]
fn a_table_that_another_program_linked_makes_it_read_all() {
    let mut image = dirty(1, 7 * CLUSTER);
    image.set_l2(SECOND_TABLE, 3, 4097);
    refused(&image, FindingKind::L2Unaligned);
}

#[test]
fn marked_tables_that_share_a_cluster_are_refused() {
    let mut image = dirty(3, FILE_CLUSTERS * CLUSTER);
    image.set_l2(SECOND_TABLE, 7, 8 * CLUSTER);
    refused(&image, FindingKind::L2Duplicate);
    let mut image = dirty(1, FILE_CLUSTERS * CLUSTER);
    image.set_l2(FIRST_TABLE, 7, 8 * CLUSTER);
    refused(&image, FindingKind::L2Duplicate);
}

#[test]
fn a_cluster_that_the_file_cuts_off_is_covered_again() {
    let mut image = dirty(1, FILE_CLUSTERS * CLUSTER);
    image.set_l2(FIRST_TABLE, 3, FILE_CLUSTERS * CLUSTER);
    image.bytes.extend([7; 512]);
    let (after, features, _) = recovered(&image);
    assert_eq!(features, [0, TABLE_DIRTY]);
    assert_eq!(after.bytes.len() as u64, (FILE_CLUSTERS + 1) * CLUSTER);
    assert_eq!(after.get(FIRST_TABLE * CLUSTER + 24), FILE_CLUSTERS * CLUSTER);
}
