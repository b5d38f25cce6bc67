//! What a crash leaves of a log that is in order: commits that count, and a tail that was torn off.

use super::scene::{
    AS_LAID, B, BOTH, Block, DATA, Entries, L2, Record, Ring, SIZE, SPARE, Scene, Superblock,
    qemu_refuses, seen, spare_at,
};
use crate::vectors::vector::{Family, Run, Vector};

/// A name, a clause, what it is about, the image, and its tables once the log is applied.
type Case = (&'static str, &'static str, &'static str, fn() -> Scene, &'static Entries);

pub(super) fn families() -> Vec<Family> {
    vec![
        Family {
            name: "journal-log-accept",
            about: &[
                "Images that were open when everything stopped. A reader shows them with their log applied;",
                "who opens them for writing finds the log in the tables, and JOURNAL_ACTIVE is clear.",
            ],
            vectors: WHOLE.iter().map(vector).chain([grown()]).collect(),
        },
        Family {
            name: "journal-torn-accept",
            about: &[
                "Logs that end early. Nothing says that the missing blocks were durable, so nothing is lost,",
                "and what counts are the whole commits before them.",
            ],
            vectors: TORN.iter().map(vector).collect(),
        },
    ]
}

fn vector((name, clause, what, scene, tables): &Case) -> Vector {
    let vector = scene().vector(format!("jrn-{name}"), clause, what);
    Vector { expect: seen(tables), qemu: qemu_refuses(), ..vector }
}

/// The file lacks the cluster that the commit names. It grows, and new bytes are zeros.
fn grown() -> Vector {
    let scene = Scene { file_len: SPARE, ..crashed(vec![one()]) };
    let what = "the file lacks a cluster that the commit names: it grows";
    let vector = scene.vector("jrn-log-file-too-short".to_owned(), "QED-JRN-14", what);
    let mut expect = seen(BOTH);
    expect.content[1] = Run::fill(expect.content[1].at, 0, 512);
    Vector { expect, qemu: qemu_refuses(), ..vector }
}

const WHOLE: [Case; 20] = [
    (
        "log-at-the-last-number",
        "QED-JRN-03",
        "block 2 to the 62: recovery ends with a number that no tail has",
        || at_tail(1 << 62, vec![Block::single(1 << 62, &[spare_at(1)])]),
        BOTH,
    ),
    (
        "log-empty",
        "QED-JRN-11",
        "no block: the tables are as they are",
        || crashed(vec![]),
        AS_LAID,
    ),
    ("log-of-one", "QED-JRN-09", "a commit of one block", || crashed(vec![one()]), BOTH),
    (
        "log-of-another-order",
        "QED-JRN-09",
        "the later of two records for one entry counts",
        || {
            let clear = Record(4, 1, L2 + 8, 0);
            crashed(vec![Block::single(1, &[clear, spare_at(1)])])
        },
        BOTH,
    ),
    (
        "log-two-commits",
        "QED-JRN-11",
        "the later of two commits for one entry counts",
        || crashed(vec![one(), Block::single(2, &[Record(3, 1, L2 + 8, 0)])]),
        &[(0, DATA), (1, 1)],
    ),
    (
        "log-of-two-blocks",
        "QED-JRN-09",
        "a commit of two blocks",
        || crashed(Block::commit(1, &[spare_at(1), Record(3, 2, L2 + 16, 0)])),
        &[(0, DATA), (1, SPARE), (2, 1), (3, 1)],
    ),
    (
        "log-of-half-the-ring",
        "QED-JRN-09",
        "a commit of four blocks, the most that eight take",
        || crashed(Block::commit(1, &zeros_and_spare())),
        ZEROS_AND_SPARE,
    ),
    (
        "log-full",
        "QED-JRN-11",
        "two commits fill the ring",
        || {
            let mut blocks = Block::commit(1, &zeros_and_spare());
            blocks.extend(Block::commit(5, &zeros_and_spare()));
            crashed(blocks)
        },
        ZEROS_AND_SPARE,
    ),
    (
        "log-without-records",
        "QED-JRN-06",
        "a block of 0 bytes of records",
        || crashed(vec![Block::single(1, &[])]),
        AS_LAID,
    ),
    (
        "log-of-168-records",
        "QED-JRN-06",
        "4032 bytes of records: a full block",
        || {
            let mut records = vec![Record(4, 1, L2 + 24, 0); 167];
            records.push(spare_at(1));
            crashed(vec![Block::single(1, &records)])
        },
        BOTH,
    ),
    (
        "log-wraps",
        "QED-JRN-03",
        "blocks 7, 8 and 9 lie in the places 7, 0 and 1 of 8",
        || at_tail(7, Block::commit(7, &zeros_and_spare()[1..])),
        &[(0, DATA), (1, SPARE), (3, 1), (4, 1)],
    ),
    (
        "log-of-12-blocks",
        "QED-JRN-03",
        "block 25 lies in place 1 of 12",
        || {
            let mut scene = at_tail(25, vec![Block::single(25, &[spare_at(1)])]);
            scene.ring.len = 0xc000;
            scene
        },
        BOTH,
    ),
    (
        "log-behind-the-tail",
        "QED-JRN-11",
        "block 1, before the tail, does not count any more",
        || {
            let over = Block::single(1, &[Record(3, 1, L2, 0)]);
            let mut scene = at_tail(2, vec![over]);
            scene.blocks.push(Block::single(2, &[spare_at(1)]));
            scene
        },
        BOTH,
    ),
    (
        "log-first-has-no-before",
        "QED-JRN-10",
        "previous_crc32c at the tail is not looked at",
        || crashed(vec![Block { wrong_previous: 0xdead_beef, ..one() }]),
        BOTH,
    ),
    (
        "log-of-an-older-superblock",
        "QED-JRN-13",
        "written when generation 1 was current, now 2 is",
        || Scene { generation: 2, ..crashed(vec![one()]) },
        BOTH,
    ),
    (
        "log-stable-far-back",
        "QED-JRN-06",
        "stable_sequence 0 in block 2",
        || {
            let second = Block { stable: 0, ..Block::single(2, &[spare_at(1)]) };
            crashed(vec![Block::single(1, &[]), second])
        },
        BOTH,
    ),
    (
        "log-all-durable",
        "QED-JRN-12",
        "the superblock knows that block 1 is durable, and it is there",
        || stable(1, crashed(vec![one()])),
        BOTH,
    ),
    (
        "log-file-longer",
        "QED-JRN-14",
        "the file has a cluster more than the commit says",
        || {
            let block =
                Block { physical_size: SIZE - 1, ..Block::single(1, &[Record(3, 1, L2 + 8, 0)]) };
            crashed(vec![block])
        },
        &[(0, DATA), (1, 1)],
    ),
    (
        "log-size-grows",
        "QED-JRN-14",
        "the second commit is of a larger file",
        || {
            let first =
                Block { physical_size: SIZE - 1, ..Block::single(1, &[Record(3, 1, L2 + 16, 0)]) };
            crashed(vec![first, Block::single(2, &[spare_at(1)])])
        },
        &[(0, DATA), (1, SPARE), (2, 1)],
    ),
    (
        "log-bit-cleared",
        "QED-SB-14",
        "JOURNAL is clear, and JOURNAL_ACTIVE is enough",
        || {
            let mut scene = crashed(vec![one()]);
            scene.header.autoclear_features = 0;
            scene
        },
        BOTH,
    ),
];

const TORN: [Case; 19] = [
    (
        "torn-magic",
        "QED-JRN-06",
        "a block without its magic is absent",
        || crashed(vec![one(), Block { magic: "QEDI", ..second() }]),
        BOTH,
    ),
    (
        "torn-checksum",
        "QED-JRN-05",
        "a block whose checksum is off by a bit is absent",
        || crashed(vec![one(), Block { wrong: 0x8000_0000, ..second() }]),
        BOTH,
    ),
    (
        "torn-checksum-of-the-first",
        "QED-JRN-11",
        "then the log is empty",
        || crashed(vec![Block { wrong: 1, ..one() }]),
        AS_LAID,
    ),
    (
        "torn-is-not-judged",
        "QED-JRN-06",
        "nothing else is asked of a block that is absent",
        || {
            let worst = Block { version: 9, index: 7, used: Some(25), reserved: 1, ..second() };
            crashed(vec![one(), Block { wrong: 1, ..worst }])
        },
        BOTH,
    ),
    (
        "torn-of-another-image",
        "QED-JRN-05",
        "a block with another uuid in its checksum",
        || crashed(vec![one(), Block { uuid: [0; 16], ..second() }]),
        BOTH,
    ),
    (
        "torn-of-another-epoch",
        "QED-JRN-05",
        "a block of an earlier run, with the number to come",
        || crashed(vec![one(), Block { epoch: 1, ..second() }]),
        BOTH,
    ),
    (
        "torn-of-an-epoch-from-the-tail",
        "QED-JRN-05",
        "what an earlier run left is no log",
        || {
            let mut blocks = Block::commit(1, &zeros_and_spare());
            blocks.iter_mut().for_each(|block| block.epoch = 1);
            crashed(blocks)
        },
        AS_LAID,
    ),
    (
        "torn-of-an-epoch-is-not-judged",
        "QED-JRN-13",
        "nor an error, whatever its number",
        || crashed(vec![one(), Block { epoch: 1, sequence: 77, place: Some(2), ..second() }]),
        BOTH,
    ),
    (
        "torn-last-of-two",
        "QED-JRN-11",
        "a commit that lacks its last block is no part of the log",
        || crashed(without(1, Block::commit(1, &[spare_at(1), Record(3, 1, L2, 0)]))),
        AS_LAID,
    ),
    (
        "torn-first-of-two",
        "QED-JRN-11",
        "nor one that lacks its first",
        || crashed(without(0, Block::commit(1, &[spare_at(1), Record(3, 1, L2, 0)]))),
        AS_LAID,
    ),
    (
        "torn-middle-of-four",
        "QED-JRN-11",
        "nor one that lacks one in the middle",
        || crashed(without(2, Block::commit(1, &zeros_and_spare()))),
        AS_LAID,
    ),
    (
        "torn-second-commit",
        "QED-JRN-12",
        "the commit before it was durable, and is there",
        || {
            let mut blocks = vec![one()];
            let commit = Block::commit(2, &[Record(3, 1, L2, 0), Record(3, 1, L2 + 8, 0)]);
            blocks.extend(without(1, commit));
            crashed(blocks)
        },
        BOTH,
    ),
    (
        "torn-and-a-commit-behind",
        "QED-JRN-12",
        "block 3 is there; it knows of no durable block but 1",
        || {
            let third = Block { stable: 1, ..Block::single(3, &[Record(3, 1, L2, 0)]) };
            crashed(vec![one(), Block { wrong: 1, ..second() }, third])
        },
        BOTH,
    ),
    (
        "torn-by-the-lap-before",
        "QED-JRN-06",
        "block 1 lies where block 9 was to be",
        || {
            let mut blocks = vec![Block::single(1, &[Record(3, 1, L2, 0)])];
            blocks.push(Block::single(8, &[spare_at(1)]));
            at_tail(8, blocks)
        },
        BOTH,
    ),
    (
        "torn-by-the-lap-before-that",
        "QED-JRN-06",
        "nor do two laps make a difference",
        || at_tail(17, vec![Block::single(1, &[Record(3, 1, L2, 0)])]),
        AS_LAID,
    ),
    (
        "torn-with-old-blocks-behind",
        "QED-JRN-12",
        "the rest of the ring is of the lap before",
        || {
            let mut blocks = Block::commit(3, &zeros_and_spare());
            blocks.extend([7, 8].map(|sequence| Block::single(sequence, &[])));
            blocks.push(Block::single(9, &[spare_at(1)]));
            at_tail(9, blocks)
        },
        BOTH,
    ),
    (
        "torn-after-a-wrap",
        "QED-JRN-11",
        "block 7 counts; block 8, in place 0, is torn",
        || {
            at_tail(
                7,
                vec![
                    Block::single(7, &[spare_at(1)]),
                    torn(Block::single(8, &[Record(3, 2, L2, 0)])),
                ],
            )
        },
        BOTH,
    ),
    (
        "torn-and-the-tail-of-copy-b",
        "QED-JRN-11",
        "copy B is older, and its tail would find block 1",
        || {
            let older = Scene::clean().superblock();
            let mut scene = at_tail(2, vec![Block::single(1, &[Record(3, 1, L2, 0)])]);
            scene.older = Some(Superblock { at: B, ..older });
            Scene { generation: 2, ..scene }
        },
        AS_LAID,
    ),
    (
        "torn-record-is-not-judged",
        "QED-JRN-23",
        "a record of kind 9 in a commit that lacks a block",
        || crashed(without(1, Block::commit(1, &[Record(9, 1, L2, 0), spare_at(1)]))),
        AS_LAID,
    ),
];

/// A commit of the block 1, which names the spare cluster.
fn one() -> Block {
    Block::single(1, &[spare_at(1)])
}

/// A commit of the block 2, which would take both clusters away.
fn second() -> Block {
    Block::single(2, &[Record(3, 2, L2, 0)])
}

fn torn(block: Block) -> Block {
    Block { wrong: 1, ..block }
}

/// Four records.
fn zeros_and_spare() -> Vec<Record> {
    [2, 3, 4].map(|slot| Record(3, 1, L2 + 8 * slot, 0)).into_iter().chain([spare_at(1)]).collect()
}

const ZEROS_AND_SPARE: &Entries = &[(0, DATA), (1, SPARE), (2, 1), (3, 1), (4, 1)];

/// Leaves a block torn.
fn without(index: usize, mut blocks: Vec<Block>) -> Vec<Block> {
    blocks[index].wrong = 1;
    blocks
}

fn crashed(blocks: Vec<Block>) -> Scene {
    Scene::crashed(blocks)
}

fn at_tail(tail: u64, blocks: Vec<Block>) -> Scene {
    let ring = Ring { tail, stable: tail - 1, ..Ring::EMPTY };
    Scene { ring, ..crashed(blocks) }
}

fn stable(stable: u64, scene: Scene) -> Scene {
    Scene { ring: Ring { stable, ..scene.ring }, ..scene }
}
