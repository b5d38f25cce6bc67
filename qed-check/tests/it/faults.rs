//! Every request of a repair failed once: an error or success, never a panic, never a worse image.

use std::sync::Arc;

use qed_check::{CheckError, FindingKind, Repair, repair};
use qed_io::{Fault, Faulty, Repeat};

use crate::image::{TestImage, damaged};
use crate::oracle::assert_repaired;

#[test]
fn a_repair_survives_the_failure_of_any_request() {
    let mut failures = 0;
    let images = (0..2000).map(damaged).filter(needs_copies);
    let images = images.filter_map(|image| Some((requests_of_repair(&image)?, image)));
    for (requests, image) in images.take(6) {
        for number in 0..requests {
            for fault in [Fault::Io, Fault::NoSpace, Fault::Partial { bytes: 512 }] {
                failures += fail_one(&image, number, fault);
            }
        }
    }
    assert!(failures > 300, "only {failures} requests were made to fail");
}

/// Whether a repair has to copy a table and a cluster, and so to take every step there is.
fn needs_copies(image: &TestImage) -> bool {
    let counts = image.check().counts;
    counts.of(FindingKind::L1SharedTable) > 0 && counts.of(FindingKind::L2Duplicate) > 0
}

fn requests_of_repair(image: &TestImage) -> Option<u64> {
    let storage = Faulty::new(image.storage());
    match repair(&storage, Repair::All) {
        Err(CheckError::TooManyCopies { .. } | CheckError::TableOrData { .. }) => None,
        other => other.map(|_| Some(storage.requests())).unwrap(),
    }
}

fn fail_one(image: &TestImage, number: u64, fault: Fault) -> u64 {
    let memory = image.storage();
    let storage = Faulty::new(Arc::clone(&memory) as Arc<dyn qed_io::Storage>);
    storage.fail_nth(number, fault, Repeat::Once);
    let failed = repair(&storage, Repair::All).is_err();
    assert!(failed, "request {number} failed and nobody noticed");
    repair(&*memory, Repair::All).unwrap();
    assert_repaired(image, &image.with_bytes(memory.to_vec()), number);
    storage.failures()
}
