//! An image breaks no rule.

use qed_check::{CheckOptions, Report, check};
use qed_io::Storage;

/// The image has no corruption and does not ask for a check. Leaks are the caller's business.
///
/// # Panics
/// If it has, with what was found.
#[track_caller]
pub fn assert_sound(storage: &dyn Storage) -> Report {
    let report = check(storage, &CheckOptions::default()).expect("the image can be checked");
    assert_eq!(report.corruptions(), 0, "{:?}", report.findings);
    assert!(!report.dirty, "NEED_CHECK is set in an image that was closed");
    report
}

/// As [`assert_sound`], and nothing is leaked.
///
/// # Panics
/// If anything is.
#[track_caller]
pub fn assert_clean(storage: &dyn Storage) {
    let report = assert_sound(storage);
    assert_eq!(report.leaks(), 0, "{:?}", report.findings);
}
