//! The dirty bitmap of compat mode: marks and epoch_size, after a close and after a crash.

use super::scene::{
    CLUSTER, DATA, Entries, L1, L2, SIZE, SPARE, Scene, Superblock, TABLE_DIRTY, seen,
};
use crate::vectors::vector::{Bytes, Expect, Family, Header, Map, Qemu, Run, Vector};

/// NEED_CHECK of features.
const NEED_CHECK: u64 = 2;
/// Where the bitmap lies.
const BITMAP: u64 = 0x4000;
/// Past the end of the file.
const END: u64 = SIZE * CLUSTER;

pub(super) fn families() -> Vec<Family> {
    vec![
        Family {
            name: "marks-clean-accept",
            about: &[
                "Images in compat mode that were closed. Marks and epoch_size are for after a crash, which",
                "NEED_CHECK tells: here they keep nobody from anything.",
            ],
            vectors: CLOSED.iter().map(closed).collect(),
        },
        Family {
            name: "marks-crashed-reject",
            about: &[
                "Images in compat mode with NEED_CHECK. Whatever the marks say, they are not written before a",
                "check; a reader does not look at the marks.",
            ],
            vectors: CRASHED.iter().map(crashed).collect(),
        },
    ]
}

/// A name, clauses, what it is about, the first bytes of the bitmap, and epoch_size.
type Closed = (&'static str, &'static str, &'static str, &'static [u8], u64);

const CLOSED: [Closed; 9] = [
    ("no-mark", "QED-DIRTY-08", "no mark, epoch_size at the end of the file", &[0], END),
    ("a-mark", "QED-DIRTY-04", "a mark outlives NEED_CHECK for a moment", &[1], END),
    ("all-marks", "QED-DIRTY-07", "every bit of the first bytes", &[0xff; 64], END),
    ("mark-of-slot-7", "QED-DIRTY-02", "a slot that the disk does not need", &[0x80], END),
    ("mark-of-slot-8", "QED-DIRTY-02", "bit 0 of byte 1", &[0, 1], END),
    ("epoch-size-0", "QED-DIRTY-05", "without a mark no entry is held against it", &[0], 0),
    ("epoch-size-of-the-data", "QED-DIRTY-05", "one entry names the cluster behind it", &[0], DATA),
    ("epoch-size-unaligned", "QED-DIRTY-05", "no number of clusters", &[0], DATA + 1),
    ("epoch-size-all-ones", "QED-DIRTY-05", "the largest number", &[0], u64::MAX),
];

/// What a crash left: a name, a clause, what it is about, the first bytes of the bitmap, the L2
/// entries from 0 on, what of them is seen, and the outcome of a check.
type Crashed = (
    &'static str,
    &'static str,
    &'static str,
    &'static [u8],
    &'static [u64],
    &'static Entries,
    &'static str,
);

const CRASHED: [Crashed; 10] = [
    ("marked", "QED-CONS-01", "a table in order", &[1], &[DATA, SPARE], BOTH, "clean"),
    ("not-marked", "QED-DIRTY-07", "no mark: all tables are checked", &[0], &[DATA], ONE, "free"),
    ("another-marked", "QED-DIRTY-07", "the mark of slot 1", &[2], &[DATA], ONE, "free"),
    ("all-marked", "QED-DIRTY-07", "marks that no slot has", &[0xff; 64], &[DATA], ONE, "free"),
    (
        "marked-dangling",
        "QED-CONS-05",
        "an entry past the end of the file",
        &[1],
        &[DATA, END],
        ONE,
        "corrupt",
    ),
    (
        "not-marked-dangling",
        "QED-CONS-05",
        "the same of a table without its mark",
        &[2],
        &[DATA, END],
        ONE,
        "corrupt",
    ),
    (
        "marked-far-dangling",
        "QED-CONS-05",
        "the last cluster that there could be",
        &[1],
        &[DATA, 0u64.wrapping_sub(CLUSTER)],
        ONE,
        "corrupt",
    ),
    (
        "marked-all-dangling",
        "QED-CONS-05",
        "no entry has its cluster",
        &[1],
        &[END + CLUSTER, END],
        &[],
        "corrupt",
    ),
    (
        "marked-unaligned",
        "QED-TBL-10",
        "a sector behind a cluster",
        &[1],
        &[DATA, SPARE + 512],
        FAILS,
        "corrupt",
    ),
    ("marked-two", "QED-TBL-10", "2, which no entry is", &[1], &[DATA, 2], FAILS, "corrupt"),
];

const ONE: &Entries = &[(0, DATA)];
const BOTH: &Entries = &[(0, DATA), (1, SPARE)];
/// An entry is illegal.
const FAILS: &Entries = &[(0, u64::MAX)];

fn closed((name, clause, what, marks, epoch_size): &Closed) -> Vector {
    let (mut scene, superblock) = scene(marks, *epoch_size);
    scene.header.features = 0;
    let vector = scene.vector_with(&superblock, format!("marks-{name}"), clause, what);
    Vector { expect: seen(ONE), ..vector }
}

fn crashed((name, clause, what, marks, entries, tables, check): &Crashed) -> Vector {
    let (mut scene, superblock) = scene(marks, END);
    scene.is_bare = true;
    scene.more.extend([Run::u64(L1, L2), Run { at: L2, bytes: Bytes::U64(entries.to_vec()) }]);
    scene.more.extend([Run::fill(DATA, 0xa1, CLUSTER), Run::fill(SPARE, 0xb2, CLUSTER)]);
    let vector = scene.vector_with(&superblock, format!("marks-crash-{name}"), clause, what);
    let mut seen = match *tables {
        FAILS => Expect { map: Some(Map::Fails), ..Expect::accept() },
        tables => Expect { after_write: Vec::new(), ..seen(tables) },
    };
    if is_dangling(entries) {
        // In some of these the cluster before is sound, and QEMU reads it.
        seen.content.remove(0);
    }
    let expect = Expect { write: Some(Err("QED-CONS-01")), check: Some(check), ..seen };
    Vector { expect, qemu: qemu(entries), ..vector }
}

/// An image in compat mode.
fn scene(marks: &[u8], epoch_size: u64) -> (Scene, Superblock) {
    let mut scene = Scene::clean();
    scene.header = Header { features: NEED_CHECK, autoclear_features: TABLE_DIRTY, ..scene.header };
    scene.more.push(Run { at: BITMAP, bytes: Bytes::Hex(marks.to_vec()) });
    let sections = vec![(1, Bytes::U32(vec![1])), (5, Bytes::U64(vec![BITMAP, 512, epoch_size]))];
    let superblock = Superblock { sections, ..scene.superblock() };
    (scene, superblock)
}

/// QEMU takes no notice of NEED_CHECK when it reads.
fn qemu(entries: &[u64]) -> Option<Qemu> {
    is_dangling(entries).then(|| Qemu {
        why: "QED-QEMU-26: an entry past the end of the file is an error",
        answers: vec![("map", "fails"), ("content", "fails")],
    })
}

fn is_dangling(entries: &[u64]) -> bool {
    entries.iter().any(|entry| *entry >= END)
}
