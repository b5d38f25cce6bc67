//! The bounds of cluster_size, table_size, header_size and l1_table_offset.

use super::shape::Shape;
use super::vector::{Expect, Family, Header, Qemu, Vector};

pub(super) fn families() -> Vec<Family> {
    vec![
        cluster_sizes(),
        table_sizes(),
        header_sizes_accepted(),
        header_sizes_refused(),
        l1_offsets_accepted(),
        l1_offsets_refused(),
    ]
}

/// Shapes in which places are tried: the smallest clusters, the usual ones and large ones.
const SHAPES: [Shape; 3] = [Shape::new(4096, 2), Shape::new(65536, 4), Shape::new(1 << 20, 2)];

/// A vector of this area with nothing but its header.
fn vector(name: String, what: String, file_len: u64, header: Header, expect: Expect) -> Vector {
    let clauses = match expect.open {
        Err(clause) => vec![clause],
        Ok(()) => vec!["QED-HDR-05", "QED-HDR-06"],
    };
    Vector { name, clauses, what, file_len, header, runs: Vec::new(), expect, qemu: None }
}

fn cluster_sizes() -> Family {
    let powers = (0..32).map(|bits| 1_u64 << bits);
    let tried = powers.flat_map(|power| match power {
        0x1000..=0x400_0000 => vec![power - 1, power + 1],
        _ => vec![power],
    });
    let vector = |size: u64| {
        // Nothing else is wrong: the table is a multiple of the size and inside the file.
        let l1 = size * 4096_u64.div_ceil(size);
        let header = Header {
            cluster_size: size,
            l1_table_offset: l1,
            image_size: 512,
            ..Header::default()
        };
        let what = format!("clusters of {size} bytes");
        let expect = Expect::reject("QED-HDR-03");
        vector(format!("cluster-size-{size}"), what, l1 + 4 * size, header, expect)
    };
    Family {
        name: "header-cluster-size-reject",
        about: &[
            "Every power of two that is no cluster size, and the neighbours of those that are.",
        ],
        vectors: tried.map(vector).collect(),
    }
}

fn table_sizes() -> Family {
    let tried = (0..=33).filter(|size| ![1, 2, 4, 8, 16].contains(size)).chain([
        63,
        64,
        65,
        128,
        256,
        1 << 16,
        (1 << 16) + 1,
        1 << 31,
        (1 << 32) - 1,
    ]);
    let vector = |size: u64| {
        // The file has room for the table where that is not absurd.
        let room = size.min(1 << 17);
        let header = Header {
            cluster_size: 4096,
            table_size: size,
            l1_table_offset: 4096,
            image_size: 512,
            ..Header::default()
        };
        let what = format!("tables of {size} clusters");
        let expect = Expect::reject("QED-HDR-04");
        vector(format!("table-size-{size}"), what, (1 + room) * 4096, header, expect)
    };
    Family {
        name: "header-table-size-reject",
        about: &["Table sizes around those that are legal, and the largest numbers."],
        vectors: tried.map(vector).collect(),
    }
}

/// Clusters before the L1 table where header sizes are tried: all could be header area.
const BEFORE_L1: u64 = 9;

/// The header with this header_size in a file that ends with its L1 table, and the length of that.
fn with_header_size(shape: Shape, size: u64) -> (Header, u64) {
    let l1 = BEFORE_L1 * shape.cluster;
    let header = Header {
        cluster_size: shape.cluster,
        table_size: shape.table,
        header_size: size,
        l1_table_offset: l1,
        ..Header::default()
    };
    (header, l1 + shape.table_len())
}

fn header_sizes_accepted() -> Family {
    let one = |shape: Shape, size: u64| {
        let (header, file_len) = with_header_size(shape, size);
        let is_full = size == BEFORE_L1;
        let expect = Expect {
            check: Some(if is_full { "clean" } else { "leaks" }),
            findings: Some(if is_full { vec![] } else { vec![302] }),
            ..Expect::accept()
        };
        let what = format!("{size} of the {BEFORE_L1} clusters before the L1 table");
        vector(format!("header-size-{size}-of-{}", shape.name()), what, file_len, header, expect)
    };
    Family {
        name: "header-size-accept",
        about: &["From one cluster to all before the L1 table."],
        vectors: SHAPES
            .iter()
            .flat_map(|shape| [1, 2, BEFORE_L1 - 1, BEFORE_L1].map(|size| one(*shape, size)))
            .collect(),
    }
}

fn header_sizes_refused() -> Family {
    let of_shape = |shape: Shape| {
        let all = BEFORE_L1 + shape.table;
        let tried = [
            (0, "QED-HDR-05", "no cluster".to_owned()),
            (BEFORE_L1 + 1, "QED-HDR-06", "the first cluster of the L1 table too".to_owned()),
            (all, "QED-HDR-06", "the whole file".to_owned()),
            (all + 1, "QED-HDR-05", "a cluster more than the file has".to_owned()),
            ((1 << 32) / shape.cluster, "QED-HDR-05", "0 bytes in 32 bits".to_owned()),
            ((1 << 32) - 1, "QED-HDR-05", "the largest number".to_owned()),
        ];
        tried.map(|(size, clause, what)| {
            let (header, file_len) = with_header_size(shape, size);
            let name = format!("header-size-{size}-of-{}", shape.name());
            let why = "QED-QEMU-06: a header area of no clusters is accepted";
            let qemu = (size == 0).then(|| Qemu::answers("open", "accept", why));
            Vector { qemu, ..vector(name, what, file_len, header, Expect::reject(clause)) }
        })
    };
    Family {
        name: "header-size-reject",
        about: &["None, more than lie before the L1 table, more than the file has."],
        vectors: SHAPES.iter().flat_map(|shape| of_shape(*shape)).collect(),
    }
}

/// An image with two clusters of header area and room for the L1 table at six places.
struct Room {
    shape: Shape,
    least: u64,
    most: u64,
}

impl Room {
    fn new(shape: Shape) -> Self {
        Self { shape, least: 2 * shape.cluster, most: 7 * shape.cluster }
    }

    fn vector(&self, place: &str, at: u64, what: &str, expect: Expect) -> Vector {
        let header = Header {
            cluster_size: self.shape.cluster,
            table_size: self.shape.table,
            header_size: 2,
            l1_table_offset: at,
            ..Header::default()
        };
        let name = format!("l1-table-{place}-of-{}", self.shape.name());
        vector(name, what.to_owned(), self.most + self.shape.table_len(), header, expect)
    }
}

fn l1_offsets_accepted() -> Family {
    let of_shape = |shape: Shape| {
        let room = Room::new(shape);
        let tried = [
            ("at-least", room.least, "right behind the header area", vec![301]),
            ("behind-least", room.least + shape.cluster, "a cluster behind it", vec![301, 302]),
            ("at-most", room.most, "the last clusters of the file", vec![302]),
        ];
        tried.map(|(place, at, what, findings)| {
            let expect =
                Expect { check: Some("leaks"), findings: Some(findings), ..Expect::accept() };
            room.vector(place, at, what, expect)
        })
    };
    Family {
        name: "header-l1-table-accept",
        about: &["The first and the last place of the L1 table."],
        vectors: SHAPES.iter().flat_map(|shape| of_shape(*shape)).collect(),
    }
}

fn l1_offsets_refused() -> Family {
    let of_shape = |shape: Shape| {
        let room = Room::new(shape);
        let (least, most, cluster) = (room.least, room.most, shape.cluster);
        let tried = [
            ("before-least", least - cluster, "the last cluster of the header area"),
            ("least-less-one", least - 1, "a byte before the first place"),
            ("least-and-one", least + 1, "a byte behind the first place"),
            ("least-and-eight", least + 8, "an entry behind the first place"),
            ("least-and-half", least + cluster / 2, "half a cluster behind the first place"),
            ("most-less-one", most - 1, "a byte before the last place"),
            ("most-and-one", most + 1, "a byte behind the last place"),
            ("past-most", most + cluster, "a cluster behind the last place"),
            ("at-file-end", most + shape.table_len(), "where the file ends"),
            ("of-last-cluster", 0_u64.wrapping_sub(cluster), "the last cluster of 64 bits"),
        ];
        tried.map(|(place, at, what)| room.vector(place, at, what, Expect::reject("QED-HDR-06")))
    };
    Family {
        name: "header-l1-table-reject",
        about: &["Around the first and the last place of the L1 table."],
        vectors: SHAPES.iter().flat_map(|shape| of_shape(*shape)).collect(),
    }
}
