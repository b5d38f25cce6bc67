//! The section JOURNAL of an image that was closed: where a ring may lie, and how far its numbers go.

use super::scene::{
    ACTIVE, AS_LAID, B, Block, JOURNAL, Scene, Superblock, TABLE_DIRTY, seen, spare_at,
};
use crate::vectors::vector::{Bytes, Expect, Family, Header, Qemu, Run, Vector};

/// An image whose header area takes the largest ring, in the shape with the least clusters that
/// QEMU opens.
const LARGE: Header = Header {
    cluster_size: 0x20_0000,
    table_size: 4,
    header_size: 513,
    features: 0,
    compat_features: 0,
    autoclear_features: JOURNAL,
    l1_table_offset: 513 * 0x20_0000,
    image_size: 1 << 20,
    backing_filename_offset: 0,
    backing_filename_size: 0,
};
const GIB: u64 = 1 << 30;

/// A name, a clause, what it is about, and what it does to a closed image.
type Case = (&'static str, &'static str, &'static str, fn(&mut Scene));

pub(super) fn families() -> Vec<Family> {
    vec![
        Family {
            name: "journal-ring-accept",
            about: &[
                "Closed images in journal mode. The ring lies in the header area, and whoever opens the",
                "image for writing goes on in it.",
            ],
            vectors: SOUND.iter().map(sound).collect(),
        },
        Family {
            name: "journal-ring-reject",
            about: &[
                "Closed images in journal mode whose ring breaks a rule: they are read, and not written.",
            ],
            vectors: BROKEN.iter().map(broken).chain(PAYLOADS.iter().map(payload)).collect(),
        },
        Family {
            name: "journal-ring-active-reject",
            about: &[
                "The same with JOURNAL_ACTIVE: what the ring holds is not known, so nothing is read.",
            ],
            vectors: BROKEN.iter().filter(|case| is_of_any_image(case)).map(active).collect(),
        },
    ]
}

const SOUND: [Case; 17] = [
    ("smallest", "QED-JRN-02", "8 blocks at byte 16384", |_| {}),
    ("to-the-end", "QED-JRN-02", "the 8 last blocks of the header area", |scene| {
        scene.ring.at = 0x8000;
    }),
    ("of-the-rest", "QED-JRN-02", "12 blocks, all that the header area has", |scene| {
        scene.ring.len = 0xc000;
    }),
    ("largest", "QED-JRN-02", "262144 blocks", |scene| large(scene, GIB)),
    ("name-before", "QED-JRN-02", "the name ends where the ring begins", |scene| {
        scene.ring.at = 0x5000;
        name_at(scene, 0x5000 - 8);
    }),
    ("name-behind", "QED-JRN-02", "the name begins where the ring ends", |scene| {
        name_at(scene, 0xc000);
    }),
    ("bitmap-before", "QED-JRN-02", "the dirty bitmap ends where the ring begins", |scene| {
        scene.ring.at = 0x5000;
        bitmap_at(scene, 0x5000 - 512);
    }),
    ("bitmap-behind", "QED-JRN-02", "the dirty bitmap begins where the ring ends", |scene| {
        bitmap_at(scene, 0xc000);
    }),
    ("over-no-bitmap", "QED-SB-14", "TABLE_DIRTY is clear, so its section says nothing", |scene| {
        bitmap_at(scene, 0x4000);
        scene.header.autoclear_features = JOURNAL;
    }),
    ("tail-2-to-the-62", "QED-JRN-03", "the last number that a tail may have", |scene| {
        (scene.ring.tail, scene.ring.stable) = (1 << 62, (1 << 62) - 1);
    }),
    ("in-the-middle", "QED-JRN-03", "tail 6 of 8, with what lay there before", |scene| {
        scene.blocks = vec![Block::single(5, &[spare_at(1)])];
        (scene.ring.tail, scene.ring.stable) = (6, 5);
    }),
    ("bit-cleared", "QED-JRN-31", "another program cleared JOURNAL: a new epoch", |scene| {
        scene.header.autoclear_features = 0;
    }),
    ("bit-cleared-with-blocks", "QED-JRN-31", "no block counts then", |scene| {
        scene.header.autoclear_features = 0;
        scene.blocks = Block::commit(1, &[spare_at(1), spare_at(2)]);
    }),
    ("bit-cleared-and-not-empty", "QED-JRN-31", "nor what the section says is durable", |scene| {
        scene.header.autoclear_features = 0;
        scene.blocks = Block::commit(1, &[spare_at(1), spare_at(2)]);
        scene.ring.stable = 2;
    }),
    ("closed-with-blocks", "QED-JRN-16", "without JOURNAL_ACTIVE nothing is applied", |scene| {
        scene.blocks = vec![Block::single(1, &[spare_at(1)])];
    }),
    (
        "of-an-older-copy",
        "QED-SB-10",
        "the ring of copy B, which is older, is too short",
        |scene| {
            let mut older = Scene::clean();
            older.ring.len = 0x7000;
            scene.older = Some(Superblock { at: B, ..older.superblock() });
            scene.generation = 2;
        },
    ),
    ("kept-section", "QED-SB-13", "with a section of type 99 behind it", |scene| {
        scene.sections.push((99, Bytes::Text("whatever".to_owned())));
    }),
];

const BROKEN: [Case; 23] = [
    ("of-7-blocks", "QED-JRN-02", "a block less than the least", |scene| {
        scene.ring.len = 0x7000;
    }),
    ("of-no-blocks", "QED-JRN-02", "a ring without a block", |scene| scene.ring.len = 0),
    ("of-8-blocks-and-a-half", "QED-JRN-02", "the last block is half a block", |scene| {
        scene.ring.len = 0x8800;
    }),
    ("a-block-too-long", "QED-JRN-02", "262145 blocks", |scene| large(scene, GIB + 4096)),
    ("at-zero", "QED-JRN-02", "the ring would begin with the header", |scene| scene.ring.at = 0),
    ("in-the-superblock", "QED-JRN-02", "the ring would begin with copy B", |scene| {
        scene.ring.at = 0x3000;
    }),
    ("unaligned", "QED-JRN-02", "a sector behind 16384", |scene| scene.ring.at = 0x4200),
    ("past-the-header-area", "QED-JRN-02", "the last block is of the L1 table", |scene| {
        scene.ring.at = 0x9000;
    }),
    ("behind-the-header-area", "QED-JRN-02", "clusters that a table could name", |scene| {
        scene.ring.at = 0x10_0000;
    }),
    ("end-wraps", "QED-JRN-02", "the end of the ring is 0 in 64 bits", |scene| {
        scene.ring.at = 0u64.wrapping_sub(0x8000);
    }),
    ("len-wraps", "QED-JRN-02", "the longest length that is aligned", |scene| {
        scene.ring.len = 0u64.wrapping_sub(4096);
    }),
    ("begins-in-the-name", "QED-JRN-02", "the last byte of the name is its first", |scene| {
        scene.ring.at = 0x5000;
        name_at(scene, 0x5000 - 7);
    }),
    ("ends-in-the-name", "QED-JRN-02", "the first byte of the name is its last", |scene| {
        name_at(scene, 0xc000 - 1);
    }),
    ("begins-in-the-bitmap", "QED-JRN-02", "the last sector of the bitmap is its first", |scene| {
        scene.ring.at = 0x5000;
        bitmap_at(scene, 0x5000);
    }),
    ("ends-in-the-bitmap", "QED-JRN-02", "the first sector of the bitmap is its last", |scene| {
        bitmap_at(scene, 0xc000 - 512);
    }),
    ("tail-0", "QED-JRN-03", "numbers begin with 1", |scene| scene.ring.tail = 0),
    ("tail-past-2-to-the-62", "QED-JRN-03", "one more than a tail may have", |scene| {
        (scene.ring.tail, scene.ring.stable) = ((1 << 62) + 1, 1 << 62);
    }),
    ("tail-all-ones", "QED-JRN-03", "the largest number", |scene| {
        (scene.ring.tail, scene.ring.stable) = (u64::MAX, u64::MAX - 1);
    }),
    ("stable-too-low", "QED-JRN-03", "two before the tail", |scene| {
        (scene.ring.tail, scene.ring.stable) = (5, 3);
    }),
    ("stable-too-high", "QED-JRN-03", "the tail of the next lap", |scene| {
        (scene.ring.tail, scene.ring.stable) = (5, 5 + 8);
    }),
    ("stable-all-ones", "QED-JRN-03", "the largest number", |scene| {
        scene.ring.stable = u64::MAX;
    }),
    ("not-empty", "QED-JRN-16", "a block is durable, but JOURNAL_ACTIVE is clear", |scene| {
        scene.blocks = vec![Block::single(1, &[spare_at(1)])];
        scene.ring.stable = 1;
    }),
    ("full", "QED-JRN-16", "as many blocks are durable as there are", |scene| {
        scene.ring.stable = 8;
    }),
];

/// Payloads of the section that have another length, and one that is missing.
const PAYLOADS: [(&str, &str, &str, Option<usize>); 6] = [
    ("section-missing", "QED-JRN-31", "journal mode without a journal", None),
    ("section-empty", "QED-JRN-01", "a section without payload", Some(0)),
    ("section-of-24-bytes", "QED-JRN-01", "stable_sequence is missing", Some(24)),
    ("section-of-31-bytes", "QED-JRN-01", "a byte too few", Some(31)),
    ("section-of-33-bytes", "QED-JRN-01", "a byte too many", Some(33)),
    ("section-of-40-bytes", "QED-JRN-01", "a number too many", Some(40)),
];

fn sound((name, clause, what, change): &Case) -> Vector {
    let mut scene = Scene::clean();
    change(&mut scene);
    let vector = scene.vector(format!("jrn-ring-{name}"), clause, what);
    let expect = if is_small(&scene) {
        seen_of(&scene)
    } else {
        Expect { check: Some("clean"), ..Expect::accept() }
    };
    Vector { expect, ..vector }
}

fn broken((name, clause, what, change): &Case) -> Vector {
    let mut scene = Scene::clean();
    change(&mut scene);
    let vector = scene.vector(format!("jrn-ring-{name}"), clause, what);
    Vector { expect: not_written(&scene, clause), qemu: qemu_writes(), ..vector }
}

fn payload((name, clause, what, len): &(&str, &'static str, &str, Option<usize>)) -> Vector {
    let scene = Scene::clean();
    let mut superblock = scene.superblock();
    let mut bytes: Vec<u8> = [0x4000, 0x8000, 1, 0].map(u64::to_le_bytes).concat();
    superblock.sections.retain(|(kind, _)| *kind != 3);
    if let Some(len) = len {
        bytes.resize(*len, 0);
        superblock.sections.push((3, Bytes::Hex(bytes)));
    }
    let vector = scene.vector_with(&superblock, format!("jrn-{name}"), clause, what);
    Vector { expect: not_written(&scene, clause), qemu: qemu_writes(), ..vector }
}

/// Whether the rule holds for the ring of an image that was not closed, too.
fn is_of_any_image((_, clause, ..): &&Case) -> bool {
    *clause != "QED-JRN-16"
}

fn active((name, clause, what, change): &Case) -> Vector {
    let mut scene = Scene::clean();
    change(&mut scene);
    scene.header.features |= ACTIVE;
    let vector = scene.vector(format!("jrn-active-ring-{name}"), clause, what);
    Vector { expect: Expect { check: Some("refused"), ..Expect::reject(clause) }, ..vector }
}

/// It shows what its tables say.
fn not_written(scene: &Scene, clause: &'static str) -> Expect {
    let seen = if is_small(scene) { seen_of(scene) } else { Expect::accept() };
    Expect { write: Some(Err(clause)), after_write: Vec::new(), ..seen }
}

/// An image with a backing file shows what is in that, too, so there the file is asked alone.
fn seen_of(scene: &Scene) -> Expect {
    let seen = seen(AS_LAID);
    if scene.header.backing_filename_size == 0 {
        return seen;
    }
    Expect { map: None, content: Vec::new(), after_write: Vec::new(), ..seen }
}

fn is_small(scene: &Scene) -> bool {
    scene.header.cluster_size == Header::default().cluster_size
}

fn qemu_writes() -> Option<Qemu> {
    Some(Qemu::answers("write", "accept", "QED-QEMU-27: superblocks are not looked at"))
}

fn large(scene: &mut Scene, len: u64) {
    scene.header = LARGE;
    scene.file_len = LARGE.l1_table_offset + LARGE.table_size * LARGE.cluster_size;
    scene.ring.len = len;
}

/// Gives the image a backing file name of 8 bytes that begins at byte `at`.
fn name_at(scene: &mut Scene, at: u64) {
    scene.header.features |= 5;
    (scene.header.backing_filename_offset, scene.header.backing_filename_size) = (at, 8);
    scene.more.push(Run { at, bytes: Bytes::Text("base.raw".to_owned()) });
}

/// Gives the image a dirty bitmap of one sector.
fn bitmap_at(scene: &mut Scene, at: u64) {
    scene.header.autoclear_features |= TABLE_DIRTY;
    scene.sections.push((5, Bytes::U64(vec![at, 512, scene.file_len])));
}
