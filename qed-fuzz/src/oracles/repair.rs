//! A repair mends all, loses nothing that had a meaning, and finds nothing more to do.

use std::sync::Arc;

use qed_check::{
    CheckError, CheckOptions, Checked, Class, CrashLeft, Finding, FindingKind, RecoverError,
    Recovered, Repair, Report, check, recover, repair,
};
use qed_core::{BackingGate, OpenError, VirtualDisk};
use qed_io::{Growth, Storage};

use crate::branches::Branches;
use crate::oracles::compat::Kept;
use crate::oracles::reference::Reference;
use crate::oracles::validity::open_for_reading;
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// Bytes that are compared at each end of a cluster.
const COMPARED: u64 = 4096;

/// Repairs the image: nothing is left that a check calls a corruption, nothing is cut off that
/// an entry may have led to, a second repair gives back space at the most and a third changes nothing,
/// and the guest keeps every byte that an entry led to.
///
/// # Panics
/// If it is not so.
pub(crate) fn assert_repaired(
    storage: &Arc<SparseStorage>,
    reference: &Reference,
    gate: &dyn BackingGate,
    branches: &mut Branches,
) {
    let report = match repair_with_copies(storage) {
        Ok(report) => report,
        Err(CheckError::TooManyCopies { .. } | CheckError::TableOrData { .. }) => {
            assert_eq!(storage.content(), reference.content, "refused and changed");
            return;
        }
        Err(CheckError::Mode(_) | CheckError::Superblock(_)) => {
            assert_not_written(storage, reference);
            return;
        }
        // A device has no room for copies.
        Err(CheckError::NoSpace { .. }) if storage.growth() == Growth::Stale => return,
        Err(error) => panic!("{error:?}"),
    };
    for finding in &report.repaired.findings {
        branches.note("repair", finding.kind);
    }
    assert_mended(storage, &report, Space::Kept);
    let is_cut = storage.content().len() < reference.content.len();
    let mended = report.repaired.findings.iter().any(|finding| finding.kind.number() < 300);
    assert!(!is_cut || !mended && !reference.is_dirty, "cut off beside {:?}", report.repaired);
    assert_kept(storage, reference, gate);
    let space = repair(&**storage, Repair::All).expect("it could be repaired before");
    let is_space = |finding: &Finding| finding.kind.number() >= 300;
    assert!(space.repaired.findings.iter().all(is_space), "the second time: {:?}", space.repaired);
    assert_mended(storage, &space, Space::GivenBack);
    let after = storage.content();
    let again = repair(&**storage, Repair::All).expect("it could be repaired before");
    assert_eq!(again.repaired.counts, qed_check::Counts::default(), "the third time");
    assert_eq!(storage.content(), after, "a third repair changed something");
    assert_kept(storage, reference, gate);
}

/// Repairs all; on a device copies may wait for a second call.
fn repair_with_copies(storage: &SparseStorage) -> Result<Report, CheckError> {
    let report = repair(storage, Repair::All)?;
    let waits = storage.growth() == Growth::Stale
        && report.counts.iter().any(|(kind, count)| count > 0 && kind.number() < 300);
    if waits { repair(storage, Repair::All) } else { Ok(report) }
}

/// What became of leaks at the end of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    GivenBack,
    Kept,
}

/// Repairs leaks: an image with corruptions is left alone.
///
/// # Panics
/// If it is not.
pub(crate) fn assert_leaks_repaired(storage: &SparseStorage, reference: &Reference) {
    let before = check(storage, &CheckOptions::default()).expect("it could be checked before");
    let report = match repair(storage, Repair::Leaks) {
        Err(CheckError::Mode(_) | CheckError::Superblock(_)) => {
            assert_not_written(storage, reference);
            return;
        }
        report => report.expect("leaks can be repaired"),
    };
    if before.corruptions() > 0 {
        assert_eq!(report, before);
        assert_eq!(storage.content(), reference.content, "a corrupt image was changed");
    } else {
        assert_mended(storage, &report, Space::Kept);
        let space = repair(storage, Repair::Leaks).expect("leaks can be repaired");
        assert_mended(storage, &space, Space::GivenBack);
    }
}

/// Recovers the image: what a crash explains is mended, all else refused and left alone.
///
/// # Panics
/// If it is not.
pub(crate) fn assert_recovered(
    storage: &SparseStorage,
    reference: &Reference,
    branches: &mut Branches,
) {
    let before = check(storage, &CheckOptions::default()).expect("it could be checked before");
    let by_crash = |kind| {
        use FindingKind::{L1InPartialTail, L1PastEnd, L2InPartialTail, L2PastEnd};
        match kind {
            L1PastEnd | L2PastEnd => true,
            L1InPartialTail | L2InPartialTail => storage.growth() == Growth::Zeros,
            _ => false,
        }
    };
    let is_explained = before
        .counts
        .iter()
        .all(|(kind, count)| count == 0 || by_crash(kind) || kind.class() != Class::Corruption);
    // Marks are for after a crash.
    let kept = if reference.is_dirty { Kept::of(&reference.content) } else { Kept::Classic };
    let left = CrashLeft::read(storage, &reference.header).expect("it was read before");
    let recovered = recover(storage, &left);
    branches.note("recover", recovered.as_ref().map(drop));
    match recovered {
        Ok(Recovered { checked, .. }) => {
            let single = checked == Checked::DirtyTables;
            assert!(!single || kept.is_marked(), "tables without a bit are in doubt");
            let is_told = |finding: &Finding| {
                !is_explained_by_crash(finding, by_crash) && !kept.leaves(finding)
            };
            assert!(!before.findings.iter().any(is_told), "no crash leaves {:?}", before.findings);
            let report = check(storage, &CheckOptions::default()).expect("just mended");
            if kept.is_marked() {
                assert!(!report.dirty, "the mark is still set");
                let wrong = report.findings.iter().find(|finding| !kept.leaves(finding));
                assert_eq!(wrong, None, "left");
                return;
            }
            assert_mended(storage, &report, Space::Kept);
            if reference.is_dirty {
                assert!(storage.content().len() >= reference.content.len(), "cut off");
            }
        }
        Err(RecoverError::Corrupt(_)) => {
            assert!(!is_explained, "a crash leaves {:?}", before.findings);
            assert_eq!(storage.content(), reference.content, "refused and changed");
        }
        Err(RecoverError::Check(CheckError::TooManyCopies { .. })) => {}
        Err(RecoverError::Check(CheckError::Mode(_) | CheckError::Superblock(_))) => {
            assert_not_written(storage, reference);
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Nobody knows how to write the image.
fn assert_not_written(storage: &SparseStorage, reference: &Reference) {
    assert_eq!(Kept::of(&reference.content), Kept::Unknown);
    assert_eq!(storage.content(), reference.content, "refused and changed");
}

fn is_explained_by_crash(finding: &Finding, by_crash: impl Fn(FindingKind) -> bool) -> bool {
    by_crash(finding.kind) || finding.kind.class() != Class::Corruption
}

/// No corruption, no mark, and where `space` was given back no leak that could be.
fn assert_mended(storage: &SparseStorage, report: &Report, space: Space) {
    let mut checked = check(storage, &CheckOptions::default()).expect("just mended");
    // A block device cannot grow to the end of a cluster that it cuts off.
    let cut_off = match storage.growth() {
        Growth::Zeros => 0,
        Growth::Stale => {
            checked.counts.of(FindingKind::L1InPartialTail)
                + checked.counts.of(FindingKind::L2InPartialTail)
        }
    };
    assert_eq!(checked.corruptions(), cut_off, "{:?}", checked.findings);
    assert!(!checked.dirty || cut_off > 0, "the mark is still set");
    assert_eq!(checked.counts, report.counts);
    let entries = checked.counts.of(FindingKind::L1BeyondImage)
        + checked.counts.of(FindingKind::L2BeyondImage);
    let at_end = checked.counts.of(FindingKind::LeakAtEnd)
        + checked.counts.of(FindingKind::UnusedPartialTail);
    let left = entries + if space == Space::GivenBack { at_end } else { 0 };
    checked.findings.retain(|finding| finding.kind != FindingKind::LeakInside);
    assert!(left == 0 || storage.growth() == Growth::Stale, "left: {:?}", checked.findings);
}

/// Each guest cluster whose entry led somewhere still has its bytes; all others are unallocated.
fn assert_kept(storage: &Arc<SparseStorage>, reference: &Reference, gate: &dyn BackingGate) {
    let image = match open_for_reading(storage, gate) {
        Ok(image) => image,
        Err(OpenError::BackingName(_)) => return,
        Err(error) => panic!("repaired, and does not open: {error:?}"),
    };
    let unit = reference.cluster;
    for table in reference.tables.iter().filter(|table| table.slot < reference.l1_slots()) {
        for (slot, value) in &table.entries {
            let start = table.slot * reference.coverage + slot * unit;
            if start >= reference.image_size {
                continue;
            }
            let end = (start + unit).min(reference.image_size);
            let kept = reference.kept_data(*value);
            let is_cut_off = value.saturating_add(unit) > reference.content.len();
            if kept.is_some() && is_cut_off && storage.growth() == Growth::Stale {
                continue;
            }
            for at in [start, end.saturating_sub(COMPARED).max(start)] {
                let len = (end - at).min(COMPARED);
                let host = kept.map(|cluster| cluster * unit + (at - start));
                // Without a backing file zeros and unallocated clusters read alike.
                let expected = match host {
                    Some(host) => reference.content.bytes(host..host + len),
                    None => vec![0; usize_of(len)],
                };
                let mut found = vec![0xee; usize_of(len)];
                let read = VirtualDisk::read_at(&image, &mut found, at);
                assert!(read.is_ok(), "reading {at:#x} of a repaired image: {read:?}");
                assert!(found == expected, "entry {value:#x}: other bytes at {at:#x}");
            }
        }
    }
}
