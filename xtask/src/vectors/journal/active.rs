//! JOURNAL_ACTIVE in an image without a journal: a bit that is not known.

use super::scene::{B, Ring, Scene, Superblock};
use crate::vectors::vector::{Bytes, Expect, Family, Vector};

/// A name, what it is about, and what is done to an image that crashed with an empty log.
type Case = (&'static str, &'static str, fn(&mut Superblock, &mut Scene));

pub(super) fn families() -> Vec<Family> {
    vec![Family {
        name: "journal-active-reject",
        about: &[
            "JOURNAL_ACTIVE is known only in an image in journal mode whose current superblock has the",
            "section JOURNAL. Any other image with it is refused like one with an unknown bit.",
        ],
        vectors: CASES.iter().map(vector).collect(),
    }]
}

const CASES: [Case; 10] = [
    ("no-section", "journal mode, and no section JOURNAL", |superblock, _| {
        superblock.sections.retain(|(kind, _)| *kind != 3);
    }),
    ("no-mode", "the section JOURNAL, and no mode", |superblock, _| {
        superblock.sections.retain(|(kind, _)| *kind != 1);
    }),
    ("compat-mode", "the section JOURNAL, and compat mode", |superblock, _| {
        superblock.sections[0].1 = Bytes::U32(vec![1]);
    }),
    ("mode-0", "no mode has the number 0", |superblock, _| {
        superblock.sections[0].1 = Bytes::U32(vec![0]);
    }),
    ("mode-3", "no mode has the number 3", |superblock, _| {
        superblock.sections[0].1 = Bytes::U32(vec![3]);
    }),
    ("mode-of-8-bytes", "a mode of another length", |superblock, _| {
        superblock.sections[0].1 = Bytes::U64(vec![2]);
    }),
    ("no-sections", "a superblock without sections", |superblock, _| superblock.sections.clear()),
    ("no-generation", "generation 0: the copy is not valid", |superblock, _| {
        superblock.generation = 0;
    }),
    (
        "newer-without",
        "copy A has the journal, copy B is newer and has none",
        |superblock, scene| {
            let newer =
                Superblock { at: B, generation: 2, sections: superblock.sections[..1].to_vec() };
            scene.older = Some(newer);
        },
    ),
    ("two-of-one-generation", "two copies of one generation that differ", |_, scene| {
        let ring = Ring { tail: 2, stable: 1, ..Ring::EMPTY };
        let other = Scene { ring, ..Scene::clean() }.superblock();
        scene.older = Some(Superblock { at: B, ..other });
    }),
];

fn vector((name, what, change): &Case) -> Vector {
    let mut scene = Scene::crashed(Vec::new());
    let mut superblock = scene.superblock();
    change(&mut superblock, &mut scene);
    let vector = scene.vector_with(&superblock, format!("jrn-active-{name}"), "QED-JRN-31", what);
    let refused = Expect { check: Some("refused"), ..Expect::reject("QED-FEAT-01") };
    Vector { expect: refused, ..vector }
}
