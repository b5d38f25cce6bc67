//! The recorder, the fault injector and the gate.

use std::io::ErrorKind;
use std::sync::Arc;

use qed_io::{
    Completion, Fault, Faulty, Gate, ImageLock, MemoryStorage, Operation, Outcome, Recorder,
    Repeat, RequestKind, Storage,
};

use crate::support::contents;

fn memory(len: usize) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new(vec![9; len]))
}

/// One of everything that changes a storage or may fail.
fn workload(storage: &dyn Storage) -> std::io::Result<()> {
    storage.lock(ImageLock::WRITE).map_err(std::io::Error::other)?;
    storage.write_at(b"abcdef", 2)?;
    storage.write_zeroes(4..20)?;
    storage.flush()?;
    storage.set_len(40)?;
    storage.punch_hole(0..3)?;
    storage.discard(1..2)?;
    storage.read_at(&mut [0; 40], 0)?;
    storage.run_at(7)?;
    storage.len()?;
    storage.write_at(b"z", 50)?;
    storage.set_len(45)?;
    storage.flush()
}

#[test]
fn replaying_the_log_gives_the_same_bytes() {
    let below = memory(16);
    let recorder = Recorder::new(below.clone());
    workload(&recorder).unwrap();
    let mut replayed = vec![9; 16];
    for record in recorder.records() {
        assert_eq!(record.completion.map(|end| end.outcome), Some(Outcome::Done));
        record.operation.apply_to(&mut replayed);
    }
    assert_eq!(replayed, below.to_vec());
}

#[test]
fn every_change_is_logged_with_start_end_and_contents() {
    let recorder = Recorder::new(memory(8));
    recorder.write_at(b"ab", 1).unwrap();
    assert_eq!(recorder.tick(), 2, "an event of the test between two operations");
    recorder.flush().unwrap();
    recorder.punch_hole(0..4).unwrap();
    recorder.write_zeroes(6..10).unwrap();
    recorder.set_len(3).unwrap();
    recorder.read_at(&mut [0], 0).unwrap();
    let log: Vec<_> =
        recorder.records().into_iter().map(|r| (r.submitted, r.operation, r.completion)).collect();
    let done = |order| Some(Completion { order, outcome: Outcome::Done });
    let write = Operation::Write { offset: 1, bytes: (*b"ab").into() };
    assert_eq!(
        log,
        [
            (0, write, done(1)),
            (3, Operation::Flush, done(4)),
            (5, Operation::PunchHole(0..4), done(6)),
            (7, Operation::WriteZeroes(6..10), done(8)),
            (9, Operation::SetLen(3), done(10)),
        ]
    );
}

#[test]
fn the_log_shows_what_was_in_flight_during_a_flush() {
    let gate = Arc::new(Gate::new(memory(8)));
    let recorder = Recorder::new(gate.clone());
    let held = gate.hold(|request| request.kind == RequestKind::Write);
    std::thread::scope(|scope| {
        scope.spawn(|| recorder.write_at(b"late", 0).unwrap());
        held.wait_until_stopped();
        assert!(held.is_stopped());
        recorder.flush().unwrap();
        assert_eq!(recorder.records()[0].completion, None, "in flight");
        held.release();
    });
    let log = recorder.records();
    let order = |index: usize| (log[index].submitted, log[index].completion.unwrap().order);
    let ((write_start, write_end), (flush_start, flush_end)) = (order(0), order(1));
    assert!(write_start < flush_start && flush_end < write_end, "the flush does not cover it");
}

#[test]
fn failures_are_logged_as_such() {
    let faulty = Arc::new(Faulty::new(memory(8)));
    let recorder = Recorder::new(faulty.clone());
    faulty.fail_when(|request| request.kind == RequestKind::Flush, Fault::Io, Repeat::Once);
    faulty.fail_when(|request| request.kind == RequestKind::Write, Fault::NoSpace, Repeat::Once);
    assert!(recorder.write_at(b"x", 0).is_err());
    assert!(recorder.flush().is_err());
    let outcomes: Vec<_> =
        recorder.records().iter().map(|r| r.completion.unwrap().outcome).collect();
    let io = std::io::Error::from_raw_os_error(5).kind();
    assert_eq!(outcomes, [Outcome::Failed(ErrorKind::StorageFull), Outcome::Failed(io)]);
}

#[test]
fn every_request_of_a_workload_can_be_failed() {
    let count = {
        let faulty = Faulty::new(memory(16));
        workload(&faulty).unwrap();
        faulty.requests()
    };
    assert_eq!(count, 12, "all but the lock");
    for number in 0..count {
        let faulty = Faulty::new(memory(16));
        faulty.fail_nth(number, Fault::Io, Repeat::Once);
        let error = workload(&faulty).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "request {number}");
        assert_eq!((faulty.requests(), faulty.failures()), (number + 1, 1));
        workload(&faulty).unwrap();

        let faulty = Faulty::new(memory(16));
        faulty.fail_nth(number, Fault::NoSpace, Repeat::Always);
        for _ in 0..2 {
            assert_eq!(workload(&faulty).unwrap_err().kind(), ErrorKind::StorageFull);
        }
        faulty.heal();
        workload(&faulty).unwrap();
    }
}

#[test]
fn a_partial_failure_changes_the_first_bytes_only() {
    let partial = Fault::Partial { bytes: 2 };
    let cases = [
        (RequestKind::Write, [9, 1, 1, 9, 9, 9]),
        (RequestKind::WriteZeroes, [9, 0, 0, 9, 9, 9]),
        (RequestKind::PunchHole, [9, 0, 0, 9, 9, 9]),
        (RequestKind::Discard, [9, 0xa5, 0xa5, 9, 9, 9]),
        (RequestKind::SetLen, [9; 6]),
    ];
    for (kind, want) in cases {
        let below = memory(6);
        let faulty = Faulty::new(below.clone());
        faulty.fail_when(move |request| request.kind == kind, partial, Repeat::Once);
        let result = match kind {
            RequestKind::Write => faulty.write_at(&[1; 4], 1),
            RequestKind::WriteZeroes => faulty.write_zeroes(1..5),
            RequestKind::PunchHole => faulty.punch_hole(1..5).map(drop),
            RequestKind::Discard => faulty.discard(1..5).map(drop),
            _ => faulty.set_len(2),
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
        assert_eq!(below.to_vec(), want, "{kind:?}");
    }
}

#[test]
fn a_hold_stops_one_request_and_dropping_it_lets_that_go() {
    let gate = Gate::new(memory(4));
    let held = gate.hold(|request| request.touches(RequestKind::Write, &(2..3)));
    gate.write_at(&[1, 1], 0).unwrap();
    assert!(!held.is_stopped(), "it lies beside the chosen byte");
    std::thread::scope(|scope| {
        scope.spawn(|| gate.write_at(&[2, 2], 1).unwrap());
        held.wait_until_stopped();
        gate.write_at(&[3], 2).unwrap();
        assert_eq!(contents(&gate), [1, 1, 3, 9]);
        drop(held);
    });
    assert_eq!(contents(&gate), [1, 2, 2, 9]);
}
