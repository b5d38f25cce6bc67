//! Repair: the steps in their order, each of which may be the last one before a crash.
//!
//! 1. Mark: clear unknown autoclear bits, set NEED_CHECK; flush.
//! 2. Clear entries that name nothing that could be theirs (`clear`); flush. Only now may the file
//!    grow: an entry past its end would otherwise come to name what is put there.
//! 3. Fit the length of the file to what is named, downwards (leaks) or upwards (partial tail);
//!    flush.
//! 4. Give every L2 table that is named twice, then every data cluster that is named twice, a copy
//!    of its own (`copies`): copy, flush, repoint, flush.
//! 5. Check again. Without a corruption: fit the length again, flush, clear NEED_CHECK, flush.
//!
//! After a crash in between, NEED_CHECK is set, every entry names what it named before or a copy of
//! it, and a second repair goes on.

mod clear;
mod copies;
mod write;

use qed_io::{Growth, Storage};
use qed_spec::{AutoclearFeatures, ConsistencyMode, Features, SectionType, SuperblockChoice};

use crate::check::{CheckOptions, check};
use crate::error::CheckError;
use crate::finding::{Finding, FindingKind};
use crate::layout::Data;
use crate::marks::Marks;
use crate::report::{Repaired, Report};
use crate::superblock::read_copies;
use crate::tables::{PieceBuffer, Tables};

/// What a repair may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Leaks only, and only in an image without corruptions: in a corrupt one it is not known what
    /// is leaked.
    Leaks,
    /// All that can be repaired.
    All,
}

/// Repairs the image and reports on what is left, and in [`Report::repaired`] on what is not.
///
/// - Entries that are unaligned or name the header area, a table or what lies past the end of the
///   file become unallocated. So do entries past the end of the virtual disk.
/// - Of two entries that name one data cluster or overlapping L2 tables, the first in guest order
///   keeps it and the later one gets a copy of its own.
/// - A file that cuts off a cluster in use grows to its end; on a block device, which cannot, this
///   and NEED_CHECK are left.
/// - Leaks at the end of the file are cut off; those inside are reported.
/// - NEED_CHECK is cleared when no corruption remains.
///
/// The caller holds the image lock. Repairing is idempotent, safe under a crash at any moment, and
/// writes nothing where nothing is to be done; changes are durable when this returns. Before the
/// first write, unknown autoclear feature bits are cleared.
///
/// # Errors
/// As [`check`], before anything is changed; [`CheckError::TooManyCopies`] and
/// [`CheckError::Superblock`], also before;
/// [`CheckError::NoSpace`] and the storage's errors at any point, the image then being no worse.
// spec: QED-CHK-04, QED-CHK-05, QED-CHK-06, QED-CHK-07
pub fn repair(storage: &dyn Storage, what: Repair) -> Result<Report, CheckError> {
    let before = check(storage, &CheckOptions::default())?;
    if what == Repair::Leaks && before.corruptions() > 0 {
        return Ok(before);
    }
    mend(storage, before)
}

/// Mends what a crash left in the marked tables that `tables` looks at: entries past the end of the
/// file, and a file that cuts off its last cluster. Then clears NEED_CHECK and the marks, in this
/// order; durable when it returns.
// spec: QED-DIRTY-04, QED-DIRTY-07
pub(crate) fn mend_marked(
    tables: &Tables<'_>,
    marks: &Marks,
    any_entry: bool,
) -> Result<(), CheckError> {
    if any_entry {
        clear::run(tables)?;
    }
    let layout = &tables.layout;
    let whole = layout.offset_of(layout.clusters).get();
    if whole != layout.file_len && tables.storage.growth() == Growth::Zeros {
        write::set_len(tables.storage, whole)?;
    }
    write::unmark(tables)?;
    let (at, len) = marks.place();
    write::write(tables.storage, &vec![0; len], at)?;
    write::flush(tables.storage)
}

/// Repairs all that can be repaired of an image that a check just found to be as `before` says.
pub(crate) fn mend(storage: &dyn Storage, before: Report) -> Result<Report, CheckError> {
    let entries = before.counts.iter().any(|(kind, count)| count > 0 && !is_about_space(kind));
    let space = before.counts.of(FindingKind::LeakAtEnd) > 0
        || before.counts.of(FindingKind::UnusedPartialTail) > 0;
    if !entries && !space && !before.dirty {
        return Ok(before);
    }
    let tables = Tables::open(storage)?;
    refuse_undecided(&tables)?;
    copies::refuse_too_many(&tables, &before)?;
    write::mark(&tables, before.dirty || entries)?;
    if entries {
        clear::run(&tables)?;
        let end = fit_length(&Tables::open(storage)?)?;
        copies::run(storage, end)?;
    }
    let mut after = check(storage, &CheckOptions::default())?;
    if after.corruptions() == 0 {
        fit_length(&Tables::open(storage)?)?;
        write::unmark(&Tables::open(storage)?)?;
        after = check(storage, &CheckOptions::default())?;
    }
    after.repaired = repaired(before, &after);
    Ok(after)
}

/// Refuses an image whose superblock copies do not say which of them is current, and one in a mode
/// that is not known.
// spec: QED-SB-04, QED-SB-10, QED-MODE-01
fn refuse_undecided(tables: &Tables<'_>) -> Result<(), CheckError> {
    let Some([a, b]) = read_copies(tables.storage, &tables.layout)? else { return Ok(()) };
    let choice = SuperblockChoice::new(&a, &b)?;
    let current = choice.current().map(|(_, current)| current);
    if let Some(mode) = current.and_then(|current| current.section(SectionType::MODE)) {
        ConsistencyMode::parse(mode.payload())?;
    }
    Ok(())
}

fn is_about_space(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::LeakAtEnd | FindingKind::LeakInside | FindingKind::UnusedPartialTail
    )
}

fn repaired(before: Report, after: &Report) -> Repaired {
    let counts = before.counts.gone_in(&after.counts);
    let gone = |finding: &Finding| counts.of(finding.kind) > 0 && !after.findings.contains(finding);
    let findings = before.findings.into_iter().filter(gone).collect();
    Repaired { counts, findings }
}

/// Sets the length of the file to the end of the last cluster that anything names and returns that
/// cluster's end, counted in clusters. On a block device, where only the latter can be had, the
/// length stays.
///
/// What lies beyond is named by no table, not even by one that another table overlaps.
// spec: QED-CHK-06
fn fit_length(tables: &Tables<'_>) -> Result<u64, CheckError> {
    let layout = &tables.layout;
    let mut end = layout.header_area().end.max(layout.l1_table().end);
    let mut buffer = PieceBuffer::default();
    tables.for_each_l1(|l1, value| {
        let Ok(Some(table)) = layout.table(value) else {
            return Ok(());
        };
        end = end.max(table.end);
        tables.for_each(tables.l2_pieces(l1, table.start), &mut buffer, |_, value| {
            if let Ok(Data::Cluster(cluster)) = layout.data(value) {
                end = end.max(cluster + 1);
            }
            Ok(())
        })
    })?;
    let len = layout.offset_of(end).get();
    if len != layout.file_len && tables.storage.growth() == Growth::Zeros {
        // What unnamed these bytes must be durable before they are gone.
        write::flush(tables.storage)?;
        write::set_len(tables.storage, len)?;
        write::flush(tables.storage)?;
    }
    Ok(end)
}

/// The header's features as a repair leaves them while it runs and when it is done.
fn features(tables: &Tables<'_>, dirty: bool) -> (Features, AutoclearFeatures) {
    let mut features = tables.layout.header.features();
    features.set(Features::NEED_CHECK, dirty);
    // spec: QED-CONV-03
    features.remove(Features::CONVERSION_HOLD);
    // Where only marked tables are looked at the bitmap goes on; else what it says is over.
    let kept = match tables.marked {
        Some(_) => AutoclearFeatures::TABLE_DIRTY,
        None => AutoclearFeatures::empty(),
    };
    (features, tables.layout.header.fields().autoclear_features & kept)
}
