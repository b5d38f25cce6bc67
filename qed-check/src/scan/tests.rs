//! The innermost loop against a plain one, and what threads may have for themselves.

use std::collections::BTreeSet;

use qed_spec::{Features, Geometry, Header, HeaderFields, HostOffset};

use super::*;

const CLUSTER: u64 = 4096;
/// The file has this many clusters in full and one in part.
const WHOLE: u64 = 100;
/// The header's, and those of a table.
const TAKEN: [u64; 3] = [0, 1, 2];

fn layout() -> Layout {
    let fields = HeaderFields {
        geometry: Geometry::new(4096, 1).unwrap(),
        header_size_clusters: 1,
        features: Features::empty(),
        compat_features: Default::default(),
        autoclear_features: Default::default(),
        l1_table_offset: HostOffset::new(CLUSTER),
        image_size: 0,
    };
    let file_len = WHOLE * CLUSTER + 512;
    Layout::new(Header::new(fields, file_len).unwrap(), file_len)
}

/// Claims as they come, and all that is claimed.
struct Listed {
    calls: Vec<(u64, u64)>,
    claimed: BTreeSet<u64>,
}

impl Listed {
    fn new() -> Self {
        Self { calls: Vec::new(), claimed: TAKEN.into() }
    }
}

impl Claims for &mut Listed {
    fn claim(&mut self, first: u64, count: u64) -> bool {
        self.calls.push((first, count));
        (first..first + count).fold(true, |free, cluster| self.claimed.insert(cluster) & free)
    }
}

fn scan(values: &[u64]) -> (Summary, Listed) {
    let entries: Vec<TableEntry> = values.iter().copied().map(TableEntry::new).collect();
    let mut listed = Listed::new();
    (scan_entries(&layout(), L1Index::new(7), &entries, &mut listed), listed)
}

/// Entry by entry, as the specification has it.
#[track_caller]
fn assert_as_plain(values: &[u64]) {
    let mut claimed: BTreeSet<u64> = TAKEN.into();
    let mut sound = true;
    let named: Vec<u64> = values.iter().copied().filter(|value| *value > 1).collect();
    for value in &named {
        let cluster = value / CLUSTER;
        let is_aligned = value.is_multiple_of(CLUSTER);
        let is_free = !(is_aligned && cluster <= WHOLE) || claimed.insert(cluster);
        sound &= is_aligned && cluster < WHOLE && is_free;
    }
    let is_broken = |pair: &&[u64]| pair[1] != pair[0].wrapping_add(CLUSTER);
    let broken = named.windows(2).filter(is_broken).count() as u64;
    let at = |value: Option<&u64>| value.map(|value| (L1Index::new(7), *value));

    let (found, listed) = scan(values);
    let counted = (found.sound, found.allocated, found.fragmented, found.zero);
    let zeros = values.iter().filter(|value| **value == 1).count() as u64;
    assert_eq!(counted, (sound, named.len() as u64, broken, zeros), "{values:x?}");
    assert_eq!((found.first, found.last), (at(named.first()), at(named.last())), "{values:x?}");
    assert_eq!(listed.claimed, claimed, "{values:x?}");
}

/// Clusters from `first` on, one after the other.
fn run(first: u64, count: u64) -> Vec<u64> {
    (first..first + count).map(|cluster| cluster * CLUSTER).collect()
}

#[test]
fn entries_are_judged_and_counted_as_one_by_one() {
    let odd = [
        0,
        1,
        2,
        8,
        CLUSTER,
        2 * CLUSTER,
        10 * CLUSTER,
        10 * CLUSTER + 8,
        60 * CLUSTER,
        (WHOLE - 1) * CLUSTER,
        WHOLE * CLUSTER,
        (WHOLE + 1) * CLUSTER,
        u64::MAX - 4095,
        u64::MAX,
    ];
    for lead in [vec![], vec![1], run(5, 1), run(5, 8), run(90, 8), vec![0; 8]] {
        for tail in [vec![], run(50, 3)] {
            for first in [10, 13, WHOLE - 8, WHOLE - 7, WHOLE - 1, WHOLE] {
                for (at, value) in (0..8).flat_map(|at| odd.map(|value| (at, value))) {
                    let mut group = run(first, 8);
                    assert_as_plain(&[lead.clone(), group.clone(), tail.clone()].concat());
                    group[at] = value;
                    assert_as_plain(&[lead.clone(), group.clone(), tail.clone()].concat());
                    // Far apart, so that none follows another.
                    group = (0..8).map(|n| (first + 80 - 10 * n) % WHOLE * CLUSTER).collect();
                    group[at] = value;
                    assert_as_plain(&[lead.clone(), group, tail.clone()].concat());
                }
            }
        }
    }
}

#[test]
fn eight_clusters_in_a_row_are_one_claim_once_a_run_has_begun() {
    let (_, listed) = scan(&[run(10, 24), run(40, 8), run(50, 3)].concat());
    let one_by_one = |first, count| (first..first + count).map(|cluster| (cluster, 1));
    let expected: Vec<(u64, u64)> =
        one_by_one(10, 8).chain([(18, 8), (26, 8), (40, 8)]).chain(one_by_one(50, 3)).collect();
    assert_eq!(listed.calls, expected);
}

#[test]
fn pieces_of_one_table_go_on_and_those_of_another_begin_anew() {
    let piece = |l1, first, last| Summary {
        allocated: 2,
        fragmented: 1,
        zero: 3,
        first: Some((L1Index::new(l1), first)),
        last: Some((L1Index::new(l1), last)),
        ..Summary::EMPTY
    };
    let (one, size) = (piece(1, 8192, 12288), CLUSTER);
    for (next, broken) in
        [(piece(1, 16384, 20480), 0), (piece(1, 20480, 4096), 1), (piece(2, 20480, 4096), 0)]
    {
        let sum = one.then(next, size);
        assert_eq!((sum.allocated, sum.zero, sum.fragmented), (4, 6, 2 + broken));
        assert_eq!((sum.first, sum.last), (one.first, next.last));
        let around = Summary::EMPTY.then(one, size).then(Summary::EMPTY, size).then(next, size);
        assert_eq!(
            (around.fragmented, around.first, around.last),
            (2 + broken, one.first, next.last)
        );
    }
    for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
        let of = |sound| Summary { sound, ..Summary::EMPTY };
        assert_eq!(of(a).then(of(b), size).sound, a && b);
    }
}

#[test]
fn the_sets_of_all_threads_together_cost_8_mib() {
    let mib_bits = 8 << 20;
    let cases = [
        (8 * mib_bits + 1, 0),
        (8 * mib_bits, 1),
        (4 * mib_bits, 2),
        (mib_bits, 8),
        (1, 8 << 20 >> 9),
        (0, 8 << 20),
    ];
    for (clusters, sets) in cases {
        assert_eq!(affordable_sets(clusters), sets, "{clusters} clusters");
    }
}
