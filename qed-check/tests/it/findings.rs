//! One image for each finding: the number, the places, the counters and what a repair makes of it.

use qed_check::{Finding, FindingKind as Kind, Place, Repair, repair};
use qed_spec::{HostOffset, L1Index, L2Index};

use crate::image::{CLUSTER, TestImage};

const FILE_END: u64 = 8 * CLUSTER;

fn l1(slot: u64) -> Place {
    Place::L1Slot { l1: L1Index::new(slot), at: HostOffset::new(CLUSTER + slot * 8) }
}

/// A slot of the sample's table at cluster 2 or 3.
fn l2(slot_of_l1: u64, slot: u64) -> Place {
    let at = HostOffset::new((2 + slot_of_l1) * CLUSTER + slot * 8);
    Place::L2Slot { l1: L1Index::new(slot_of_l1), l2: L2Index::new(slot), at }
}

fn clusters(first: u64, count: u64) -> Place {
    Place::Clusters { at: HostOffset::new(first * CLUSTER), count }
}

/// A change to the sample image, and the findings it must lead to.
type Case = (u16, fn(&mut TestImage), Vec<(Kind, Place, u64, Option<Place>)>);

#[track_caller]
fn check_case((number, damage, expected): Case) {
    let mut image = TestImage::sample();
    assert!(image.check().is_clean());
    damage(&mut image);
    let expected: Vec<Finding> = expected
        .into_iter()
        .map(|(kind, place, value, first)| Finding { kind, place, value, first })
        .collect();
    assert!(expected.iter().any(|f| f.kind.number() == number), "{number} is not among them");
    let report = image.check();
    assert_eq!(report.findings, expected, "case {number}");
    assert!(!report.is_clean(), "case {number}");

    let storage = image.storage();
    let first = repair(&*storage, Repair::All).unwrap();
    // Space is given back by a call of its own.
    let second = repair(&*storage, Repair::Leaks).unwrap();
    let has_entry = expected.iter().any(|finding| finding.kind.number() < 300);
    for finding in &expected {
        let is_left = second.counts.of(finding.kind) > 0;
        assert_eq!(is_left, !finding.kind.can_repair(), "case {number}: {finding}");
        let is_listed = first.repaired.findings.contains(finding);
        let is_due = finding.kind.number() < 300 || !has_entry;
        assert_eq!(is_listed, is_due && finding.kind.can_repair(), "case {number}: {finding}");
    }
}

fn l1_cases() -> Vec<Case> {
    // Slot 1 names a table with one data cluster: when the slot is wrong, both are leaks.
    let leaks = vec![(Kind::LeakInside, clusters(3, 1), 0, None)];
    let tail = vec![(Kind::LeakAtEnd, clusters(7, 1), 0, None)];
    let lost = |finding| [vec![finding], leaks.clone(), tail.clone()].concat();
    vec![
        (101, |i| i.set_l1(1, 3 * CLUSTER + 1), lost((Kind::L1Unaligned, l1(1), 12289, None))),
        (101, |i| i.set_l1(1, 1), lost((Kind::L1Unaligned, l1(1), 1, None))),
        (102, |i| i.set_l1(1, FILE_END), lost((Kind::L1PastEnd, l1(1), FILE_END, None))),
        (102, |i| i.set_l1(1, !4095), lost((Kind::L1PastEnd, l1(1), !4095, None))),
        (
            105,
            |i| i.set_l1(1, CLUSTER),
            lost((Kind::L1IntoL1Table, l1(1), CLUSTER, Some(Place::L1Table))),
        ),
        (
            106,
            |i| i.set_l1(1, 2 * CLUSTER),
            lost((Kind::L1SharedTable, l1(1), 2 * CLUSTER, Some(l1(0)))),
        ),
        (
            103,
            |i| {
                i.bytes.extend([0; 100]);
                i.set_l1(1, FILE_END);
            },
            [
                vec![(Kind::L1InPartialTail, l1(1), FILE_END, None)],
                vec![
                    (Kind::LeakInside, clusters(3, 1), 0, None),
                    (Kind::LeakInside, clusters(7, 1), 0, None),
                ],
            ]
            .concat(),
        ),
        (
            108,
            |i| {
                i.set_l1(2, 3 * CLUSTER);
                i.set_l1(1, 0);
            },
            vec![(Kind::L1BeyondImage, l1(2), 3 * CLUSTER, None)],
        ),
    ]
}

fn l2_cases() -> Vec<Case> {
    // Slot 5 of the first table names cluster 6: when the slot is wrong, the cluster is a leak.
    let leak = (Kind::LeakInside, clusters(6, 1), 0, None);
    let lost = |finding| vec![finding, leak];
    vec![
        (
            201,
            |i| i.set_l2(2, 5, 6 * CLUSTER + 2),
            lost((Kind::L2Unaligned, l2(0, 5), 24578, None)),
        ),
        (201, |i| i.set_l2(2, 7, 3), vec![(Kind::L2Unaligned, l2(0, 7), 3, None)]),
        (202, |i| i.set_l2(2, 5, FILE_END), lost((Kind::L2PastEnd, l2(0, 5), FILE_END, None))),
        (
            203,
            |i| {
                i.bytes.extend([7; 100]);
                i.set_l2(2, 5, FILE_END);
            },
            lost((Kind::L2InPartialTail, l2(0, 5), FILE_END, None)),
        ),
        (
            204,
            |i| {
                i.bytes[12] = 2;
                i.set(40, 8 * CLUSTER);
                i.bytes.extend_from_within(4096..8192);
                i.set_l2(2, 5, CLUSTER);
            },
            lost((Kind::L2IntoHeader, l2(0, 5), CLUSTER, Some(Place::HeaderArea))),
        ),
        (
            205,
            |i| i.set_l2(2, 5, CLUSTER),
            lost((Kind::L2IntoL1Table, l2(0, 5), CLUSTER, Some(Place::L1Table))),
        ),
        (
            206,
            |i| i.set_l2(2, 5, 3 * CLUSTER),
            lost((Kind::L2IntoL2Table, l2(0, 5), 3 * CLUSTER, Some(l1(1)))),
        ),
        (
            207,
            |i| i.set_l2(2, 5, 7 * CLUSTER),
            vec![(Kind::L2Duplicate, l2(1, 0), 7 * CLUSTER, Some(l2(0, 5))), leak],
        ),
        (208, |i| i.set_l2(3, 88, 1), vec![(Kind::L2BeyondImage, l2(1, 88), 1, None)]),
    ]
}

fn file_cases() -> Vec<Case> {
    vec![
        (301, |i| i.bytes.extend([9; 2 * 4096]), vec![(Kind::LeakAtEnd, clusters(8, 2), 0, None)]),
        (302, |i| i.set_l2(2, 1, 0), vec![(Kind::LeakInside, clusters(5, 1), 0, None)]),
        (
            303,
            |i| i.bytes.extend([9; 4097]),
            vec![
                (Kind::LeakAtEnd, clusters(8, 1), 0, None),
                (Kind::UnusedPartialTail, clusters(9, 1), 0, None),
            ],
        ),
    ]
}

// spec-test: QED-CHK-01, QED-CHK-02, QED-CHK-03, QED-CHK-05, QED-TBL-02, QED-TBL-04, QED-TBL-05, QED-TBL-07
#[test]
fn each_rule_is_found_named_counted_and_mended() {
    l1_cases().into_iter().chain(l2_cases()).chain(file_cases()).for_each(check_case);
}

// spec-test: QED-TBL-06, QED-TBL-08
#[test]
fn tables_of_several_clusters_in_the_header_or_over_each_other_are_found() {
    for (first, kind, owner) in [
        (1, Kind::L1IntoL1Table, Some(Place::L1Table)),
        (2, Kind::L1IntoL1Table, Some(Place::L1Table)),
        (4, Kind::L1OverlapsTable, Some(l1(0))),
        (3, Kind::L1SharedTable, Some(l1(0))),
    ] {
        let mut image = TestImage::new(2, 2000, 7);
        image.table(0, 3);
        image.clear(5, 2);
        image.set_l1(1, first * CLUSTER);
        let value = first * CLUSTER;
        let expected = Finding { kind, place: l1(1), value, first: owner };
        assert_eq!(image.check().findings[0], expected);
    }
    // A header area of several clusters is what a table of one can start in.
    let mut image = TestImage::with_header(2, 1, 600, 4);
    image.set_l1(0, CLUSTER);
    let finding = image.check().findings[0];
    assert_eq!((finding.kind, finding.first), (Kind::L1IntoHeader, Some(Place::HeaderArea)));
}

#[test]
fn tables_and_data_may_lie_between_the_header_area_and_the_l1_table() {
    const L1: u64 = 5;
    let mut image = TestImage::new(2, 2000, 10);
    image.set(40, L1 * CLUSTER);
    image.clear(1, 6);
    image.set(L1 * CLUSTER, 3 * CLUSTER);
    image.set(L1 * CLUSTER + 8, 7 * CLUSTER);
    image.clear(7, 2);
    for (l2, cluster) in [(0, 1), (1, 2), (2, 9)] {
        image.set_l2(3, l2, cluster * CLUSTER);
    }
    assert_eq!(image.check().findings, []);
    // Around the L1 table: up to it, into it from both sides, and right behind it.
    for (cluster, expected) in [
        (3, Kind::L1SharedTable),
        (4, Kind::L1IntoL1Table),
        (5, Kind::L1IntoL1Table),
        (6, Kind::L1IntoL1Table),
    ] {
        image.set(L1 * CLUSTER + 8, cluster * CLUSTER);
        assert_eq!(image.check().findings[0].kind, expected, "a table at cluster {cluster}");
    }
}

#[test]
fn numbers_are_unique_and_permanent() {
    let numbers: Vec<u16> = Kind::ALL.iter().map(|kind| kind.number()).collect();
    let expected = [
        101, 102, 103, 104, 105, 106, 107, 108, 201, 202, 203, 204, 205, 206, 207, 208, 301, 302,
        303,
    ];
    assert_eq!(numbers, expected);
}

#[test]
fn a_finding_reads_as_a_sentence() {
    let mut image = TestImage::sample();
    image.set_l2(2, 5, 7 * CLUSTER);
    image.bytes.extend([0; 4096]);
    let texts: Vec<String> = image.check().findings.iter().map(ToString::to_string).collect();
    let expected = [
        "L1[1].L2[0] at 0x3000 holds 0x7000: it names a cluster that an earlier L2 entry names, \
         first claimed by L1[0].L2[5] at 0x2028",
        "1 cluster at 0x6000: no table names them",
        "1 cluster at 0x8000: at the end of the file: no table names them",
    ];
    assert_eq!(texts, expected);
    for (place, expected) in [
        (Place::HeaderArea, "the header area"),
        (Place::L1Table, "the L1 table"),
        (l1(3), "L1[3] at 0x1018"),
        (clusters(2, 5), "5 clusters at 0x2000"),
    ] {
        assert_eq!(place.to_string(), expected);
    }
}

#[test]
fn statistics_count_what_the_tables_say() {
    let mut image = TestImage::sample();
    image.set_l2(3, 1, FILE_END);
    let statistics = image.check().statistics;
    assert_eq!(statistics.total_clusters, 600);
    assert_eq!(statistics.allocated_clusters, 5);
    // 4, 5, 6 follow each other, and so do 7 and 8 in their table.
    assert_eq!(statistics.fragmented_clusters, 0);
    assert_eq!(statistics.zero_clusters, 1);
    assert_eq!(statistics.file_len_bytes, FILE_END);
    assert_eq!(statistics.image_end, HostOffset::new(FILE_END));
}
