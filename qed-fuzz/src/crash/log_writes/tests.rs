//! QEMU's own order of one allocating write: the fixtures are what it wrote, and a test writes them
//! anew; with `QED_BLESS` set it keeps them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use qed_core::{DiscardMode, GivenBacking};
use std::fs;
use std::path::Path;

use qed_io::Operation;

use super::super::failure::write_sparse;
use super::super::guest::{Event, Guest, Tag, What, content};
use super::super::judge::{Depth, judge};
use super::super::life::Boot;
use super::super::run::Run;
use super::super::workload::{CRASH_CLUSTER, Mode};
use super::read_write_log;
use crate::qemu::{qemu_img, qemu_io};
use crate::sparse::SparseContent;

/// An image with one cluster, at the start of the disk, and the log of a write to the next.
const IMAGE: &[u8] = include_bytes!("../../../tests/crash/qemu/image");
const LOG: &[u8] = include_bytes!("../../../tests/crash/qemu/log");

/// What the two clusters hold.
const FIRST: Tag = 2;
const SECOND: Tag = 3;
const DISK_SECTORS: u64 = 2048;

fn cluster(tag: Tag, number: u64) -> Vec<u8> {
    let sectors = number * CRASH_CLUSTER..(number + 1) * CRASH_CLUSTER;
    sectors.flat_map(|sector| content(tag, sector)).collect()
}

/// Lets QEMU make the image and the log in a folder.
fn record(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    fs::write(path("first"), cluster(FIRST, 0)).unwrap();
    fs::write(path("second"), cluster(SECOND, 1)).unwrap();
    let shape = "cluster_size=4096,table_size=2";
    qemu_img(["create", "-q", "-f", "qed", "-o", shape, &path("image"), "1M"]).success();
    let first = format!("write -q -s {} 0 4k", path("first"));
    qemu_io(&["-f", "qed"], Path::new(&path("image")), &[first]).success();
    let before = fs::read(path("image")).unwrap();
    // The filter wants its log to exist.
    fs::write(path("log"), b"").unwrap();
    let filter = format!(
        "driver=qed,file.driver=blklogwrites,file.file.driver=file,file.file.filename={},\
         file.log.driver=file,file.log.filename={}",
        path("image"),
        path("log")
    );
    let second = format!("write -q -s {} 4k 4k", path("second"));
    qemu_io(&["--image-opts"], Path::new(&filter), &[second, "flush".to_owned()]).success();
    (before, fs::read(path("log")).unwrap())
}

#[test]
fn the_log_is_what_qemu_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (image, log) = record(folder.path());
    if std::env::var_os("QED_BLESS").is_some() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/qemu");
        fs::write(kept.join("image"), &image).unwrap();
        fs::write(kept.join("log"), &log).unwrap();
        return;
    }
    assert!(image == IMAGE && log == LOG, "QEMU writes something else");
}

#[test]
fn one_state_of_eight_gives_a_cluster_to_two() {
    let start = SparseContent::of(IMAGE);
    let records = read_write_log(LOG).unwrap();
    let flush = records.iter().position(|record| record.operation == Operation::Flush).unwrap();
    // NEED_CHECK, the data, and the entry.
    let writes: Vec<_> = records[..flush].iter().map(|record| &record.operation).collect();
    assert_eq!(writes.len(), 3);
    let run = run(&start);
    let mut guest = run.guest.clone();
    guest.advance(&run.events, u64::MAX);
    let mut wrong = Vec::new();
    for subset in 0..1 << writes.len() {
        let mut state = start.clone();
        let survived = writes.iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1);
        survived.for_each(|(_, write)| state.apply(write));
        if let Err(problem) = judge(&state, &guest, &run, Depth::Once) {
            wrong.push((subset, state, problem));
        }
    }
    let [(subset, state, _)] = &wrong[..] else { panic!("{wrong:?}") };
    assert_eq!(*subset, 0b100, "the entry without NEED_CHECK and data");
    assert!(qemu_shares_a_cluster(state), "QEMU gives the cluster to no other");
}

/// A disk of which the second cluster was written, and not flushed.
fn run(start: &SparseContent) -> Run {
    let asked = |first, tag| What::Asked { first, count: CRASH_CLUSTER, tag };
    let acknowledged = What::Acknowledged { under_way: Vec::new() };
    let what = [asked(0, FIRST), acknowledged, asked(CRASH_CLUSTER, SECOND)];
    let events = what.into_iter().map(|what| Event { order: 0, what }).collect();
    let watched = (0..4 * CRASH_CLUSTER).collect();
    Run {
        start: start.clone(),
        records: Vec::new(),
        events,
        guest: Guest::new(watched, DISK_SECTORS, 0, None),
        gate: GivenBacking(None),
        mode: Mode::Classic,
        discard: DiscardMode::Reuse,
        has_foreign: true,
        deaths: Vec::new(),
        has_log: false,
        boot: Boot::default(),
    }
}

/// Whether a write to the third cluster of the disk shows in the second, in QEMU's own eyes.
fn qemu_shares_a_cluster(state: &SparseContent) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    write_sparse(state, &image).unwrap();
    let commands = ["write -q -P 7 8k 4k", "read -q -P 7 4k 4k"].map(str::to_owned);
    qemu_io(&["-f", "qed"], &image, &commands).code == Some(0)
}

#[test]
fn what_is_no_log_is_refused() {
    assert!(read_write_log(LOG).is_ok());
    for cut in [0, 8, 100, 512, 600, 1024, LOG.len() - 600] {
        assert!(read_write_log(&LOG[..cut]).is_err(), "the first {cut} bytes");
    }
    let mut other = LOG.to_vec();
    other[0] ^= 1;
    assert!(read_write_log(&other).is_err());
}
