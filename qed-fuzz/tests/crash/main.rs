//! Every state that a crash may leave of a few operations: recovered, checked, read and written to.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap is a failed test, and test disks are small"
)]

mod guest;
mod verify;
mod workload;

use std::sync::Arc;

use qed_core::{
    CreateOptions, Layout, LockPolicy, ReadContext, ReadOnlyImage, RefuseBacking, create,
};
use qed_fuzz::{CrashDisk, DiskContent, crash_points};
use qed_io::{Recorder, Storage};

use crate::verify::verify;
use crate::workload::{CLUSTER, COMPAT, JOURNAL, Step, Workload, random};

/// Up to this many states of one crash point are all built, of more a sample.
const ALL_STATES_MAX: u64 = 1 << 12;
const DISK: u64 = 6 * CLUSTER;
const LAYOUTS: [Layout; 3] = [Layout::Classic, COMPAT, JOURNAL];

/// Verifies the states of every crash point, a sample where there are more than `most`; how many.
fn crash(workload: &Workload, most: u64) -> u64 {
    let run = workload.run();
    let mut states = 0;
    for point in crash_points(&run.start, &run.records) {
        let guest = run.guest.at(&run.events, point.position);
        point.for_each_state(most, |content| {
            states += 1;
            let context = || format!("{workload:?}\nat {} state {states}", point.position);
            verify(content, &guest, &run.gate, context);
        });
    }
    states
}

#[track_caller]
fn crash_all(backing: u64, steps: &[Step]) {
    for layout in LAYOUTS {
        let workload = Workload { size: DISK, backing, layout, steps: steps.to_vec() };
        let states = crash(&workload, ALL_STATES_MAX);
        assert!(states > 20, "{states} states are too few to mean anything");
    }
}

fn write(first: u64) -> Step {
    Step::Write { first, count: 1 }
}

// spec-test: QED-CONS-02, QED-RW-04, QED-RW-06, QED-RW-07, QED-JRN-15, QED-JRN-26
#[test]
fn allocating_writes_flushed_one_by_one() {
    for backing in [0, DISK / 2, DISK + CLUSTER] {
        crash_all(
            backing,
            &[
                write(3),
                Step::Flush,
                write(CLUSTER),
                write(2 * CLUSTER + 7),
                Step::Flush,
                Step::Flush,
                write(3 * CLUSTER),
                Step::Flush,
            ],
        );
    }
}

#[test]
fn a_new_cluster_overwritten_before_and_after_its_flush() {
    for backing in [0, DISK] {
        crash_all(
            backing,
            &[write(1), write(1), write(2), Step::Flush, write(1), write(CLUSTER), Step::Flush],
        );
    }
}

#[test]
fn space_that_an_abandoned_write_used() {
    for backing in [0, DISK] {
        crash_all(
            backing,
            &[
                write(0),
                Step::Flush,
                Step::Abandon { first: CLUSTER + 1 },
                write(2 * CLUSTER + 4),
                Step::Flush,
                Step::Abandon { first: 4 * CLUSTER },
                write(3 * CLUSTER + 4),
            ],
        );
    }
}

#[test]
fn data_on_its_way_while_others_flush() {
    for backing in [0, DISK] {
        crash_all(
            backing,
            &[write(0), Step::FlushBetween { first: CLUSTER + 2 }, write(1), Step::Flush],
        );
    }
}

#[test]
fn zero_clusters_over_a_backing_file() {
    crash_all(
        DISK,
        &[
            Step::Zero { first: CLUSTER, count: CLUSTER },
            Step::Flush,
            write(CLUSTER + 2),
            Step::Zero { first: 3 * CLUSTER + 2, count: 2 },
            Step::Flush,
            Step::Zero { first: CLUSTER, count: 4 },
        ],
    );
}

// spec-test: QED-SIZE-01, QED-SIZE-02
#[test]
fn growing_and_shrinking() {
    for backing in [0, DISK - 3, DISK + CLUSTER + 3] {
        crash_all(
            backing,
            &[
                write(DISK - 1),
                Step::Resize(DISK + 5),
                write(DISK + 4),
                write(DISK - CLUSTER),
                Step::Resize(DISK - 3),
                write(2),
                Step::Resize(DISK),
                Step::Resize(CLUSTER),
                write(CLUSTER - 1),
            ],
        );
    }
}

// spec-test: QED-BACK-06
#[test]
fn another_backing_file_name() {
    crash_all(
        DISK,
        &[
            write(0),
            Step::SetBacking(Some(vec![b'x'; 900])),
            write(CLUSTER),
            Step::SetBacking(Some(b"short".to_vec())),
            Step::SetBacking(Some(vec![b'y'; 600])),
        ],
    );
}

#[test]
fn closing_and_opening_again() {
    for backing in [0, DISK] {
        crash_all(
            backing,
            &[
                write(0),
                Step::Reopen,
                write(CLUSTER),
                Step::Abandon { first: 2 * CLUSTER },
                Step::Reopen,
                write(3 * CLUSTER),
            ],
        );
    }
}

#[test]
fn two_tables_linked_and_one_unlinked() {
    // One table of 512 entries maps this many sectors.
    let table = 512 * CLUSTER;
    let steps = [
        write(0),
        write(table + 3),
        Step::Flush,
        Step::Resize(table - 2),
        write(table - CLUSTER),
        Step::Resize(table + CLUSTER),
    ];
    for (backing, layout) in
        [(0, Layout::Classic), (0, COMPAT), (table + 5, COMPAT), (0, JOURNAL), (table + 5, JOURNAL)]
    {
        let size = table + CLUSTER;
        let states = crash(&Workload { size, backing, layout, steps: steps.to_vec() }, 24);
        assert!(states > 30, "{states} states");
    }
}

#[test]
fn random_workloads() {
    let states: u64 = (0..120).map(|seed| crash(&random(seed), 60)).sum();
    assert!(states > 8_000, "{states} states");
}

#[test]
fn an_interrupted_creation_leaves_no_image() {
    for layout in LAYOUTS {
        let recorder = Recorder::new(Arc::new(CrashDisk::new(DiskContent::default())));
        create(&recorder, &CreateOptions { layout, ..CreateOptions::new(1 << 20) }).unwrap();
        let points = crash_points(&DiskContent::default(), &recorder.records());
        let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
        for point in &points {
            point.for_each_state(ALL_STATES_MAX, |content| {
                let disk = Arc::new(CrashDisk::new(content));
                let mut first = [0; 4];
                let has_header = disk.read_at(&mut first, 0).is_ok() && first == *b"QED\0";
                assert_eq!(ReadOnlyImage::open(disk, &read).is_ok(), has_header);
            });
        }
        assert!(points.len() > 2);
    }
}
