//! Programs that are wrong in one way each, and what the runner says of them.

use std::path::{Path, PathBuf};

use conformance::{DriveError, Limits, Program, Report, Verdict};

use super::{TWO, run_on, vectors_of};

/// Small enough that the wrong programs reach them soon, large enough for shells.
const LIMITS: Limits =
    Limits { seconds: 600, cpu_seconds: 2, memory_bytes: 64 << 20, file_bytes: 1 << 20 };

fn wrong(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong").join(name)
}

fn report_of(name: &str, limits: Limits) -> Report {
    run_on(&Program::new(&wrong(name), limits).unwrap(), &vectors_of(TWO))
}

/// What the runner says of one vector: each field that failed, with what was found.
fn failed(report: &Report, vector: &str) -> Vec<String> {
    let vector = report.vectors.iter().find(|result| result.name == vector).unwrap();
    vector.failed.iter().map(|it| format!("{}: {}", it.field, it.found)).collect()
}

/// The program fails both vectors, and breaks down when the image is opened.
#[track_caller]
fn breaks(name: &str, limits: Limits, how: &str) {
    let report = report_of(name, limits);
    for vector in ["sound", "refused"] {
        assert_eq!(failed(&report, vector), [format!("open: {how}")], "{name}");
    }
    assert_eq!(report.failures(), 2);
}

#[test]
fn one_that_accepts_everything_fails() {
    let report = report_of("accepts.sh", LIMITS);
    let expected = ["map: 0+1048576 unallocated", "content: at 65528 00 x 9, at 131072 00 x 512"];
    let found = failed(&report, "sound");
    assert_eq!(found[0], expected[0]);
    assert_eq!(failed(&report, "refused"), ["open: accepted", "check: clean", "write: accepted"]);
}

#[test]
fn one_that_refuses_everything_fails_what_is_sound() {
    let report = report_of("refuses.sh", LIMITS);
    let why = "rejected: no image is good enough";
    let expected = [format!("open: {why}"), "check: refused".to_owned(), format!("write: {why}")];
    assert_eq!(failed(&report, "sound"), expected);
    let refused = report.vectors.iter().find(|result| result.name == "refused").unwrap();
    assert_eq!(refused.outcome, Verdict::Passed);
}

#[test]
fn no_answer_is_a_failure_and_the_runner_goes_on() {
    breaks(
        "hangs.sh",
        Limits { seconds: 1, ..LIMITS },
        "ran for more than 1 s, 2 s of the processor",
    );
    breaks(
        "spins.sh",
        Limits { cpu_seconds: 1, ..LIMITS },
        "ran for more than 600 s, 1 s of the processor",
    );
    breaks("floods.sh", LIMITS, "wrote more than 1048576 bytes");
    breaks("crashes.sh", LIMITS, "ended by signal 6");
    breaks("silent.sh", LIMITS, "exit code 1 without a reason");
    breaks("eats.sh", LIMITS, "exit code 2: sort: memory exhausted");
}

#[test]
fn a_reader_that_writes_is_told() {
    let report = report_of("writes.sh", LIMITS);
    assert!(failed(&report, "sound").contains(&"unchanged: image.qed".to_owned()));
}

#[test]
fn answers_that_contradict_themselves_are_told() {
    let found = failed(&report_of("contradicts.sh", LIMITS), "sound");
    let says = |text: &str| found.iter().any(|line| line.contains(text));
    assert!(says("check: exit code 0 with 3 corruptions and 0 leaks"), "{found:?}");
    assert!(says("map: map prints no such JSON"), "{found:?}");
    assert!(says("content: dd wrote 0 bytes"), "{found:?}");
}

#[test]
fn a_program_that_is_not_there_is_no_verdict() {
    let missing = Program::new("no-such-program-here".as_ref(), LIMITS);
    assert!(matches!(missing, Err(DriveError::Start { .. })));
    let missing = Program::new("./no/such/program".as_ref(), LIMITS);
    assert!(matches!(missing, Err(DriveError::Start { .. })));
}
