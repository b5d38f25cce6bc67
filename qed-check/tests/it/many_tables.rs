//! More tables than the threads of a check get at once.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;

use qed_check::{CheckError, CheckOptions, Finding, FindingKind, Place, Report, check};
use qed_io::{FileOptions, FileStorage};
use qed_spec::{HostOffset, L1Index, L2Index};

use crate::image::{CLUSTER, TestImage};

const TABLES: u64 = 5000;
/// A table has 16 clusters and maps 8192.
const TABLE: u64 = 16 * CLUSTER;
const FIRST_TABLE: u64 = 1 << 30;
const FIRST_DATA: u64 = 1 << 32;

fn entry_at(table: u64, slot: u64) -> u64 {
    FIRST_TABLE + table * TABLE + slot * 8
}

/// Two clusters of data for each table, one after the other; the rest of the file is a hole.
fn image(path: &Path) -> File {
    let mut image = TestImage::new(16, 0, 17);
    image.image_size = TABLES * (TABLE / 8) * CLUSTER;
    image.set(48, image.image_size);
    for table in 0..TABLES {
        image.set_l1(table, FIRST_TABLE + table * TABLE);
    }
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.write_all_at(&image.bytes, 0).unwrap();
    for table in 0..TABLES {
        let data = FIRST_DATA + table * 2 * CLUSTER;
        let entries = [data.to_le_bytes(), (data + CLUSTER).to_le_bytes()].concat();
        file.write_all_at(&entries, entry_at(table, 0)).unwrap();
    }
    file.set_len(FIRST_DATA + TABLES * 2 * CLUSTER).unwrap();
    file
}

fn check_with(path: &Path, threads: Option<usize>) -> Report {
    let mut options = CheckOptions::default();
    options.threads = threads.and_then(NonZeroUsize::new);
    check(&FileStorage::open(path, FileOptions::READ_ONLY).unwrap(), &options).unwrap()
}

#[test]
fn thousands_of_tables_are_counted_and_judged_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qed");
    let file = image(&path);
    for threads in [None, Some(1), Some(3)] {
        let report = check_with(&path, threads);
        let statistics = &report.statistics;
        assert_eq!(report.corruptions(), 0);
        assert_eq!(statistics.allocated_clusters, 2 * TABLES, "{threads:?}");
        assert_eq!(statistics.fragmented_clusters, 0, "{threads:?}");
        let used = 1 + 16 + 16 * TABLES + 2 * TABLES;
        assert_eq!(report.leaks(), statistics.file_len_bytes / CLUSTER - used);
    }

    // One block of each table is no hole.
    let mut options = CheckOptions::default();
    for (limit, is_enough) in [(TABLES * 4096, true), (TABLES * 4096 - 1, false)] {
        options.tables_limit_bytes = Some(limit);
        let storage = FileStorage::open(&path, FileOptions::READ_ONLY).unwrap();
        match check(&storage, &options) {
            Ok(report) => assert!(is_enough && report.corruptions() == 0),
            Err(CheckError::TablesLimit { limit: found }) => assert!(!is_enough && found == limit),
            Err(error) => panic!("{error:?}"),
        }
    }

    // What the last table says twice, the first has said before.
    let (value, at) = (FIRST_DATA, entry_at(TABLES - 1, 1));
    file.write_all_at(&value.to_le_bytes(), at).unwrap();
    let slot = |l1, l2, at| Place::L2Slot {
        l1: L1Index::new(l1),
        l2: L2Index::new(l2),
        at: HostOffset::new(at),
    };
    let expected = Finding {
        kind: FindingKind::L2Duplicate,
        place: slot(TABLES - 1, 1, at),
        value,
        first: Some(slot(0, 0, entry_at(0, 0))),
    };
    for threads in [None, Some(1), Some(3)] {
        let report = check_with(&path, threads);
        assert_eq!(report.corruptions(), 1, "{threads:?}");
        assert_eq!(report.statistics.fragmented_clusters, 1, "{threads:?}");
        assert!(report.findings.contains(&expected), "{threads:?}: {:?}", report.findings);
    }
}
