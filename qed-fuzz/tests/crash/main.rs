//! Every state that a crash may leave of a few operations, and a hundred thousand states of seeded
//! ones: recovered, checked, read, written to, crashed again, opened by QEMU.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use qed_core::{
    CreateOptions, DiscardMode, LockPolicy, ReadContext, ReadOnlyImage, RefuseBacking, create,
};
use qed_fuzz::{
    Beside, CRASH_CLUSTER as CLUSTER, Campaign, ErrorCampaign, Mode, SparseContent, SparseStorage,
    Step, Workload, crash_campaign, crash_points, crash_workload, error_campaign,
};
use qed_io::{Recorder, Storage};

/// Up to this many states of one crash point are all built, of more a sample.
const ALL_STATES_MAX: u64 = 1 << 9;
const DISK: u64 = 6 * CLUSTER;

#[track_caller]
fn crash_all(backing: u64, steps: &[Step]) {
    crash_disk(DISK, backing, steps);
}

#[track_caller]
fn crash_disk(size: u64, backing: u64, steps: &[Step]) {
    crash_discarding(DiscardMode::Reuse, size, backing, steps);
}

#[track_caller]
fn crash_discarding(discard: DiscardMode, size: u64, backing: u64, steps: &[Step]) {
    // One that keeps a log, one that keeps none, and both ways to keep tables.
    let kinds = [(false, true), (true, true), (true, false)];
    for (mode, (cached, has_log)) in
        Mode::ALL.into_iter().flat_map(|mode| kinds.map(|it| (mode, it)))
    {
        let steps = steps.to_vec();
        let workload = Workload { mode, size, backing, cached, discard, has_log, steps };
        let tally = crash_workload(&workload, ALL_STATES_MAX);
        let tally = tally.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(tally.judged > 15, "{} states are too few to mean anything", tally.judged);
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
fn writers_that_take_turns_and_flushes_beside_them() {
    for (backing, order) in [0, DISK].into_iter().flat_map(|under| (0..6).map(move |n| (under, n)))
    {
        let writes = vec![(0, 2), (CLUSTER + 2, 1), (2 * CLUSTER - 1, 2), (1, CLUSTER)];
        let together = Step::Together { writes, discards: Vec::new(), order };
        crash_all(backing, &[write(1), together, Step::Flush]);
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

// spec-test: QED-FREE-02, QED-FREE-04, QED-FREE-05, QED-FREE-07
#[test]
fn space_that_is_used_again() {
    let discard = |first, clusters| Step::Discard { first, count: clusters * CLUSTER };
    let steps = [
        Step::Sweep,
        Step::Write { first: 0, count: 3 * CLUSTER },
        Step::Flush,
        discard(0, 2),
        write(3 * CLUSTER + 1),
        Step::Flush,
        // Into the clusters that were the first two.
        write(4 * CLUSTER),
        write(1),
        Step::Flush,
        discard(2 * CLUSTER, 1),
        Step::WriteBeside { what: Beside::Punch, first: 5 * CLUSTER + 2, count: 2 },
        Step::Unmap { first: 3 * CLUSTER + 3, count: 2 * CLUSTER },
        Step::Reopen,
        write(2 * CLUSTER + 5),
        Step::Sweep,
        write(5 * CLUSTER),
        Step::Flush,
    ];
    for mode in [DiscardMode::Reuse, DiscardMode::PassDown] {
        for backing in [0, DISK - 3] {
            crash_discarding(mode, DISK, backing, &steps);
        }
    }
}

#[test]
fn discards_beside_writers_that_found_the_space_before() {
    // Space is used again beside the writers where a sweep came before, else one begins beside them.
    for (order, is_swept) in (0..8).map(|order| (order, order < 4)) {
        let writes = vec![(0, 2), (CLUSTER + 2, 1), (4 * CLUSTER - 1, 2), (3 * CLUSTER, 3)];
        let discards = vec![(0, 2 * CLUSTER), (CLUSTER, 2 * CLUSTER)];
        let mut steps = vec![
            Step::Write { first: 0, count: 3 * CLUSTER },
            Step::Flush,
            Step::Together { writes, discards, order },
            Step::Sweep,
            write(5 * CLUSTER),
            Step::Flush,
            write(4 * CLUSTER),
        ];
        if is_swept {
            steps.insert(0, Step::Sweep);
        }
        let mode = [DiscardMode::Reuse, DiscardMode::PassDown][usize::from(order % 2 == 0)];
        crash_discarding(mode, DISK, if order % 4 < 2 { 0 } else { DISK }, &steps);
    }
}

// spec-test: QED-FREE-06, QED-FREE-09, QED-JRN-25
#[test]
fn compactions_that_end_anywhere() {
    let table = 1024 * CLUSTER;
    let compact = |steps, defragment| {
        let writes = vec![(5 * CLUSTER + 1, 1), (table + 2, 1), (6 * CLUSTER, 2)];
        Step::Compact { steps, defragment, writes }
    };
    for (discard, defragment) in [(DiscardMode::Reuse, false), (DiscardMode::PassDown, true)] {
        let steps = [
            Step::Write { first: 0, count: 5 * CLUSTER },
            write(table + 1),
            Step::Write { first: 5 * CLUSTER, count: 2 * CLUSTER },
            Step::Unmap { first: CLUSTER, count: 4 * CLUSTER },
            compact(3, defragment),
            write(2 * CLUSTER),
            compact(9, defragment),
            Step::Unmap { first: 5 * CLUSTER, count: CLUSTER },
            compact(40, defragment),
            write(3 * CLUSTER),
            Step::Flush,
        ];
        for backing in [0, table + 5] {
            crash_discarding(discard, table + CLUSTER, backing, &steps);
        }
    }
}

// spec-test: QED-JRN-25
#[test]
fn a_table_that_moves_down() {
    let table = 1024 * CLUSTER;
    let steps = [
        Step::Write { first: 0, count: 4 * CLUSTER },
        Step::Write { first: 4 * CLUSTER, count: 4 * CLUSTER },
        Step::Flush,
        write(table + 1),
        Step::Flush,
        Step::Unmap { first: CLUSTER, count: 3 * CLUSTER },
        Step::Unmap { first: 4 * CLUSTER, count: 4 * CLUSTER },
        Step::Flush,
        Step::Compact { steps: 60, defragment: false, writes: Vec::new() },
        write(table + 5),
        write(2 * CLUSTER),
        Step::Flush,
    ];
    for backing in [0, table + 5] {
        crash_disk(table + CLUSTER, backing, &steps);
    }
}

// spec-test: QED-FREE-06
#[test]
fn a_new_table_after_space_was_let_go() {
    let table = 1024 * CLUSTER;
    let steps = [
        Step::Sweep,
        Step::Write { first: 0, count: 4 * CLUSTER },
        Step::Flush,
        Step::Discard { first: 0, count: 4 * CLUSTER },
        Step::Flush,
        write(table + 1),
        Step::Flush,
        Step::Maintain,
        write(2),
        Step::Flush,
    ];
    for backing in [0, table + 5] {
        crash_disk(table + CLUSTER, backing, &steps);
    }
}

// spec-test: QED-FREE-07
#[test]
fn sweeps_that_come_again() {
    let discard = |first| Step::Discard { first, count: CLUSTER };
    let steps = [
        Step::Write { first: 0, count: 4 * CLUSTER },
        Step::Sweep,
        write(5 * CLUSTER),
        Step::Resize(5 * CLUSTER),
        discard(0),
        Step::Sweep,
        write(4 * CLUSTER),
        Step::Flush,
        discard(2 * CLUSTER),
        Step::WriteBeside { what: Beside::Flush, first: 1, count: 2 },
        Step::Flush,
    ];
    for mode in [DiscardMode::Reuse, DiscardMode::PassDown] {
        for backing in [0, DISK] {
            crash_discarding(mode, DISK, backing, &steps);
        }
    }
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

// spec-test: QED-DIRTY-04, QED-DIRTY-05, QED-DIRTY-06
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
                Step::Maintain,
                Step::Foreign,
                write(3 * CLUSTER),
            ],
        );
    }
}

#[test]
fn two_tables_linked_and_one_unlinked() {
    // One table of 1024 entries maps this many sectors.
    let table = 1024 * CLUSTER;
    let steps = [
        write(0),
        write(table + 3),
        Step::Flush,
        Step::Resize(table - 2),
        write(table - CLUSTER),
        Step::Resize(table + CLUSTER),
    ];
    for backing in [0, table + 5] {
        crash_disk(table + CLUSTER, backing, &steps);
    }
}

#[test]
fn a_hundred_thousand_states_of_every_kind() {
    let campaign = Campaign { states: 100_000, seed: 0, mode: None, qemu: 4096, threads: None };
    let tally =
        crash_campaign(&campaign).unwrap_or_else(|failure| panic!("{}", failure.minimised()));
    println!("{tally}");
    tally.is_broad(&Mode::ALL).unwrap_or_else(|problem| panic!("{problem}\n{tally}"));
    assert!(tally.states >= 100_000 && tally.by_qemu > 20, "{tally}");
}

// spec-test: QED-JRN-27
#[test]
fn requests_of_two_hundred_workloads_fail() {
    let tally = error_campaign(ErrorCampaign { workloads: 200, one_in: 3 });
    let tally = tally.unwrap_or_else(|problem| panic!("{problem}"));
    println!("{tally:?}");
    assert!(tally.workloads == 200 && tally.runs > 5_000 && tally.stopped > 1_000, "{tally:?}");
}

#[test]
fn an_interrupted_creation_leaves_no_image() {
    for mode in Mode::ALL {
        let recorder = Recorder::new(Arc::new(SparseStorage::new(SparseContent::default())));
        let options = CreateOptions { layout: mode.layout(), ..CreateOptions::new(1 << 20) };
        create(&recorder, &options).unwrap();
        let points = crash_points(&SparseContent::default(), &recorder.records());
        let read = ReadContext::new(&RefuseBacking, LockPolicy::None);
        for point in &points {
            point.for_each_state(ALL_STATES_MAX, |content| {
                let disk = Arc::new(SparseStorage::new(content));
                let mut first = [0; 4];
                let has_header = disk.read_at(&mut first, 0).is_ok() && first == *b"QED\0";
                assert_eq!(ReadOnlyImage::open(disk, &read).is_ok(), has_header);
            });
        }
        assert!(points.len() > 2);
    }
}
