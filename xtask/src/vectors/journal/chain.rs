//! Logs whose blocks do not follow each other, and logs that lack what was durable.

use super::scene::{Block, L2, Record, Ring, SIZE, Scene, qemu_refuses, refused, spare_at};
use crate::vectors::vector::{Expect, Family, Header, Vector};

/// A name, a clause, what it is about, and the image.
type Case = (&'static str, &'static str, &'static str, fn() -> Scene);

pub(super) fn families() -> Vec<Family> {
    vec![
        Family {
            name: "journal-chain-reject",
            about: &[
                "Logs with an intact block that breaks the chain. The header is told; nothing of the disk is",
                "read, and nothing is written.",
            ],
            vectors: CHAIN.iter().map(|case| vector("chain", case)).collect(),
        },
        Family {
            name: "journal-lost-reject",
            about: &["Logs that lack a block of which something says that it was durable."],
            vectors: LOST.iter().map(|case| vector("lost", case)).collect(),
        },
        Family {
            name: "journal-long-commit-accept",
            about: &["A ring of 600 blocks, in which a commit may have 256."],
            vectors: vec![longest()],
        },
    ]
}

fn vector(family: &str, (name, clause, what, scene): &Case) -> Vector {
    let vector = scene().vector(format!("jrn-{family}-{name}"), clause, what);
    Vector { expect: refused(clause), qemu: qemu_refuses(), ..vector }
}

/// The first block of the longest commit, torn off behind that.
fn longest() -> Vector {
    let vector = of_many(256).vector(
        "jrn-torn-commit-of-256".to_owned(),
        "QED-JRN-09",
        "the first block of the longest commit; the rest was never written",
    );
    let expect = Expect { check: Some("clean"), ..Expect::accept() };
    Vector { expect, qemu: qemu_refuses(), ..vector }
}

const CHAIN: [Case; 18] = [
    ("half-and-one", "QED-JRN-09", "five blocks are more than half of eight", || {
        crashed(Block::commit(1, &[spare_at(1); 5]))
    }),
    ("count-257", "QED-JRN-09", "a commit of 257 blocks in a ring of 600", || of_many(257)),
    ("count-all-ones", "QED-JRN-09", "the largest count", || {
        crashed(vec![Block { count: u32::MAX, ..one() }])
    }),
    ("first-has-index-1", "QED-JRN-09", "a commit begins with its second block", || {
        crashed(vec![Block { index: 1, count: 2, ..one() }])
    }),
    ("second-has-index-0", "QED-JRN-09", "a commit of one block inside one of two", || {
        crashed(changed(1, |block| (block.index, block.count) = (0, 1)))
    }),
    ("index-skipped", "QED-JRN-09", "the index 2 follows 0", || {
        let mut blocks = Block::commit(1, &[spare_at(1); 3]);
        blocks[1].index = 2;
        crashed(blocks)
    }),
    ("another-count", "QED-JRN-09", "the second block of two is of a commit of three", || {
        crashed(changed(1, |block| block.count = 3))
    }),
    ("another-size", "QED-JRN-09", "the blocks of a commit differ in physical_size", || {
        crashed(changed(1, |block| block.physical_size = SIZE + 1))
    }),
    ("previous-in-a-commit", "QED-JRN-10", "previous_crc32c is off by a bit", || {
        crashed(changed(1, |block| block.wrong_previous = 1))
    }),
    ("previous-of-a-commit", "QED-JRN-10", "the second commit does not follow the first", || {
        crashed(vec![one(), Block { wrong_previous: 1, ..Block::single(2, &[]) }])
    }),
    ("place-of-a-later-block", "QED-JRN-13", "block 2 in the place of block 1", || {
        crashed(vec![Block { place: Some(1), ..Block::single(2, &[spare_at(1)]) }])
    }),
    ("place-of-an-earlier-block", "QED-JRN-13", "block 1 in the place of block 2", || {
        crashed(vec![one(), Block { place: Some(2), ..one() }])
    }),
    ("of-the-next-lap", "QED-JRN-13", "block 9 in place 1, where 1 was to be", || {
        crashed(vec![Block::single(9, &[spare_at(1)])])
    }),
    (
        "behind-the-end",
        "QED-JRN-13",
        "block 5 in the place of block 3, behind a torn commit",
        || crashed(vec![one(), Block { place: Some(3), stable: 1, ..Block::single(5, &[]) }]),
    ),
    (
        "newer-than-the-superblock",
        "QED-JRN-13",
        "it was written when generation 2 was current",
        || crashed(vec![Block { generation: 2, ..one() }]),
    ),
    ("newer-in-the-second", "QED-JRN-13", "the same of the second block of a commit", || {
        crashed(changed(1, |block| block.generation = 2))
    }),
    ("newest", "QED-JRN-13", "the largest generation", || {
        crashed(vec![Block { generation: u64::MAX, ..one() }])
    }),
    (
        "second-commit",
        "QED-JRN-06",
        "the commit before it is sound, and is not applied either",
        || crashed(vec![one(), Block { version: 2, ..Block::single(2, &[]) }]),
    ),
];

const LOST: [Case; 10] = [
    ("first", "QED-JRN-12", "the superblock knows block 1, which is not there", || {
        stable(1, crashed(vec![]))
    }),
    ("first-of-two", "QED-JRN-12", "block 2 is there, block 1 is torn", || {
        stable(1, crashed(vec![torn(one()), Block::single(2, &[])]))
    }),
    ("second", "QED-JRN-12", "the superblock knows block 2, and the log ends with block 1", || {
        stable(2, crashed(vec![one()]))
    }),
    (
        "last-of-a-lap",
        "QED-JRN-12",
        "the superblock knows a full ring, which lacks the last block",
        || {
            let mut blocks = Block::commit(1, &[spare_at(1); 4]);
            blocks.extend(Block::commit(5, &[spare_at(1); 3]));
            stable(8, crashed(blocks))
        },
    ),
    ("part-of-a-commit", "QED-JRN-12", "block 1 was durable, and its commit lacks block 2", || {
        let mut blocks = Block::commit(1, &[spare_at(1); 2]);
        blocks[1].wrong = 1;
        stable(1, crashed(blocks))
    }),
    (
        "by-a-block-behind",
        "QED-JRN-12",
        "block 2 is torn, and block 3 knows that it was durable",
        || crashed(vec![one(), torn(Block::single(2, &[])), Block::single(3, &[])]),
    ),
    (
        "by-the-last-that-could",
        "QED-JRN-12",
        "two commits of greatest length lie behind: block 9 knows",
        || {
            let first = Block { stable: 1, ..Block::single(9, &[]) };
            let ring = Ring { tail: 2, stable: 1, ..Ring::EMPTY };
            Scene { ring, ..crashed(vec![Block { stable: 2, ..first }]) }
        },
    ),
    (
        "after-a-wrap",
        "QED-JRN-12",
        "block 8, in place 0, is torn; block 9 knows that it was durable",
        || {
            let ring = Ring { tail: 7, stable: 6, ..Ring::EMPTY };
            let blocks = vec![
                Block::single(7, &[spare_at(1)]),
                torn(Block::single(8, &[])),
                Block::single(9, &[]),
            ];
            Scene { ring, ..crashed(blocks) }
        },
    ),
    ("to-the-lap-before", "QED-JRN-12", "block 1 lies where the superblock knows block 9", || {
        let ring = Ring { tail: 9, stable: 9, ..Ring::EMPTY };
        Scene { ring, ..crashed(vec![Block::single(1, &[spare_at(1)])]) }
    }),
    (
        "to-another-epoch",
        "QED-JRN-12",
        "a block of an earlier run lies where block 1 was durable",
        || stable(1, crashed(vec![Block { epoch: 1, ..one() }])),
    ),
];

fn one() -> Block {
    Block::single(1, &[spare_at(1)])
}

fn torn(block: Block) -> Block {
    Block { wrong: 1, ..block }
}

/// A commit of two blocks, one of them changed.
fn changed(index: usize, change: fn(&mut Block)) -> Vec<Block> {
    let mut blocks = Block::commit(1, &[spare_at(1), Record(3, 1, L2 + 16, 0)]);
    change(&mut blocks[index]);
    blocks
}

fn crashed(blocks: Vec<Block>) -> Scene {
    Scene::crashed(blocks)
}

fn stable(stable: u64, scene: Scene) -> Scene {
    Scene { ring: Ring { stable, ..scene.ring }, ..scene }
}

/// A ring of 600 blocks, and the first block of a commit of so many.
fn of_many(count: u32) -> Scene {
    const HEADER_SIZE: u64 = 64;
    let clean = Header::default();
    let size = HEADER_SIZE + clean.table_size;
    let block = Block { count, physical_size: size, ..Block::single(1, &[]) };
    let scene = crashed(vec![block]);
    Scene {
        header: Header {
            header_size: HEADER_SIZE,
            l1_table_offset: HEADER_SIZE * clean.cluster_size,
            ..scene.header
        },
        file_len: size * clean.cluster_size,
        ring: Ring { len: 600 * 4096, ..Ring::EMPTY },
        ..scene
    }
}
