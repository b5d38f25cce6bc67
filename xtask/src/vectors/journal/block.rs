//! Blocks whose checksum is right and which break a rule.

use super::scene::{Block, Scene, qemu_refuses, refused, spare_at};
use crate::vectors::vector::{Family, Vector};

/// A name, a clause, what it is about, and what is done to a commit of one block.
type Case = (&'static str, &'static str, &'static str, fn(&mut Block));

pub(super) fn families() -> Vec<Family> {
    vec![Family {
        name: "journal-block-reject",
        about: &[
            "Logs of one block that is intact, so that a crash cannot have made it what it is.",
        ],
        vectors: CASES.iter().map(vector).collect(),
    }]
}

const CASES: [Case; 18] = [
    ("version-0", "QED-JRN-06", "the version before the first", |block| block.version = 0),
    ("version-2", "QED-JRN-06", "the version after this one", |block| block.version = 2),
    ("index-is-count", "QED-JRN-06", "the block behind the last of its commit", |block| {
        block.index = 1;
    }),
    ("index-all-ones", "QED-JRN-06", "the largest index", |block| block.index = u32::MAX),
    ("count-0", "QED-JRN-06", "a commit without blocks", |block| block.count = 0),
    ("generation-0", "QED-JRN-06", "no superblock has the generation 0", |block| {
        block.generation = 0;
    }),
    ("stable-is-itself", "QED-JRN-06", "durable before it was written", |block| block.stable = 1),
    ("stable-is-next", "QED-JRN-06", "the block behind it was durable", |block| block.stable = 2),
    ("stable-all-ones", "QED-JRN-06", "the largest number", |block| block.stable = u64::MAX),
    ("used-1", "QED-JRN-06", "a byte of a record", |block| block.used = Some(1)),
    ("used-23", "QED-JRN-06", "a byte less than a record", |block| block.used = Some(23)),
    ("used-25", "QED-JRN-06", "a byte more than a record", |block| block.used = Some(25)),
    ("used-4056", "QED-JRN-06", "169 records", |block| block.used = Some(4056)),
    ("used-all-ones", "QED-JRN-06", "the largest length", |block| block.used = Some(u32::MAX)),
    ("used-less-than-there-is", "QED-JRN-06", "a record lies behind the records", |block| {
        block.used = Some(0);
    }),
    ("reserved", "QED-JRN-06", "a bit of the reserved bytes", |block| block.reserved = 1 << 31),
    ("behind-the-records", "QED-JRN-06", "the first byte behind the records", |block| {
        block.behind = Some(64 + 24);
    }),
    ("last-byte", "QED-JRN-06", "the last byte of the block", |block| block.behind = Some(4095)),
];

fn vector((name, clause, what, change): &Case) -> Vector {
    let mut block = Block::single(1, &[spare_at(1)]);
    change(&mut block);
    let vector = Scene::crashed(vec![block]).vector(format!("jrn-block-{name}"), clause, what);
    Vector { expect: refused(clause), qemu: qemu_refuses(), ..vector }
}
