//! Thousands of damaged images: the check against the reference, the repair against the guest.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use qed_check::{CheckError, CheckOptions, Class, FindingKind, Place, Repair, check, repair};

use crate::image::{CLUSTER, GuestCluster, TestImage, damaged};
use crate::reference;

// spec-test: QED-CHK-01, QED-CHK-02, QED-CHK-03, QED-TBL-08, QED-TBL-09
#[test]
fn check_finds_what_the_reference_finds_on_any_number_of_threads() {
    let mut seen = HashMap::<FindingKind, u64>::new();
    for seed in 0..4000 {
        let image = damaged(seed);
        let expected = reference::findings(&image);
        expected.iter().for_each(|finding| *seen.entry(finding.kind).or_default() += 1);
        let mut options = CheckOptions::default();
        options.findings_limit = usize::MAX;
        options.threads = NonZeroUsize::new(1 + usize::try_from(seed % 8 / 7 * 3).unwrap());
        let report = check(&*image.storage(), &options).unwrap();
        assert_eq!(report.findings, expected, "seed {seed}");
        options.findings_limit = 3;
        let short = check(&*image.storage(), &options).unwrap();
        assert_eq!(short.counts, report.counts, "seed {seed}");
        assert_eq!(short.findings, expected[..expected.len().min(3)], "seed {seed}");
    }
    for kind in FindingKind::ALL {
        assert!(seen.get(kind).copied().unwrap_or(0) >= 10, "{kind:?} is hardly tried: {seen:?}");
    }
}

// spec-test: QED-CHK-04, QED-CHK-05, QED-CHK-06, QED-CHK-07, QED-CHK-08
#[test]
fn repair_keeps_what_the_guest_sees_and_leaves_nothing_to_repair() {
    let (mut repaired, mut refused) = (0, 0);
    for seed in 0..1500 {
        let image = damaged(seed);
        let before = image.check();
        let storage = image.storage();
        let report = match repair(&*storage, Repair::All) {
            Err(CheckError::TooManyCopies { .. } | CheckError::TableOrData { .. }) => {
                assert_eq!(storage.to_vec(), image.bytes, "seed {seed}");
                refused += 1;
                continue;
            }
            other => other.unwrap(),
        };
        repaired += u64::from(!before.is_clean());
        let after = image.with_bytes(storage.to_vec());
        assert_repaired(&image, &after, seed);
        assert_eq!(after.check().counts, report.counts, "seed {seed}");
        let has_entries = before.counts.iter().any(|(kind, count)| count > 0 && is_entry(kind));
        for (kind, count) in before.counts.iter() {
            let can_go = is_entry(kind) || !has_entries;
            let left = if can_go { report.counts.of(kind) } else { count };
            let expected = count.saturating_sub(left);
            assert_eq!(report.repaired.counts.of(kind), expected, "seed {seed} {kind:?}");
        }
        if has_entries {
            assert_eq!(report.repaired.kept_clusters, report.unnamed_clusters());
            assert_unnamed_kept(&image, &after, seed);
        }

        let space = repair(&*storage, Repair::Leaks).unwrap();
        assert_eq!(space.repaired.kept_clusters, 0);
        let ends_in_use =
            |(kind, count): (FindingKind, u64)| count == 0 || kind == FindingKind::LeakInside;
        assert!(space.counts.iter().all(ends_in_use), "seed {seed}: {:?}", space.findings);
        let cut = image.with_bytes(storage.to_vec());
        assert!(has_entries || cut.bytes == after.bytes, "seed {seed}");
        assert_repaired(&image, &cut, seed);

        let again = repair(&*storage, Repair::All).unwrap();
        assert_eq!(storage.to_vec(), cut.bytes, "seed {seed}");
        assert!(again.repaired.findings.is_empty());
    }
    assert!(repaired > 700, "{repaired} images had anything to repair");
    assert!(refused < 150, "{refused} repairs were refused");
}

fn is_entry(kind: FindingKind) -> bool {
    use FindingKind::{LeakAtEnd, LeakInside, UnusedPartialTail};
    !matches!(kind, LeakAtEnd | LeakInside | UnusedPartialTail)
}

/// Asserts that what nothing names after a repair is there, with the bytes that it had. A table whose
/// entries were cleared before it got a copy is none of that.
fn assert_unnamed_kept(before: &TestImage, after: &TestImage, seed: u64) {
    assert!(after.bytes.len() >= before.bytes.len(), "seed {seed}: cut");
    let tables = (0..before.entries()).filter_map(|l1| before.table_of(l1));
    let in_tables: HashSet<u64> =
        tables.flat_map(|first| first..first + before.table_clusters).collect();
    for finding in after.check().findings {
        let Place::Clusters { at, count } = finding.place else { continue };
        let first = at.get() / CLUSTER;
        for cluster in (first..first + count).filter(|cluster| !in_tables.contains(cluster)) {
            let byte = |byte: u64| usize::try_from(byte).unwrap().min(before.bytes.len());
            let range = byte(cluster * CLUSTER)..byte((cluster + 1) * CLUSTER);
            assert!(after.bytes[range.clone()] == before.bytes[range], "seed {seed}: {finding}");
        }
    }
}

/// Asserts that `after` is sound and that the guest sees in it what it saw in `before`, but for
/// entries that could not be right.
pub(crate) fn assert_repaired(before: &TestImage, after: &TestImage, context: u64) {
    let report = after.check();
    for (kind, count) in report.counts.iter() {
        let may_stay = !is_entry(kind);
        assert!(count == 0 || may_stay, "{context}: {kind:?} stays: {:?}", report.findings);
    }
    assert_eq!(report.counts.of_class(Class::Corruption), 0);
    assert!(!report.dirty, "{context}");
    let reachable = 6 * before.entries();
    let (old, new) = (before.guest(reachable), after.guest(reachable));
    for (cluster, (old, new)) in (0..).zip(old.into_iter().zip(new)) {
        let is_cleared = old == GuestCluster::Wrong || cluster >= before.image_clusters();
        let expected = if is_cleared { GuestCluster::Unallocated } else { old };
        assert!(new == expected, "{context}: guest cluster {cluster} changed");
    }
}
