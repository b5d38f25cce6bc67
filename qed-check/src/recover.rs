//! Recovery of an image that its last writer did not close.
//!
//! Owns the decision what a crash of a single writer can leave behind; the mending is `repair`'s.

use qed_io::{Growth, Storage};
use qed_layout::{CrashLeft, DirtyBits};

use crate::check::{CheckOptions, check, walk};
use crate::error::{CheckError, RecoverError};
use crate::finding::{Class, FindingKind};
use crate::repair;
use crate::report::Counts;
use crate::tables::Tables;

/// Makes an image that was not closed consistent, or refuses it and changes nothing.
///
/// A crash of a single writer leaves entries that name clusters the file never grew to, clusters
/// that nothing names, a last cluster that is cut off, and entries past the end of a disk that was
/// being resized. These are mended; NEED_CHECK is cleared last. On a block device, whose length
/// stays, no crash explains a last cluster that is cut off. All else (clusters named twice,
/// entries into metadata, entries without meaning) is corruption and refused. The caller holds the
/// image lock; the changes are durable when this returns.
///
/// In compat mode only the tables that the dirty bitmap marks are read, unless it leaves doubt: then
/// all are, and TABLE_DIRTY is cleared. Clusters that nothing names stay in the file.
///
/// # Errors
/// [`RecoverError::Corrupt`] with the findings, [`RecoverError::Check`] when the image could not be
/// checked or written.
pub fn recover(storage: &dyn Storage) -> Result<(), RecoverError> {
    if recover_marked(storage).map_err(RecoverError::Check)? {
        return Ok(());
    }
    let report = check(storage, &CheckOptions::default()).map_err(RecoverError::Check)?;
    if !is_crash_damage(&report.counts, storage.growth()) {
        return Err(RecoverError::Corrupt(Box::new(report)));
    }
    let report = repair::mend(storage, report).map_err(RecoverError::Check)?;
    if report.corruptions() > 0 {
        return Err(RecoverError::Corrupt(Box::new(report)));
    }
    Ok(())
}

/// Recovers by the marked tables alone; false, and nothing changed, if that does not suffice.
// spec: QED-DIRTY-07
fn recover_marked(storage: &dyn Storage) -> Result<bool, CheckError> {
    let tables = Tables::open(storage)?;
    let CrashLeft::DirtyTables(bits) = CrashLeft::read(storage, &tables.layout.header)? else {
        return Ok(false);
    };
    if has_foreign_table(&tables, &bits)? {
        return Ok(false);
    }
    let tables = Tables { marked: Some(&bits), ..tables };
    let counts = walk(&tables, &CheckOptions::default())?.log.counts;
    if !is_crash_damage(&counts, storage.growth()) {
        // The full check says what it is, and of which tables.
        return Ok(false);
    }
    let any_entry = counts.iter().any(|(_, count)| count > 0);
    repair::mend_marked(&tables, &bits, any_entry)?;
    Ok(true)
}

/// Whether an L1 slot without a mark names a table that was not there when marks were last cleared:
/// another program linked it.
// spec: QED-DIRTY-09
fn has_foreign_table(tables: &Tables<'_>, bits: &DirtyBits) -> Result<bool, CheckError> {
    let len = tables.layout.header.geometry().table_size_bytes();
    let mut found = false;
    tables.for_each_l1(|l1, value| {
        found |= !bits.contains(l1) && value.saturating_add(len) > bits.bitmap().epoch_size();
        Ok(())
    })?;
    Ok(found)
}

fn is_crash_damage(counts: &Counts, growth: Growth) -> bool {
    counts.iter().all(|(kind, count)| {
        let expected = match kind {
            FindingKind::L1PastEnd | FindingKind::L2PastEnd => true,
            // A device does not cut off what a crash left, and cannot grow to mend what it cuts off.
            FindingKind::L1InPartialTail | FindingKind::L2InPartialTail => growth == Growth::Zeros,
            _ => kind.class() != Class::Corruption,
        };
        count == 0 || expected
    })
}
