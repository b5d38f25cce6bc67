//! Images made to cost memory or time.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use qed_check::{CheckError, CheckOptions, Report, check};
use qed_io::{FileOptions, FileStorage};

use crate::image::{CLUSTER, TestImage};

const TIB: u64 = 1 << 40;

/// Writes a header with the given shape, an L1 table at 64 MiB and entries at offsets.
fn sparse(path: &Path, shape: [u32; 2], len: u64, words: impl Iterator<Item = (u64, u64)>) {
    let mut header = TestImage::new(1, 0, 2).bytes;
    header[4..8].copy_from_slice(&shape[0].to_le_bytes());
    header[8..12].copy_from_slice(&shape[1].to_le_bytes());
    header[40..48].copy_from_slice(&L1_AT.to_le_bytes());
    header[48..56].copy_from_slice(&(1_u64 << 38).to_le_bytes());
    let mut file = File::create(path).unwrap();
    file.write_all(&header[..64]).unwrap();
    file.set_len(len).unwrap();
    for (at, value) in words {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&value.to_le_bytes()).unwrap();
    }
}

const L1_AT: u64 = 64 << 20;

fn run(path: &Path) -> Result<Report, CheckError> {
    check(&FileStorage::open(path, FileOptions::READ_ONLY).unwrap(), &CheckOptions::default())
}

/// The images of [`hostile_images_cost_a_second_and_64_mib`], which runs this test in a process of
/// its own to see what it costs.
#[test]
fn hostile_images_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qed");

    let mut header = TestImage::new(4, 0, 8).bytes;
    header.truncate(64);
    header[48..56].copy_from_slice(&(1_u64 << 63).to_le_bytes());
    std::fs::write(&path, &header).unwrap();
    assert!(matches!(run(&path), Err(CheckError::Header(_))));

    // An empty L1 table, and 8 TiB that nothing names.
    sparse(&path, [4096, 16], 8 * TIB, std::iter::empty());
    let report = run(&path).unwrap();
    let metadata = 1 + 16;
    assert_eq!(report.leaks(), 8 * TIB / CLUSTER - metadata);

    // Two thousand tables that are all holes.
    let l1 = (0..2000).map(|l1| (L1_AT + l1 * 8, TIB + (l1 << 20)));
    sparse(&path, [4096, 16], 8 * TIB, l1);
    assert_eq!(run(&path).unwrap().corruptions(), 0);

    // One table of holes of a gibibyte, in a file of clusters of 64 MiB.
    let l1 = (0..64).map(|l1| (L1_AT + l1 * 8, TIB + (l1 << 30)));
    sparse(&path, [64 << 20, 16], 8 * TIB, l1);
    assert_eq!(run(&path).unwrap().corruptions(), 0);

    // Entries so far apart that each would need memory of its own.
    let table = TIB;
    let far = (0..8192).map(|l2| (table + l2 * 8, 2 * TIB + (l2 << 29)));
    sparse(&path, [4096, 16], 8 * TIB, far.chain([(L1_AT, table)]));
    match run(&path) {
        Ok(report) => assert_eq!(report.statistics.allocated_clusters, 8192),
        Err(error) => assert!(matches!(error, CheckError::MapLimit { .. }), "{error}"),
    }
    println!("peak {} KiB", peak_kib());
}

#[test]
fn hostile_images_cost_a_second_and_64_mib() {
    let start = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::hostile_images_are_answered", "--nocapture"])
        .output()
        .unwrap();
    let taken = start.elapsed();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let peak = text.split("peak ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(peak.parse::<u64>().unwrap() < 64 << 10, "{peak} KiB");
    // Five images, and a machine that may be busy.
    assert!(taken < Duration::from_secs(5), "{taken:?}");
}

/// 2^31 clusters, of which 16 MiB map 2^27: each entry is so far from the others that it costs 2 KiB,
/// and the table of 64 KiB pays for two of them more.
#[test]
fn the_memory_for_the_map_is_what_the_tables_justify_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qed");
    // The header area, the L1 table and the L2 table cost three times 2 KiB.
    for (entries, fits) in [(8192 + 2 - 3, true), (8192 + 2 - 2, false)] {
        let far = (0..entries).map(|l2| (TIB + l2 * 8, 2 * TIB + (l2 << 29)));
        sparse(&path, [4096, 16], 8 * TIB, far.chain([(L1_AT, TIB)]));
        match run(&path) {
            Ok(report) => {
                assert!(fits, "{entries} entries");
                assert_eq!(report.statistics.allocated_clusters, entries);
            }
            Err(CheckError::MapLimit { clusters, limit }) => {
                assert!(!fits, "{entries} entries");
                assert_eq!((clusters.get(), limit), (1 << 31, (16 << 20) + (64 << 10) / 16));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn every_entry_naming_one_cluster_is_counted_and_the_list_is_bounded() {
    let mut image = TestImage::new(16, 8192, 40);
    image.table(0, 17);
    for l2 in 0..8192 {
        image.set_l2(17, l2, 35 * CLUSTER);
    }
    let report = check(&*image.storage(), &CheckOptions::default()).unwrap();
    assert_eq!(report.corruptions(), 8191);
    assert_eq!(report.findings.len(), CheckOptions::default().findings_limit);
}
