//! Raw to QED in place, beside QEMU: the disk has the bytes of the file, and its holes.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;

use qed_convert::in_place::{
    FromRawOptions, InPlaceError, PlanFault, PlanFile, PlanStore, Refusal, plan_raw_to_qed,
    raw_to_qed,
};
use qed_core::LockPolicy;
use qed_io::{FileOptions, FileStorage, MemoryStorage, Storage};

use crate::lab::{Random, noise};
use crate::qcow2_lab::Lab;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn options(cluster_len: u32) -> FromRawOptions {
    FromRawOptions { lock: LockPolicy::Take, cluster_len }
}

/// A plan in memory.
type Kept = RefCell<Option<Vec<u8>>>;

/// Makes `x.raw` and a copy: a few runs of noise, among them the first and the last sector.
fn make(lab: &Lab, len: u64) {
    for name in ["x.raw", "expected.raw"] {
        fs::write(lab.path(name), "").expect("room in /tmp");
        let file = FileStorage::open(lab.path(name), FileOptions::READ_WRITE).expect("a file");
        file.set_len(len).expect("room in /tmp");
        let mut random = Random::new(len);
        let places = [0, len - 512].into_iter().chain((0..6).map(|i| len / 7 * i / 512 * 512));
        for at in places.collect::<Vec<_>>() {
            let part = noise(&mut random, (512 * (1 + random_sectors(at))).min(len - at));
            file.write_at(&part, at).expect("room in /tmp");
        }
    }
}

fn random_sectors(at: u64) -> u64 {
    at / 512 % 17
}

#[test]
fn every_length_and_cluster_size_reads_the_same_for_qemu() {
    let lens = [512, 4096, 64 * KIB - 512, 64 * KIB, 5 * MIB + 1536, 70 * MIB + 512];
    for len in lens {
        for cluster_len in [4 << 10, 16 << 10, 64 << 10, 1 << 20, 4 << 20] {
            let lab = Lab::new();
            make(&lab, len);
            let path = lab.path("x.raw");
            let allocated = fs::metadata(&path).expect("a file").blocks();
            let file = FileStorage::open(&path, FileOptions::READ_WRITE).expect("a file");
            let plan_file = PlanFile::beside(&path);
            let what = format!("{len} in clusters of {cluster_len}");
            let planned = plan_raw_to_qed(&file, &options(cluster_len)).expect(&what);
            let done = raw_to_qed(&file, &plan_file, &options(cluster_len)).expect(&what);
            assert_eq!(planned, done, "{what}");
            assert_eq!(file.len().expect("a file"), done.new_len, "{what}");
            assert!(!plan_file.path().exists(), "{what}");
            drop(file);
            lab.run("compare -f qed -F raw x.raw expected.raw");
            // Of files with so many clusters QEMU reports leaks that are none.
            let is_long = done.new_len / u64::from(cluster_len) >= u64::from(cluster_len);
            let checked = lab.tool("qemu-img", ["check", "-f", "qed", "x.raw"]);
            let wanted = if is_long { 3 } else { 0 };
            assert_eq!(checked.status.code(), Some(wanted), "{what}: {checked:?}");
            let grown = fs::metadata(&path).expect("a file").blocks().saturating_sub(allocated);
            let tables = done.geometry.l1_entries_for(len) + 1;
            let clusters = len / u64::from(cluster_len) * 8;
            let most = (u64::from(cluster_len) + clusters + (tables + 4) * 8192) / 512;
            assert!(grown <= most, "{what}: {grown} sectors more");
        }
    }
}

#[test]
fn what_is_no_raw_disk_is_refused_and_left_alone() {
    let disk = |front: &[u8], len: usize| {
        let mut bytes = vec![1; len];
        bytes[..front.len()].copy_from_slice(front);
        bytes
    };
    let cases: [(&str, Vec<u8>, u32); 7] = [
        ("empty", Vec::new(), 65536),
        ("no multiple of 512", disk(b"", 1000), 65536),
        ("begins like a QED", disk(b"QED\0", 4096), 65536),
        ("begins like a QCOW2", disk(b"QFI\xfb", 4096), 65536),
        ("clusters of 2048 bytes", disk(b"", 4096), 2048),
        ("clusters of 8388608 bytes", disk(b"", 4096), 8 << 20),
        ("clusters of 5000 bytes", disk(b"", 4096), 5000),
    ];
    for (message, bytes, cluster_len) in cases {
        let (storage, kept) = (MemoryStorage::new(bytes.clone()), Kept::default());
        let error = raw_to_qed(&storage, &kept, &options(cluster_len)).expect_err(message);
        assert!(error.to_string().contains(message), "{error}, not: {message}");
        assert_eq!(storage.len().expect("memory"), bytes.len() as u64, "{message}");
        let mut after = vec![0; bytes.len()];
        storage.read_at(&mut after, 0).expect("memory");
        assert!(after == bytes && kept.load().expect("memory").is_none(), "{message}");
    }
    let lab = Lab::new();
    make(&lab, 20_000 * MIB);
    let file = FileStorage::open(lab.path("x.raw"), FileOptions::READ_WRITE).expect("a file");
    let refused = raw_to_qed(&file, &Kept::default(), &options(4096));
    assert!(matches!(refused, Err(InPlaceError::Refused(Refusal::Geometry { .. }))), "{refused:?}");
}

#[test]
fn a_plan_that_does_not_fit_the_file_is_not_acted_on() {
    let kept = Kept::default();
    let len = 70_000 / 512 * 512;
    let storage = MemoryStorage::new(vec![3; len]);
    kept.save(b"garbage").expect("memory");
    let refused = raw_to_qed(&storage, &kept, &options(65536));
    let not_a_plan = |plan: &PlanFault| matches!(plan, PlanFault::NotAPlan { .. });
    assert!(matches!(&refused, Err(InPlaceError::Plan(plan)) if not_a_plan(plan)), "{refused:?}");
    // The last has a new sector that no conversion writes.
    for (first, way) in [(4, 1), (3, 2), (3, 1)] {
        let mut plan = b"QEDPLAN1".to_vec();
        plan.extend([way, 0, 0, 0, 0, 0, 0, 0]);
        plan.extend(1024_u64.to_le_bytes());
        plan.extend([first; 512]);
        plan.extend([9; 512]);
        kept.save(&plan).expect("memory");
        let refused = raw_to_qed(&storage, &kept, &options(65536));
        let other_plan = |plan: &PlanFault| matches!(plan, PlanFault::OtherPlan { .. });
        assert!(
            matches!(&refused, Err(InPlaceError::Plan(plan)) if other_plan(plan)),
            "{refused:?}"
        );
    }
    assert_eq!(storage.len().expect("memory"), len as u64);
}
