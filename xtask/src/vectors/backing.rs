//! The bounds of offset and length of the backing file name.

use super::vector::{Expect, Family, Header, Qemu, Run, Vector};

pub(super) fn families() -> Vec<Family> {
    let (accepted, refused) = AREAS
        .iter()
        .flat_map(|area| area.names())
        .partition(|vector: &Vector| vector.expect.open.is_ok());
    vec![
        Family {
            name: "backing-name-accept",
            about: &[
                "Names of every length and place that one may have, up to the bounds. The files that they name",
                "are not there: the image is looked at alone.",
            ],
            vectors: accepted,
        },
        Family {
            name: "backing-name-reject",
            about: &["Names beyond those bounds."],
            vectors: refused,
        },
    ]
}

/// The first byte that a name may have, and the most bytes.
const FIRST: u64 = 64;
const LONGEST: u64 = 4095;

/// A header area in which names are tried.
struct Area {
    cluster: u64,
    clusters: u64,
}

const AREAS: [Area; 4] = [
    Area { cluster: 4096, clusters: 1 },
    Area { cluster: 4096, clusters: 3 },
    Area { cluster: 65536, clusters: 1 },
    Area { cluster: 1 << 20, clusters: 2 },
];

impl Area {
    fn end(&self) -> u64 {
        self.cluster * self.clusters
    }

    fn names(&self) -> Vec<Vector> {
        let end = self.end();
        let room = end - FIRST;
        let most = room.min(LONGEST);
        let places = [
            (FIRST, 1),
            (FIRST, most),
            (FIRST, most + 1),
            (FIRST, room),
            (FIRST, room + 1),
            (FIRST, 0),
            (FIRST - 1, 1),
            (FIRST - 1, most),
            (0, 64),
            (end - most, most),
            (end - most, most + 1),
            (end - most + 1, most),
            (end - 1, 1),
            (end - 1, 2),
            (end - 1, 0),
            (end, 1),
            (end + 1, 1),
            (FIRST, u64::from(u32::MAX)),
            (u64::from(u32::MAX), 1),
            (u64::from(u32::MAX), u64::from(u32::MAX)),
        ];
        let mut names: Vec<Vector> = Vec::new();
        for (offset, len) in places {
            let name = self.name(offset, len);
            if names.iter().all(|known| known.name != name.name) {
                names.push(name);
            }
        }
        names
    }

    fn name(&self, offset: u64, len: u64) -> Vector {
        let expect = if !(1..=LONGEST).contains(&len) {
            Expect::reject("QED-BACK-03")
        } else if offset < FIRST || offset + len > self.end() {
            Expect::reject("QED-BACK-01")
        } else {
            Expect { check: Some("clean"), ..Expect::accept() }
        };
        let file_len = self.end() + 2 * self.cluster;
        // Bytes of the header and past the file stay as they are.
        let (from, to) = (offset.max(FIRST), (offset + len).min(self.end()));
        let letters = (from < to).then(|| Run::fill(from, b'n', to - from));
        let clause = expect.open.err();
        let is_open_in_qemu = len <= LONGEST && offset + len <= self.end();
        let why = "QED-QEMU-07: a name may be empty, and overlap the header";
        Vector {
            name: format!("name-{len}-at-{offset}-of-{}-by-{}", self.cluster, self.clusters),
            clauses: clause.map_or(vec!["QED-BACK-01", "QED-BACK-03"], |clause| vec![clause]),
            what: format!("{len} bytes from byte {offset} in a header area of {}", self.end()),
            file_len,
            header: Header {
                cluster_size: self.cluster,
                table_size: 2,
                header_size: self.clusters,
                features: 5,
                l1_table_offset: self.end(),
                backing_filename_offset: offset,
                backing_filename_size: len,
                ..Header::default()
            },
            runs: letters.into_iter().collect(),
            expect,
            qemu: (clause.is_some() && is_open_in_qemu)
                .then(|| Qemu::answers("open", "accept", why)),
        }
    }
}
