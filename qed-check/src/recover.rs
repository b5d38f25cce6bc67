//! Recovery of an image that its last writer did not close.
//!
//! Owns the decision what a crash of a single writer can leave behind; the mending is `repair`'s.

use qed_io::{Growth, Storage};

use crate::check::{CheckOptions, check};
use crate::error::RecoverError;
use crate::finding::FindingKind;
use crate::repair;
use crate::report::Report;

/// Makes an image that was not closed consistent, or refuses it and changes nothing.
///
/// A crash of a single writer leaves entries that name clusters the file never grew to, clusters
/// that nothing names, a last cluster that is cut off, and entries past the end of a disk that was
/// being resized. These are mended; NEED_CHECK is cleared last. On a block device, whose length
/// stays, no crash explains a last cluster that is cut off. All else (clusters named twice,
/// entries into metadata, entries without meaning) is corruption and refused. The caller holds the
/// image lock; the changes are durable when this returns.
///
/// # Errors
/// [`RecoverError::Corrupt`] with the findings, [`RecoverError::Check`] when the image could not be
/// checked or written.
pub fn recover(storage: &dyn Storage) -> Result<(), RecoverError> {
    let report = check(storage, &CheckOptions::default()).map_err(RecoverError::Check)?;
    if !is_crash_damage(&report, storage.growth()) {
        return Err(RecoverError::Corrupt(Box::new(report)));
    }
    let report = repair::mend(storage, report).map_err(RecoverError::Check)?;
    if report.corruptions() > 0 {
        return Err(RecoverError::Corrupt(Box::new(report)));
    }
    Ok(())
}

fn is_crash_damage(report: &Report, growth: Growth) -> bool {
    use crate::finding::Class;
    report.counts.iter().all(|(kind, count)| {
        let expected = match kind {
            FindingKind::L1PastEnd | FindingKind::L2PastEnd => true,
            // A device does not cut off what a crash left, and cannot grow to mend what it cuts off.
            FindingKind::L1InPartialTail | FindingKind::L2InPartialTail => growth == Growth::Zeros,
            _ => kind.class() != Class::Corruption,
        };
        count == 0 || expected
    })
}
