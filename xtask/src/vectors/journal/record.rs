//! Records: what each kind does, and what is not followed.

use super::scene::{
    AS_LAID, BOTH, Block, CLUSTER, DATA, Entries, L1, L2, Record, SIZE, SPARE, Scene, qemu_refuses,
    refused, seen,
};
use crate::vectors::vector::{Bytes, Expect, Family, Run, Vector};

pub(super) fn families() -> Vec<Family> {
    vec![
        Family {
            name: "journal-record-accept",
            about: &["Logs of one record, as its tables are once it is applied."],
            vectors: APPLIED.iter().map(applied).chain([linked(), unlinked()]).collect(),
        },
        Family {
            name: "journal-record-reject",
            about: &[
                "Logs with a record that says what no record may say, or names what it must not.",
            ],
            vectors: REFUSED.iter().map(not_followed).collect(),
        },
        Family {
            name: "journal-size-reject",
            about: &["Logs with a physical_size that the image cannot have."],
            vectors: SIZES.iter().map(wrong_size).collect(),
        },
    ]
}

/// Entries of a table.
const SLOTS: u64 = 4 * CLUSTER / 8;
/// Past the end of the file.
const END: u64 = SIZE * CLUSTER;

const APPLIED: [(&str, Record, &str, &Entries); 16] = [
    ("set", Record(2, 1, L2 + 8, SPARE), "L2_SET_RUN of one entry", BOTH),
    ("set-moves", Record(2, 1, L2, SPARE), "over an entry that names another", &[(0, SPARE)]),
    ("set-again", Record(2, 2, L2, DATA), "over an entry that is so", BOTH),
    (
        "set-last-entry",
        Record(2, 1, L2 + 8 * (SLOTS - 1), SPARE),
        "the last entry of the table",
        &[(0, DATA), (SLOTS - 1, SPARE)],
    ),
    (
        "set-behind-the-disk",
        Record(2, 1, L2 + 8 * 16, SPARE),
        "an entry that the disk does not need",
        &[(0, DATA), (16, SPARE)],
    ),
    ("zero", Record(3, 1, L2 + 8, 0), "L2_ZERO_RUN of one entry", &[(0, DATA), (1, 1)]),
    (
        "zero-over-data",
        Record(3, 3, L2, 0),
        "of three, the first one names data",
        &[(0, 1), (1, 1), (2, 1)],
    ),
    ("clear", Record(4, 1, L2, 0), "L2_CLEAR_RUN of one entry", &[]),
    ("clear-all", Record(4, 32768, L2, 0), "of all entries of the table", &[]),
    ("clear-nothing", Record(4, 1, L2 + 8, 0), "of an entry that is 0", AS_LAID),
    ("link-again", Record(1, 1, L1, L2), "L1_SET with what is there", AS_LAID),
    ("unlink-nothing", Record(1, 1, L1 + 8, 0), "L1_SET to 0 of a slot that is 0", AS_LAID),
    ("unlink-last-slot", Record(1, 1, L1 + 8 * (SLOTS - 1), 0), "of the last slot", AS_LAID),
    ("free", Record(5, 1, SPARE, 0), "FREE_RUN changes no entry", AS_LAID),
    ("free-what-is-named", Record(5, 2, DATA, 0), "nor of clusters that an entry names", AS_LAID),
    ("free-a-table", Record(5, 4, L2, 0), "nor of a table", AS_LAID),
];

const REFUSED: [(&str, Record, &str, &str); 47] = [
    ("kind-0", Record(0, 1, L2 + 8, SPARE), "QED-JRN-07", "no kind has the number 0"),
    ("kind-6", Record(6, 1, L2 + 8, SPARE), "QED-JRN-07", "the first number that no kind has"),
    ("kind-all-ones", Record(u32::MAX, 1, L2 + 8, SPARE), "QED-JRN-07", "the largest number"),
    ("zeros", Record(0, 0, 0, 0), "QED-JRN-07", "a record of zeros"),
    ("link-count-0", Record(1, 0, L1, L2), "QED-JRN-07", "L1_SET of no entry"),
    ("link-count-2", Record(1, 2, L1, L2), "QED-JRN-07", "L1_SET is of one entry"),
    ("set-count-0", Record(2, 0, L2 + 8, SPARE), "QED-JRN-07", "L2_SET_RUN of no entry"),
    ("zero-count-0", Record(3, 0, L2 + 8, 0), "QED-JRN-07", "L2_ZERO_RUN of no entry"),
    ("clear-count-0", Record(4, 0, L2 + 8, 0), "QED-JRN-07", "L2_CLEAR_RUN of no entry"),
    ("free-count-0", Record(5, 0, SPARE, 0), "QED-JRN-07", "FREE_RUN of no cluster"),
    ("zero-with-a-value", Record(3, 1, L2 + 8, 1), "QED-JRN-07", "the value of L2_ZERO_RUN is 0"),
    (
        "clear-with-a-value",
        Record(4, 1, L2 + 8, SPARE),
        "QED-JRN-07",
        "the value of L2_CLEAR_RUN is 0",
    ),
    ("free-with-a-value", Record(5, 1, SPARE, 1), "QED-JRN-07", "the value of FREE_RUN is 0"),
    ("link-unaligned", Record(1, 1, L1 + 4, L2), "QED-JRN-08", "half a slot further on"),
    ("set-unaligned", Record(2, 1, L2 + 4, SPARE), "QED-JRN-08", "half an entry further on"),
    ("zero-unaligned", Record(3, 1, L2 + 1, 0), "QED-JRN-08", "a byte further on"),
    ("clear-unaligned", Record(4, 1, L2 + 7, 0), "QED-JRN-08", "a byte before the next"),
    (
        "set-in-the-header",
        Record(2, 1, 48, SPARE),
        "QED-JRN-08",
        "an entry in the place of image_size",
    ),
    ("zero-in-the-superblock", Record(3, 1, 0x2000, 0), "QED-JRN-08", "an entry in copy A"),
    ("set-in-the-l1-table", Record(2, 1, L1 + 8, SPARE), "QED-JRN-08", "no L2 entry lies there"),
    ("clear-in-the-l1-table", Record(4, 1, L1, 0), "QED-JRN-08", "nor does this unlink a table"),
    ("link-in-the-l2-table", Record(1, 1, L2 + 8, 0), "QED-JRN-08", "no L1 entry lies there"),
    ("link-behind-the-l1-table", Record(1, 1, L2, 0), "QED-JRN-08", "the slot behind the last"),
    ("set-in-data", Record(2, 1, DATA, SPARE), "QED-JRN-08", "an entry in a data cluster"),
    ("clear-in-nothing", Record(4, 1, SPARE, 0), "QED-JRN-08", "an entry in a cluster of no table"),
    (
        "set-past-the-table",
        Record(2, 2, L2 + 8 * (SLOTS - 1), DATA),
        "QED-JRN-08",
        "the second entry lies behind the table",
    ),
    (
        "clear-past-the-table",
        Record(4, 32769, L2, 0),
        "QED-JRN-08",
        "an entry more than the table has",
    ),
    (
        "zero-before-the-table",
        Record(3, 2, L2 - 8, 0),
        "QED-JRN-08",
        "the first entry is an L1 slot",
    ),
    ("zero-past-the-file", Record(3, 1, END, 0), "QED-JRN-08", "the first byte behind the file"),
    (
        "clear-end-wraps",
        Record(4, 2, 0u64.wrapping_sub(8), 0),
        "QED-JRN-08",
        "the end of the run is 8 in 64 bits",
    ),
    ("clear-longest", Record(4, u32::MAX, L2, 0), "QED-JRN-08", "the largest count"),
    (
        "set-value-unaligned",
        Record(2, 1, L2 + 8, SPARE + 512),
        "QED-JRN-08",
        "a sector inside the cluster",
    ),
    ("set-value-0", Record(2, 1, L2 + 8, 0), "QED-JRN-08", "the cluster of the header"),
    (
        "set-value-past-the-file",
        Record(2, 1, L2 + 8, END),
        "QED-JRN-08",
        "the first cluster behind the file",
    ),
    (
        "set-two-past-the-file",
        Record(2, 2, L2 + 8, SPARE),
        "QED-JRN-08",
        "the second cluster lies behind the file",
    ),
    (
        "set-value-wraps",
        Record(2, 2, L2 + 8, 0u64.wrapping_sub(CLUSTER)),
        "QED-JRN-08",
        "the end of the run is one cluster in 64 bits",
    ),
    (
        "set-the-l1-table",
        Record(2, 1, L2 + 8, L1),
        "QED-TBL-08",
        "an entry that names the L1 table",
    ),
    (
        "set-the-l2-table",
        Record(2, 1, L2 + 8, L2 + 3 * CLUSTER),
        "QED-TBL-08",
        "an entry that names the L2 table",
    ),
    (
        "set-over-the-l2-table",
        Record(2, 2, L2 + 8, L2 - CLUSTER),
        "QED-TBL-08",
        "a run that ends in the L2 table",
    ),
    (
        "link-unaligned-value",
        Record(1, 1, L1 + 8, DATA + 512),
        "QED-JRN-08",
        "a table inside a cluster",
    ),
    ("link-the-header-area", Record(1, 1, L1 + 8, 1), "QED-JRN-08", "1 is no table"),
    (
        "link-past-the-file",
        Record(1, 1, L1 + 8, DATA),
        "QED-JRN-08",
        "a table of four clusters, and two are left",
    ),
    ("link-the-l1-table", Record(1, 1, L1 + 8, L1), "QED-TBL-08", "the L1 table as an L2 table"),
    (
        "link-the-l2-table",
        Record(1, 1, L1 + 8, L2),
        "QED-TBL-08",
        "a table that another slot names",
    ),
    ("free-unaligned", Record(5, 1, SPARE + 512, 0), "QED-JRN-08", "a sector inside the cluster"),
    ("free-the-header-area", Record(5, 1, 0, 0), "QED-JRN-08", "clusters of the header area"),
    (
        "free-past-the-file",
        Record(5, 2, SPARE, 0),
        "QED-JRN-08",
        "the second cluster lies behind the file",
    ),
];

/// A name, the physical_size of one or of two commits, a clause, and what it is about.
const SIZES: [(&str, &[u64], &str, &str); 7] = [
    ("0", &[0], "QED-JRN-14", "a file without clusters"),
    ("of-the-header-area", &[1], "QED-JRN-14", "a file that ends before the L1 table"),
    (
        "in-the-l1-table",
        &[4],
        "QED-JRN-14",
        "a file that ends before the last cluster of the L1 table",
    ),
    (
        "in-the-l2-table",
        &[8],
        "QED-JRN-14",
        "a file that ends before the last cluster of the L2 table",
    ),
    ("falls", &[SIZE, SIZE - 1], "QED-JRN-14", "the second commit is of a shorter file"),
    ("wraps", &[1 << 48], "QED-JRN-14", "2 to the 64 bytes"),
    ("all-ones", &[u64::MAX], "QED-JRN-14", "the largest number"),
];

fn applied((name, record, what, tables): &(&str, Record, &str, &Entries)) -> Vector {
    let scene = Scene::crashed(vec![Block::single(1, &[*record])]);
    let vector = scene.vector(format!("jrn-record-{name}"), "QED-JRN-07", what);
    Vector { expect: seen(tables), qemu: qemu_refuses(), ..vector }
}

/// A table that the file has room for, linked and filled by one commit.
fn linked() -> Vector {
    let records = [Record(1, 1, L1 + 8, END), Record(2, 1, END, SPARE)];
    let size = SIZE + 4;
    let mut scene =
        Scene::crashed(vec![Block { physical_size: size, ..Block::single(1, &records) }]);
    scene.file_len = size * CLUSTER;
    let what = "L1_SET of a new table, and an entry of that; the disk needs neither";
    let vector = scene.vector("jrn-record-link".to_owned(), "QED-JRN-09", what);
    let mut expect = Expect { check: Some("leaks"), ..seen(AS_LAID) };
    expect.after_write.push(Run { at: L1, bytes: Bytes::U64(vec![L2, END]) });
    Vector { expect, qemu: qemu_refuses(), ..vector }
}

/// The table of the image, which is taken out.
fn unlinked() -> Vector {
    let scene = Scene::crashed(vec![Block::single(1, &[Record(1, 1, L1, 0)])]);
    let what = "L1_SET to 0 of the slot of the only table, which is free then";
    let vector = scene.vector("jrn-record-unlink".to_owned(), "QED-JRN-07", what);
    let after_write = vec![Run::u64(16, 0), Run::u64(L1, 0)];
    Vector { expect: Expect { after_write, ..seen(&[]) }, qemu: qemu_refuses(), ..vector }
}

fn not_followed((name, record, clause, what): &(&str, Record, &'static str, &str)) -> Vector {
    let scene = Scene::crashed(vec![Block::single(1, &[*record])]);
    let vector = scene.vector(format!("jrn-record-{name}"), clause, what);
    Vector { expect: refused(clause), qemu: qemu_refuses(), ..vector }
}

fn wrong_size((name, sizes, clause, what): &(&str, &[u64], &'static str, &str)) -> Vector {
    let block = |(sequence, size): (u64, &u64)| Block {
        physical_size: *size,
        ..Block::single(sequence, &[])
    };
    let scene = Scene::crashed((1..).zip(*sizes).map(block).collect());
    let vector = scene.vector(format!("jrn-size-{name}"), clause, what);
    Vector { expect: refused(clause), qemu: qemu_refuses(), ..vector }
}
