//! All shapes: what they map, and the largest disk of each.

use super::shape::Shape;
use super::vector::{Expect, Family, Header, Kind, Map, MapRun, Qemu, Run, Vector};

pub(super) fn families() -> Vec<Family> {
    vec![
        Family {
            name: "geometry-map-accept",
            about: &[
                "Every shape: header, L1 table, two L2 tables and two data clusters, one after the other.",
                "The last entry of the first table and the first of the second one name the data; the",
                "first guest cluster is a zero cluster, and the disk ends inside the last one.",
            ],
            vectors: Shape::all().map(mapped).collect(),
        },
        Family {
            name: "geometry-disk-accept",
            about: &[
                "The largest disk of every shape, without a table; where the tables map more than",
                "2^63 - 512 bytes, a disk of those, since a program may refuse larger ones.",
            ],
            vectors: Shape::all().map(largest).collect(),
        },
        Family {
            name: "geometry-disk-reject",
            about: &[
                "A disk that is larger by a sector, or by a byte where no sector fits into 64 bits.",
            ],
            vectors: Shape::all().map(too_large).collect(),
        },
    ]
}

/// The header of a disk of this shape.
fn header(shape: Shape, image_size: u64) -> Header {
    Header {
        cluster_size: shape.cluster,
        table_size: shape.table,
        l1_table_offset: shape.cluster,
        image_size,
        ..Header::default()
    }
}

fn mapped(shape: Shape) -> Vector {
    let (cluster, coverage) = (shape.cluster, shape.coverage());
    let l1 = cluster;
    let tables = [l1 + shape.table_len(), l1 + 2 * shape.table_len()];
    let data = l1 + 3 * shape.table_len();
    let last = coverage - cluster;
    let disk = coverage + 512;
    let map = vec![
        MapRun { at: 0, len: cluster, kind: Kind::Zero },
        MapRun { at: cluster, len: last - cluster, kind: Kind::Unallocated },
        MapRun { at: last, len: cluster + 512, kind: Kind::Data(data) },
    ];
    let ends = [Run::fill(data, 0xd1, 512), Run::fill(data + cluster, 0xd2, 512)];
    Vector {
        name: format!("map-of-{}", shape.name()),
        clauses: vec!["QED-MAP-01", "QED-MAP-03", "QED-HDR-03", "QED-HDR-04", "QED-TBL-01"],
        what: format!("{} entries in a table", shape.entries()),
        file_len: data + 2 * cluster,
        header: header(shape, disk),
        runs: [
            Run { at: l1, bytes: super::vector::Bytes::U64(tables.to_vec()) },
            Run::u64(tables[0], 1),
            Run::u64(tables[0] + shape.table_len() - 8, data),
            Run::u64(tables[1], data + cluster),
        ]
        .into_iter()
        .chain(ends)
        .collect(),
        expect: Expect {
            size: Some(disk),
            cluster_size: Some(cluster),
            map: Some(Map::Runs(map)),
            content: vec![
                Run::fill(0, 0, 512),
                Run::fill(last, 0xd1, 512),
                Run::fill(coverage, 0xd2, 512),
            ],
            check: Some("clean"),
            findings: Some(vec![]),
            ..Expect::accept()
        },
        qemu: shape.refused_by_qemu().map(Qemu::refuses).or_else(|| {
            let why = "QED-QEMU-19: 4 GiB that are mapped alike are too long a run";
            (last - cluster >= 4 << 30).then(|| Qemu::answers("map", "fails", why))
        }),
    }
}

/// The largest disk that every program opens: QED-MAP-05.
const MOST_OPENED: u64 = (1 << 63) - 512;
/// The largest disk that QEMU opens.
const MOST_OF_QEMU: u64 = (1 << 63) - (1 << 30);

fn largest(shape: Shape) -> Vector {
    let disk = shape.max_disk().min(MOST_OPENED);
    Vector {
        name: format!("largest-disk-of-{}", shape.name()),
        clauses: vec!["QED-HDR-07", "QED-MAP-02"],
        what: format!("{disk} bytes"),
        file_len: shape.cluster + shape.table_len(),
        header: header(shape, disk),
        runs: Vec::new(),
        expect: Expect {
            size: Some(disk),
            check: Some("clean"),
            findings: Some(vec![]),
            ..Expect::accept()
        },
        qemu: shape.refused_by_qemu().map(Qemu::refuses).or_else(|| {
            let why = "QED-QEMU-23: disks of nearly 2^63 bytes are refused";
            (disk > MOST_OF_QEMU).then(|| Qemu::refuses(why))
        }),
    }
}

fn too_large(shape: Shape) -> Vector {
    let disk = shape.max_disk();
    let more = disk.checked_add(512).unwrap_or(disk + 1);
    Vector {
        name: format!("too-large-disk-of-{}", shape.name()),
        clauses: vec!["QED-HDR-07", "QED-MAP-02"],
        what: format!("{} bytes more than the largest", more - disk),
        file_len: shape.cluster + shape.table_len(),
        header: header(shape, more),
        runs: Vec::new(),
        expect: Expect::reject("QED-HDR-07"),
        qemu: None,
    }
}
