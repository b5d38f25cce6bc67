//! NBD servers.

use conformance::{Field, Limits, Nbd, Verdict};

use super::{TWO, of_qemu, run_on, vectors_of};

const URI: &str = "nbd+unix:///?socket={socket}";
pub(super) const QEMU_NBD: &str =
    "qemu-nbd --persistent --read-only --format qed --socket {socket} {path}";

pub(super) fn nbd(serve: &str) -> Nbd {
    nbd_within(serve, of_qemu())
}

fn nbd_within(serve: &str, limits: Limits) -> Nbd {
    Nbd::new(URI, Some(serve), limits)
        .unwrap_or_else(|error| panic!("{error}; qemu-nbd is in the Debian package qemu-utils"))
}

#[test]
fn what_nbd_cannot_say_is_not_passed() {
    let report = run_on(&nbd(QEMU_NBD), &vectors_of(TWO));
    let sound = report.vectors.iter().find(|result| result.name == "sound").unwrap();
    assert_eq!(
        sound.passed,
        [Field::Open, Field::Size, Field::Map, Field::Content, Field::Unchanged]
    );
    let silent = [Field::ClusterSize, Field::Check, Field::Findings, Field::Write];
    assert_eq!(sound.not_applicable, silent);
}

#[test]
fn a_server_of_another_disk_fails() {
    let other = QEMU_NBD.replace("--format qed", "--format raw");
    let report = run_on(&nbd(&other), &vectors_of(TWO));
    let found: Vec<(&str, Field)> = report
        .vectors
        .iter()
        .flat_map(|vector| vector.failed.iter().map(|it| (&*vector.name, it.field)))
        .collect();
    let sound = [Field::Size, Field::Map, Field::Content].map(|field| ("sound", field));
    assert_eq!(found, [&[("refused", Field::Open)], &sound[..]].concat());
}

#[test]
fn a_server_that_never_listens_or_ends_at_once_fails() {
    for (serve, says) in
        [("sleep infinity", "the server neither listens nor ends"), ("true", "the server ended")]
    {
        let limits = Limits { seconds: 2, ..Limits::default() };
        let report = run_on(&nbd_within(serve, limits), &vectors_of(TWO));
        for vector in &report.vectors {
            assert_eq!(vector.outcome, Verdict::Failed);
            assert_eq!(vector.failed[0].found, says);
        }
    }
}
