//! Every vector of this workspace against everything that is here.

use std::path::Path;

use conformance::{Clauses, Implementation, Library, Limits, Program, Report, load, read_reports};

use super::servers::{QEMU_NBD, nbd};
use super::{failures, qemu_img, run_on};
use crate::support::QED;

#[test]
fn the_library_passes_every_vector() {
    assert_passes(&run_all(&Library));
}

#[test]
fn qed_passes_every_vector() {
    assert_passes(&run_all(&Program::new(&QED, Limits::default()).unwrap()));
}

#[test]
fn the_installed_qemu_img_differs_as_its_report_says() {
    let found = run_all(&qemu_img());
    assert_eq!(found.failures(), 0, "{}", failures(&found));
    assert_kept(&found, "qemu-img");
}

/// qemu-nbd reads holes from where an image names space that is not there, which qemu-img does
/// not; those vectors fail, as the report says.
#[test]
fn the_installed_qemu_nbd_differs_as_its_report_says() {
    assert_kept(&run_all(&nbd(QEMU_NBD)), "qemu-nbd");
}

/// The results are those that are kept, whichever version is installed.
#[track_caller]
fn assert_kept(found: &Report, name: &str) {
    const BLESS: &str = "look at the difference, then run cargo xtask conformance --bless";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports");
    let kept = read_reports(&folder.join(format!("{name}-10.0.2.json"))).unwrap().remove(0);
    let names = |report: &Report| {
        report.vectors.iter().map(|vector| vector.name.clone()).collect::<Vec<String>>()
    };
    assert_eq!(names(found), names(&kept), "the vectors are others: {BLESS}");
    for (found, kept) in found.vectors.iter().zip(&kept.vectors) {
        assert_eq!(found, kept, "{}: {BLESS}", found.name);
    }
}

/// All vectors of this workspace against an implementation.
fn run_all(implementation: &dyn Implementation) -> Report {
    let clauses = Clauses::of_specification();
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    let vectors = load(Path::new(vectors), &clauses).unwrap_or_else(|error| panic!("{error}"));
    run_on(implementation, &vectors)
}

#[track_caller]
fn assert_passes(report: &Report) {
    let counts = report.counts();
    assert_eq!((counts.failed, counts.known, counts.differs), (0, 0, 0), "{}", failures(report));
}
