//! Entries of both tables at every border of every kind of cluster.

use std::ops::Range;

use super::layout::{DATA, FREE, L1, Layout};
use super::shape::Shape;
use super::vector::{Bytes, Expect, Family, Kind, Map, MapRun, Qemu, Run, Vector};

pub(super) fn families() -> Vec<Family> {
    let shapes = [Shape::new(4096, 16), Shape::new(65536, 4), Shape::new(2 << 20, 1)];
    let layouts = || shapes.iter().map(|shape| Layout { shape: *shape });
    vec![
        Family {
            name: "entries-l1-accept",
            about: &[
                "The second L1 entry at every border of an image in which all kinds of clusters touch.",
            ],
            vectors: layouts().flat_map(l1_entries).map(|entry| entry.in_l1_table()).collect(),
        },
        Family {
            name: "entries-l2-accept",
            about: &[
                "The second L2 entry at every border of an image in which all kinds of clusters touch.",
            ],
            vectors: layouts().flat_map(l2_entries).map(|entry| entry.in_l2_table()).collect(),
        },
    ]
}

/// An entry that is tried.
struct Entry {
    layout: Layout,
    place: &'static str,
    value: u64,
    /// The rule that it breaks.
    finding: Option<u16>,
    /// The clusters that are in use by it, rightly or not.
    named: Range<u64>,
}

/// No clusters.
const NOTHING: Range<u64> = 0..0;
/// What stands in the data cluster, and in a free one that the entry names.
const DATA_BYTE: u8 = 0xd1;
const NAMED_BYTE: u8 = 0xe1;

fn l1_entries(layout: Layout) -> Vec<Entry> {
    let more = [("l2-second", layout.l2() + 1), ("spare-second", layout.spare() + 1)];
    let mut entries: Vec<Entry> = places(layout, &more)
        .into_iter()
        .map(|(place, cluster)| {
            let finding = layout.table_at(cluster);
            let is_used = matches!(finding, None | Some(103 | 106 | 107));
            let named = if is_used { cluster..cluster + layout.shape.table } else { NOTHING };
            Entry { layout, place, value: layout.offset(cluster), finding, named }
        })
        .collect();
    entries.extend(no_clusters(layout, 101, 102));
    for (place, value, finding) in [("zero", 0, None), ("one", 1, Some(101))] {
        entries.push(Entry { layout, place, value, finding, named: NOTHING });
    }
    entries
}

fn l2_entries(layout: Layout) -> Vec<Entry> {
    let more = [("data", DATA), ("l2-end", layout.spare() - 1), ("last", layout.partial() - 1)];
    let mut entries: Vec<Entry> = places(layout, &more)
        .into_iter()
        .map(|(place, cluster)| {
            let finding = layout.data_at(cluster);
            let is_used = matches!(finding, None | Some(203));
            let named = if is_used { cluster..cluster + 1 } else { NOTHING };
            Entry { layout, place, value: layout.offset(cluster), finding, named }
        })
        .collect();
    entries.extend(no_clusters(layout, 201, 202));
    for (place, value) in [("zero", 0), ("one", 1)] {
        entries.push(Entry { layout, place, value, finding: None, named: NOTHING });
    }
    entries
}

/// The clusters at the borders, each once, and their names.
fn places(layout: Layout, more: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let borders = [
        ("header-end", DATA - 1),
        ("free", FREE),
        ("l1", L1),
        ("l1-end", layout.gap() - 1),
        ("gap", layout.gap()),
        ("l2", layout.l2()),
        ("spare", layout.spare()),
        ("partial", layout.partial()),
        ("past-partial", layout.partial() + 1),
    ];
    let mut places: Vec<(&str, u64)> = Vec::new();
    for place in borders.iter().chain(more) {
        if places.iter().all(|known| known.1 != place.1) {
            places.push(*place);
        }
    }
    places
}

/// Values that name no cluster of the file: not aligned, or past every file.
fn no_clusters(layout: Layout, unaligned: u16, past_end: u16) -> impl Iterator<Item = Entry> {
    let cluster = layout.shape.cluster;
    let spare = layout.offset(layout.spare());
    let values = [
        ("two", 2, unaligned),
        ("cluster-less-one", cluster - 1, unaligned),
        ("cluster-and-one", cluster + 1, unaligned),
        ("free-and-a-sector", layout.offset(FREE) + 512, unaligned),
        ("spare-and-one", spare + 1, unaligned),
        ("all-ones", u64::MAX, unaligned),
        ("sign-bit", 1 << 63, past_end),
        ("spare-and-sign-bit", (1 << 63) + spare, past_end),
        ("last-of-64-bits", 0_u64.wrapping_sub(cluster), past_end),
    ];
    values.into_iter().map(move |(place, value, number)| Entry {
        layout,
        place,
        value,
        finding: Some(number),
        named: NOTHING,
    })
}

impl Entry {
    fn in_l1_table(self) -> Vector {
        let layout = self.layout;
        let coverage = layout.shape.coverage();
        let l1 = Bytes::U64(vec![layout.offset(layout.l2()), self.value]);
        let runs = vec![
            Run { at: layout.offset(L1), bytes: l1 },
            Run::u64(layout.offset(layout.l2()), layout.offset(DATA)),
            Run::fill(layout.offset(DATA), DATA_BYTE, 512),
        ];
        let seen = (Kind::Unallocated, 0);
        self.vector("l1", (coverage, 2 * coverage), runs, seen)
    }

    fn in_l2_table(self) -> Vector {
        let layout = self.layout;
        let cluster = layout.shape.cluster;
        let l2 = Bytes::U64(vec![layout.offset(DATA), self.value]);
        let mut runs = vec![
            Run::u64(layout.offset(L1), layout.offset(layout.l2())),
            Run { at: layout.offset(layout.l2()), bytes: l2 },
            Run::fill(layout.offset(DATA), DATA_BYTE, 512),
        ];
        let seen = match self.value {
            0 => (Kind::Unallocated, 0),
            1 => (Kind::Zero, 0),
            host => (Kind::Data(host), NAMED_BYTE),
        };
        if self.finding.is_none() && self.value > 1 {
            runs.push(Run::fill(self.value, NAMED_BYTE, 512));
        }
        self.vector("l2", (cluster, 4 * cluster), runs, seen)
    }

    /// The vector with the entry in the table `level`: what it is for lies at `at` of a disk of
    /// `disk` bytes, and is mapped and read as `seen` unless the entry breaks a rule.
    fn vector(
        self,
        level: &str,
        (at, disk): (u64, u64),
        runs: Vec<Run>,
        (kind, byte): (Kind, u8),
    ) -> Vector {
        let Self { layout, place, value, finding, ref named } = self;
        let data = Kind::Data(layout.offset(DATA));
        let good = Run::fill(0, DATA_BYTE, 512);
        // No clause says what is read through an entry that is legal but for another one.
        let (map, content) = match finding {
            None => (
                Some(Map::Runs(mapped(layout.shape.cluster, data, (at, kind), disk))),
                vec![good, Run::fill(at, byte, 512)],
            ),
            Some(101..=104 | 201..=204) => {
                (Some(Map::Fails), vec![good, Run { at, bytes: Bytes::Fails(512) }])
            }
            Some(_) => (None, vec![]),
        };
        let mut findings = layout.unused(named);
        findings.splice(0..0, finding);
        findings.sort_unstable();
        Vector {
            name: format!("{level}-entry-{place}-of-{}", layout.shape.name()),
            clauses: vec![
                clause(level, value, finding),
                if finding.is_some() { "QED-CHK-01" } else { "QED-CHK-02" },
            ],
            what: told(place, value, finding),
            file_len: layout.file_len(),
            header: layout.header(disk),
            runs,
            expect: Expect {
                map,
                content,
                check: Some(if finding.is_some() { "corrupt" } else { "leaks" }),
                findings: Some(findings),
                ..Expect::accept()
            },
            qemu: layout.shape.refused_by_qemu().map(Qemu::refuses),
        }
    }
}

/// The mapping of a disk whose first cluster is data, one cluster at `at` is `kind`, and no other
/// is allocated.
fn mapped(cluster: u64, data: Kind, (at, kind): (u64, Kind), disk: u64) -> Vec<MapRun> {
    let pieces = [
        (0, cluster, data),
        (cluster, at - cluster, Kind::Unallocated),
        (at, cluster, kind),
        (at + cluster, disk - at - cluster, Kind::Unallocated),
    ];
    let mut runs: Vec<MapRun> = Vec::new();
    for (at, len, kind) in pieces.into_iter().filter(|(_, len, _)| *len > 0) {
        match (runs.last_mut(), kind) {
            (Some(MapRun { len: last, kind: Kind::Data(host), .. }), Kind::Data(next))
                if *host + *last == next =>
            {
                *last += len;
            }
            (Some(run), kind) if run.kind == kind => run.len += len,
            _ => runs.push(MapRun { at, len, kind }),
        }
    }
    runs
}

/// The clause that decides about an entry.
fn clause(level: &str, value: u64, finding: Option<u16>) -> &'static str {
    match (level, finding, value) {
        ("l1", Some(101), 1) | ("l1", None, _) => "QED-TBL-02",
        (_, Some(101 | 201), _) => "QED-TBL-03",
        (_, Some(102..=104 | 202..=204), _) => "QED-TBL-07",
        (_, Some(_), _) => "QED-TBL-08",
        (_, None, 0 | 1) => "QED-TBL-04",
        (_, None, _) => "QED-TBL-05",
    }
}

fn told(place: &str, value: u64, finding: Option<u16>) -> String {
    let place = place.replace('-', " ");
    let why = match finding {
        None => "legal",
        Some(101 | 201) => "not an offset of a cluster",
        Some(102 | 202) => "past the end of the file",
        Some(103 | 203) => "cut off by the end of the file",
        Some(104 | 204) => "in the header area",
        Some(105 | 205) => "in the L1 table",
        Some(106) => "the table of the entry before",
        Some(107) => "overlaps the table of the entry before",
        Some(206) => "in an L2 table",
        Some(_) => "the cluster of the entry before",
    };
    format!("{value:#x} ({place}): {why}")
}
