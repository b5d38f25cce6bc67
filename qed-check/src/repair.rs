//! Repair: the steps in their order, each of which may be the last one before a crash.
//!
//! What has entries to mend, or was not closed, is mended and keeps its length:
//!
//! 1. Mark: clear unknown autoclear bits, set NEED_CHECK; flush.
//! 2. Clear entries that name nothing that could be theirs (`clear`); flush. Only now may the file
//!    grow: an entry past its end would otherwise come to name what is put there.
//! 3. Let the file cover a last cluster that is in use and that it cuts off; flush.
//! 4. Give every L2 table that is named twice, then every data cluster that is named twice, a copy
//!    of its own behind the end of the file (`copies`): copy, flush, repoint, flush.
//! 5. Check again. Without a corruption: flush, clear NEED_CHECK, flush.
//!
//! After a crash in between, NEED_CHECK is set, every entry names what it named before or a copy of
//! it, and a second repair goes on.
//!
//! Only where nothing of that is to be done, leaks are cut off and punched (`space`).
//!
//! **Invariant:** a repair that changes an entry cuts nothing off, and neither does the one that goes
//! on after a crash: what a broken entry led to is still in the file, and only tables say what is.

mod clear;
mod contested;
mod copies;
mod space;
mod write;

use qed_io::{Growth, Storage};
use qed_layout::{DirtyBits, SuperblockBytes};
use qed_spec::{AutoclearFeatures, ConsistencyMode, Features, SectionType};

use crate::check::{CheckOptions, check};
use crate::error::CheckError;
use crate::finding::{Finding, FindingKind};
use crate::report::{Repaired, Report};
use crate::tables::Tables;

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
/// - Entries that are unaligned or name the header area, the L1 table or what lies past the end of
///   the file become unallocated. So do entries past the end of the virtual disk.
/// - Of two entries that name one data cluster or overlapping L2 tables, the first in guest order
///   keeps it and the later one gets a copy of its own. So does an L2 entry that names a cluster of an
///   L2 table.
/// - A file that cuts off a cluster in use grows to its end; on a block device, which cannot, this
///   and NEED_CHECK are left.
/// - Leaks at the end of the file are cut off and those inside are punched, but only where nothing
///   else is to be done: a repair that changes an entry or clears NEED_CHECK keeps them, see
///   [`Repaired::kept_clusters`], and the next one gives them back. Leaks inside stay leaks, which take
///   no space then where the storage has holes ([`Repaired::punched_bytes`]). Free space is no leak.
/// - NEED_CHECK is cleared when no corruption remains.
///
/// The caller holds the image lock. Repairing is idempotent, safe under a crash at any moment, and
/// writes nothing where nothing is to be done; changes are durable when this returns. Before the
/// first write, unknown autoclear feature bits are cleared.
///
/// # Errors
/// As [`check`], before anything is changed; [`CheckError::TooManyCopies`],
/// [`CheckError::TableOrData`] and [`CheckError::Superblock`], also before;
/// [`CheckError::NoSpace`] and the storage's errors at any point, the image then being no worse.
// spec: QED-CHK-04, QED-CHK-05, QED-CHK-06, QED-CHK-07, QED-CHK-08, QED-CHK-09
pub fn repair(storage: &dyn Storage, what: Repair) -> Result<Report, CheckError> {
    let before = check(storage, &CheckOptions::default())?;
    if what == Repair::Leaks && before.corruptions() > 0 {
        return Ok(before);
    }
    mend(storage, before)
}

/// Mends what a crash left in the marked tables that `tables` looks at: entries past the end of the
/// file, and a file that cuts off its last cluster. Then clears NEED_CHECK and the dirty bits, in this
/// order; durable when it returns.
// spec: QED-DIRTY-04, QED-DIRTY-07
pub(crate) fn mend_marked(
    tables: &Tables<'_>,
    bits: &DirtyBits,
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
    let (at, len) = (bits.bitmap().offset().get(), bits.bitmap().len_bytes());
    let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    write::write(tables.storage, &zeros, at)?;
    write::flush(tables.storage)
}

/// Repairs all that can be repaired of an image that a check just found to be as `before` says.
pub(crate) fn mend(storage: &dyn Storage, before: Report) -> Result<Report, CheckError> {
    let entries = before.counts.iter().any(|(kind, count)| count > 0 && !is_about_space(kind));
    let space = before.counts.iter().any(|(kind, count)| count > 0 && is_about_space(kind));
    if !entries && !space && !before.dirty {
        return Ok(before);
    }
    let tables = Tables::open(storage)?;
    refuse_undecided(&tables)?;
    let gives_back = !entries && !before.dirty;
    let mut punched_bytes = 0;
    let mut after = if entries {
        copies::refuse_too_many(&tables, &before)?;
        contested::refuse(&tables)?;
        write::mark(&tables, true)?;
        mend_entries(&tables, &before)?;
        check(storage, &CheckOptions::default())?
    } else if gives_back {
        write::mark(&tables, false)?;
        let end = match tables.space.is_free {
            // What nothing names is free space; what is no whole cluster is not.
            true => tables.layout.whole_clusters,
            false => space::named_end(&tables)?,
        };
        space::end_file_at(&tables, end)?;
        punched_bytes = space::punch_leaks(&Tables::open(storage)?)?;
        check(storage, &CheckOptions::default())?
    } else {
        before.clone()
    };
    if !gives_back && after.corruptions() == 0 {
        write::unmark(&Tables::open(storage)?)?;
        after.dirty = Tables::open(storage)?.layout.is_dirty();
    }
    after.repaired = Repaired { punched_bytes, ..repaired(before, &after, gives_back) };
    Ok(after)
}

/// Steps 2 to 4.
// spec: QED-CHK-08
fn mend_entries(tables: &Tables<'_>, before: &Report) -> Result<(), CheckError> {
    // A device has no space for copies but what nothing names; what an entry names that is about to
    // be cleared is not such space.
    let device_end = match tables.storage.growth() {
        Growth::Stale => Some(device_end(tables)?),
        Growth::Zeros => None,
    };
    clear::run(tables)?;
    if device_end.is_some() && before.counts.iter().any(|(kind, n)| n > 0 && loses_table(kind)) {
        // Nor is what a lost table led to. The next repair makes the copies.
        return Ok(());
    }
    let named = space::named_end(tables)?;
    if tables.layout.offset_of(named).get() > tables.layout.file_len {
        space::end_file_at(tables, named)?;
    }
    copies::run(tables.storage, device_end.unwrap_or(tables.layout.clusters))
}

/// The cluster of a device behind all that is named or was handed out.
fn device_end(tables: &Tables<'_>) -> Result<u64, CheckError> {
    Ok(tables.space.end(&(space::named_end(tables)?..tables.layout.clusters)))
}

/// Refuses an image whose superblock copies do not say which of them is current, and one in a mode
/// that is not known.
// spec: QED-SB-04, QED-SB-10, QED-MODE-01
fn refuse_undecided(tables: &Tables<'_>) -> Result<(), CheckError> {
    let header = &tables.layout.header;
    let Some(bytes) = SuperblockBytes::read(tables.storage, header)? else { return Ok(()) };
    let choice = bytes.choose()?;
    let current = choice.current().map(|(_, current)| current);
    if let Some(mode) = current.and_then(|current| current.section(SectionType::MODE)) {
        ConsistencyMode::parse(mode.payload())?;
    }
    Ok(())
}

/// Whether mending a finding of this kind unnames a table that nobody can find.
fn loses_table(kind: FindingKind) -> bool {
    use FindingKind::{L1IntoHeader, L1IntoL1Table, L1PastEnd, L1Unaligned};
    matches!(kind, L1Unaligned | L1PastEnd | L1IntoHeader | L1IntoL1Table)
}

fn is_about_space(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::LeakAtEnd | FindingKind::LeakInside | FindingKind::UnusedPartialTail
    )
}

fn repaired(before: Report, after: &Report, gives_back: bool) -> Repaired {
    // A leak that copies were put behind is no longer at the end, and there all the same.
    let counts = before.counts.gone_in(&after.counts, |kind| gives_back || !is_about_space(kind));
    let gone = |finding: &Finding| counts.of(finding.kind) > 0 && !after.findings.contains(finding);
    let findings = before.findings.into_iter().filter(gone).collect();
    let kept_clusters = if gives_back { 0 } else { after.unnamed_clusters() };
    Repaired { counts, findings, kept_clusters, punched_bytes: 0 }
}

/// The header's features as a repair leaves them while it runs and when it is done.
fn features(tables: &Tables<'_>, dirty: bool) -> (Features, AutoclearFeatures) {
    let mut features = tables.layout.header.features();
    features.set(Features::NEED_CHECK, dirty);
    // spec: QED-CONV-03
    features.remove(Features::CONVERSION_HOLD);
    // Where only marked tables are looked at bitmap and end of a device go on; else what they say is
    // over.
    let is_device = tables.storage.growth() == Growth::Stale;
    // An owner that did not close the image stays: the next writer looks for what that one left.
    // spec: QED-PEND-06
    let mut kept = AutoclearFeatures::OWNED;
    kept.set(AutoclearFeatures::TABLE_DIRTY, tables.marked.is_some());
    kept.set(AutoclearFeatures::PHYSICAL_SIZE, tables.marked.is_some() && is_device);
    (features, tables.layout.header.fields().autoclear_features & kept)
}
