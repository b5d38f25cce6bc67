//! The order of writes of docs/write-ordering.md, as a recorder sees it.

use std::sync::Arc;

use qed_core::{BackingGate, GivenBacking, Image, RefuseBacking, Shrink};
use qed_io::{Operation, Recorder};
use qed_spec::{Features, GuestOffset};

use crate::support::{Bytes, new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 8 << 20;
const L1: u64 = CLUSTER;

/// What a recorded operation was, in the words of docs/write-ordering.md.
fn step(operation: &Operation) -> String {
    match operation {
        Operation::Flush => "flush".into(),
        Operation::SetLen(len) => format!("length {}", len / CLUSTER),
        Operation::Write { offset: 0, bytes } => {
            let features = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
            let marked = features & Features::NEED_CHECK.bits() != 0;
            let size = u64::from_le_bytes(bytes[48..56].try_into().unwrap());
            format!("header marked={marked} size={size:#x}")
        }
        Operation::Write { offset, .. } if (L1..3 * CLUSTER).contains(offset) => "L1".into(),
        Operation::Write { offset, bytes } => {
            format!("cluster {} +{}", offset / CLUSTER, bytes.len())
        }
        other => format!("{other:?}"),
    }
}

/// The steps that `act` causes on a new image.
fn steps(gate: &dyn BackingGate, backing: bool, act: impl Fn(&Image)) -> Vec<String> {
    let recorder = Arc::new(Recorder::new(new_storage(small_geometry(), DISK, backing)));
    let image = open(recorder.clone(), gate);
    act(&image);
    let steps = recorder.records().iter().map(|record| step(&record.operation)).collect();
    image.close().unwrap();
    steps
}

// spec-test: QED-CONS-02, QED-RW-06
#[test]
fn the_mark_is_durable_before_the_tables_and_one_flush_serves_afterwards() {
    let steps = steps(&RefuseBacking, false, |image| {
        image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
        image.flush().unwrap();
        image.write_at(&[1; 512], GuestOffset::new(CLUSTER)).unwrap();
        image.flush().unwrap();
        image.flush().unwrap();
    });
    assert_eq!(
        steps,
        [
            "length 1029",
            // Own: the file covers the new L2 table; data; then the flush of the guest.
            "cluster 5 +512",
            "header marked=true size=0x800000",
            "flush",
            "cluster 3 +4096",
            "L1",
            "flush",
            "cluster 6 +512",
            "cluster 3 +4096",
            "flush",
            "header marked=false size=0x800000",
            "flush",
        ]
    );
}

// spec-test: QED-RW-06
#[test]
fn over_a_backing_file_data_is_durable_before_its_entry_and_no_mark_is_set() {
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![7; DISK as usize]))));
    let steps = steps(&gate, true, |image| {
        image.write_at(&[1; 512], GuestOffset::new(1024)).unwrap();
        image.flush().unwrap();
    });
    let tail = ["cluster 5 +1024", "cluster 5 +512", "cluster 5 +2560", "flush", "cluster 3 +4096"];
    assert_eq!(steps[1..6], tail);
    assert_eq!(steps[6..], ["L1", "flush"]);
}

#[test]
fn reused_space_is_durable_before_its_entry() {
    let steps = steps(&RefuseBacking, false, |image| {
        image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
        image.flush().unwrap();
        drop(image.request().prepare(GuestOffset::new(CLUSTER), 512).unwrap());
        image.write_at(&[1; 4096], GuestOffset::new(CLUSTER)).unwrap();
        image.flush().unwrap();
    });
    let tail = ["cluster 6 +4096", "flush", "cluster 3 +4096", "flush"];
    assert_eq!(steps[steps.len() - 4..], tail);
}

// spec-test: QED-SIZE-01
#[test]
fn growing_commits_the_size_after_everything_it_relies_on() {
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![7; DISK as usize + 4096]))));
    let steps = steps(&gate, true, |image| image.resize(DISK + 8192, Shrink::Refuse).unwrap());
    let zero_entry = steps.iter().position(|step| step.starts_with("cluster")).unwrap();
    let commit = steps.iter().position(|step| step.ends_with("size=0x802000")).unwrap();
    assert!(zero_entry < commit, "{steps:?}");
    assert_eq!([&steps[commit - 1], &steps[commit + 1]], ["flush", "flush"], "{steps:?}");
}

// spec-test: QED-SIZE-02
#[test]
fn shrinking_unmaps_then_commits_then_cuts() {
    let steps = steps(&RefuseBacking, false, |image| {
        image.write_at(&[1; 4096], GuestOffset::new(0)).unwrap();
        image.write_at(&[1; 4096], GuestOffset::new(DISK / 2)).unwrap();
        image.flush().unwrap();
        image.resize(DISK / 2, Shrink::Allow).unwrap();
    });
    let tail = ["L1", "flush", "header marked=false size=0x400000", "flush", "length 6", "flush"];
    let commit = steps.iter().position(|step| step.ends_with("size=0x400000")).unwrap();
    let unmapped = steps[..commit].iter().rposition(|step| step == "L1").unwrap();
    assert_eq!(steps[unmapped + 1], "flush", "{steps:?}");
    assert_eq!(steps[commit + 1..], tail[3..], "{steps:?}");
}
