//! Recovery of an image that its last writer did not close.
//!
//! Owns the judgement whether a crash of a single writer explains what is found. Which tables are in
//! doubt is decided by the open; the mending is `repair`'s.

use std::error::Error;

use qed_io::{Growth, Storage};
use qed_layout::{Checked, CrashLeft, DirtyBits, Recovered};

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
/// Where single tables were `left` in doubt only these are read, unless what they hold leaves more: then
/// all are, and TABLE_DIRTY is cleared. Clusters that nothing names stay in the file.
///
/// # Errors
/// [`RecoverError::Corrupt`] with the findings, [`RecoverError::Check`] when the image could not be
/// checked or written.
pub fn recover(storage: &dyn Storage, left: &CrashLeft) -> Result<Recovered, RecoverError> {
    if let CrashLeft::DirtyTables(bits) = left
        && let Some(mended) = recover_marked(storage, bits).map_err(RecoverError::Check)?
    {
        return Ok(Recovered { checked: Checked::DirtyTables, mended });
    }
    let report = check(storage, &CheckOptions::default()).map_err(RecoverError::Check)?;
    if !is_crash_damage(&report.counts, storage.growth()) {
        return Err(RecoverError::Corrupt(Box::new(report)));
    }
    let report = repair::mend(storage, report).map_err(RecoverError::Check)?;
    if report.corruptions() > 0 {
        return Err(RecoverError::Corrupt(Box::new(report)));
    }
    let mended = report.repaired.counts.iter().map(|(_, count)| count).sum();
    Ok(Recovered { checked: Checked::AllTables, mended })
}

/// [`recover`] as what an open image asks for.
///
/// # Errors
/// [`RecoverError`].
pub fn recovery_hook(
    storage: &dyn Storage,
    left: &CrashLeft,
) -> Result<Recovered, Box<dyn Error + Send + Sync>> {
    Ok(recover(storage, left)?)
}

/// Recovers by the tables with a dirty bit alone, and says how much was mended; `None`, and nothing
/// changed, if that does not suffice.
// spec: QED-DIRTY-07
fn recover_marked(storage: &dyn Storage, bits: &DirtyBits) -> Result<Option<u64>, CheckError> {
    let tables = Tables::open(storage)?;
    // Believed is what the image says now, whatever the caller has read and when.
    let is_left = match CrashLeft::read(storage, &tables.layout.header)? {
        CrashLeft::DirtyTables(found) => found == *bits,
        CrashLeft::AllTables => false,
    };
    if !is_left || has_foreign_table(&tables, bits)? {
        return Ok(None);
    }
    let tables = Tables { marked: Some(bits), ..tables };
    let counts = walk(&tables, &CheckOptions::default())?.log.counts;
    if !is_crash_damage(&counts, storage.growth()) {
        // The full check says what it is, and of which tables.
        return Ok(None);
    }
    let found = counts.iter().map(|(_, count)| count).sum();
    repair::mend_marked(&tables, bits, found > 0)?;
    Ok(Some(found))
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
