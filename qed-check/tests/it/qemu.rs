//! Agreement with `qemu-img check` on real files.

use std::path::Path;
use std::process::{Command, Output};

use qed_check::{CheckOptions, FindingKind, Repair, Report, check, repair};
use qed_io::{FileOptions, FileStorage};

use crate::image::{CLUSTER, TestImage, damaged};

fn qemu(program: &str, args: &[&str], path: &Path) -> Output {
    let output = Command::new(program).args(args).arg(path).output();
    output.unwrap_or_else(|error| panic!("{program} (Debian package qemu-utils): {error}"))
}

fn qemu_check(path: &Path) -> (i32, String) {
    let output = qemu("qemu-img", &["check", "-f", "qed"], path);
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn exit_code(report: &Report) -> i32 {
    match (report.corruptions(), report.leaks()) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 2,
    }
}

#[track_caller]
fn assert_agrees(path: &Path, context: &str) {
    let storage = FileStorage::open(path, FileOptions::READ_ONLY).unwrap();
    let report = check(&storage, &CheckOptions::default()).unwrap();
    drop(storage);
    let (code, text) = qemu_check(path);
    assert_eq!(exit_code(&report), code, "{context}: {:?}\n{text}", report.findings);
    let statistics = &report.statistics;
    let allocated = format!("{}/{} =", statistics.allocated_clusters, statistics.total_clusters);
    if statistics.allocated_clusters > 0 && report.corruptions() == 0 {
        assert!(text.contains(&allocated), "{context}: {allocated}\n{text}");
        let share = statistics.fragmented_clusters as f64 * 100.0
            / (statistics.allocated_clusters.max(1) as f64);
        let fragmented = format!("{share:.2}% fragmented");
        assert!(text.contains(&fragmented) || share == 0.0, "{context}: {fragmented}\n{text}");
    }
}

#[test]
fn images_that_qemu_wrote_are_sound_to_both() {
    let folder = tempfile::tempdir().unwrap();
    for (cluster_size, table_size) in [(4096, 2), (4096, 16), (65536, 4), (2 << 20, 2)] {
        let path = folder.path().join(format!("{cluster_size}-{table_size}.qed"));
        let options = format!("cluster_size={cluster_size},table_size={table_size}");
        let name = path.to_str().unwrap();
        let args = ["create", "-q", "-f", "qed", "-o", &options, name, "64M"];
        assert!(Command::new("qemu-img").args(args).status().unwrap().success());
        let writes = [
            "-f",
            "qed",
            "-c",
            "write 1M 300k",
            "-c",
            "write 40M 70k",
            "-c",
            "write 3M 4k",
            "-c",
            "write -z 20M 4M",
        ];
        assert!(qemu("qemu-io", &writes, &path).status.success());
        assert_agrees(&path, name);
    }
}

#[test]
fn leaks_and_corruptions_have_the_same_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qed");
    let mut codes = [0; 4];
    // Where QEMU is not a judge: tables of one cluster; clusters cut off by the end of the file,
    // which it rounds away; and slots past the end of the disk, which it does not look at.
    let differs = [
        FindingKind::L1InPartialTail,
        FindingKind::L2InPartialTail,
        FindingKind::L1BeyondImage,
        FindingKind::L2BeyondImage,
        FindingKind::UnusedPartialTail,
    ];
    let images = (0..1200).map(damaged).filter(|image| image.table_clusters == 2);
    for image in images {
        let report = image.check();
        let unused_tail = !(image.bytes.len() as u64).is_multiple_of(CLUSTER);
        if unused_tail || differs.iter().any(|kind| report.counts.of(*kind) > 0) {
            continue;
        }
        let code = exit_code(&report);
        if codes[usize::try_from(code).unwrap()] >= 25 {
            continue;
        }
        codes[usize::try_from(code).unwrap()] += 1;
        std::fs::write(&path, &image.bytes).unwrap();
        assert_agrees(&path, "damaged");
    }
    assert!(codes[0] >= 5 && codes[2] >= 25 && codes[3] >= 25, "{codes:?}");
}

#[test]
fn what_a_repair_leaves_is_sound_to_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qed");
    let mut tried = 0;
    let corrupt = (0..2000)
        .map(damaged)
        .filter(|image| image.table_clusters == 2 && image.check().corruptions() > 1);
    for image in corrupt.take(30) {
        std::fs::write(&path, &image.bytes).unwrap();
        let storage = FileStorage::open(&path, FileOptions::READ_WRITE).unwrap();
        let Ok(report) = repair(&storage, Repair::All) else { continue };
        drop(storage);
        let (code, text) = qemu_check(&path);
        assert_eq!(exit_code(&report), code, "{:?}\n{text}", report.findings);
        tried += 1;
    }
    assert!(tried > 20, "{tried} repairs");
}

#[test]
fn duplicates_that_qemu_leaves_are_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qed");
    let mut image = TestImage::new(2, 100, 6);
    image.table(0, 3);
    image.set_l2(3, 0, 5 * CLUSTER);
    image.set_l2(3, 1, 5 * CLUSTER);
    std::fs::write(&path, &image.bytes).unwrap();
    assert_eq!(qemu("qemu-img", &["check", "-r", "all"], &path).status.code(), Some(2));
    let storage = FileStorage::open(&path, FileOptions::READ_WRITE).unwrap();
    let report = repair(&storage, Repair::All).unwrap();
    assert_eq!(report.repaired.counts.of(FindingKind::L2Duplicate), 1);
    drop(storage);
    assert_eq!(qemu_check(&path).0, 0);
}
