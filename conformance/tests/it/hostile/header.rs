//! Headers with every field at its bounds, cut short, or full of noise.

use std::path::PathBuf;

use qed_fuzz::Random;

use super::Case;
use super::image::{
    AUTOCLEAR_FEATURES, CLUSTER_SIZE, COMPAT_FEATURES, FEATURES, HEADER_SIZE, IMAGE_SIZE,
    L1_TABLE_OFFSET, NAME_LEN, NAME_OFFSET, TABLE_SIZE, each_edge, file_of, header, put, sound,
};
use crate::support::Folder;

pub(super) const CASES: &[Case] = &[
    Case::qed("header-cut-short", cut_short, &[("check -f qed IMAGE", 1, "header")]),
    Case::qed("header-noise", noise, &[]),
    Case::qed("header-cluster-size", |folder| each_edge(folder, CLUSTER_SIZE), &[]),
    Case::qed("header-table-size", |folder| each_edge(folder, TABLE_SIZE), &[]),
    Case::qed("header-header-size", |folder| each_edge(folder, HEADER_SIZE), &[]),
    Case::qed(
        "header-unknown-feature",
        unknown_features,
        &[
            ("info -f qed IMAGE", 0, "unsupported feature: bit"),
            ("check -f qed IMAGE", 1, "feature bit"),
            ("map -f qed IMAGE", 1, "feature bit"),
            ("convert -f qed -O raw IMAGE out", 1, "feature bit"),
            ("resize -f qed IMAGE +1M", 1, "feature bit"),
            ("check -r all -f qed IMAGE", 1, "feature bit"),
        ],
    ),
    Case::qed(
        "header-compatible-bits",
        |folder| each_edge(folder, COMPAT_FEATURES),
        &[("check -f qed IMAGE", 0, "No errors")],
    ),
    Case::qed(
        "header-autoclear-bits",
        |folder| each_edge(folder, AUTOCLEAR_FEATURES),
        &[("check -f qed IMAGE", 0, "No errors")],
    ),
    Case::qed("header-l1-table-offset", |folder| each_edge(folder, L1_TABLE_OFFSET), &[]),
    Case::qed("header-image-size", |folder| each_edge(folder, IMAGE_SIZE), &[]),
    Case::qed(
        "header-name-offset",
        |folder| named(folder, |folder| each_edge(folder, NAME_OFFSET)),
        &[],
    ),
    Case::qed(
        "header-name-length",
        |folder| named(folder, |folder| each_edge(folder, NAME_LEN)),
        &[],
    ),
];

/// Every length from the magic to a header without its tables.
fn cut_short(folder: &Folder) -> Vec<PathBuf> {
    let whole = header(4096, 2, 1 << 20);
    let cut = |len: usize| file_of(folder, &format!("image-{len}"), &whole[..len], len as u64);
    (4..=whole.len()).step_by(3).map(cut).collect()
}

/// The magic, then random bytes.
fn noise(folder: &Folder) -> Vec<PathBuf> {
    let image = |seed: u64| {
        let mut random = Random::new(seed);
        let noise = (0..512).flat_map(|_| random.next_u64().to_le_bytes());
        let bytes: Vec<u8> = b"QED\0".iter().copied().chain(noise).collect();
        file_of(folder, &format!("image-{seed}"), &bytes, 1 << 20)
    };
    (0..20).map(image).collect()
}

fn unknown_features(folder: &Folder) -> Vec<PathBuf> {
    let model = sound(folder).path;
    let image = |bit: u32| {
        let path = folder.file(&format!("image-{bit}"));
        std::fs::copy(&model, &path).unwrap();
        FEATURES.set(&path, 1 << bit);
        path
    };
    [3, 4, 31, 32, 33, 34, 35, 37, 63].map(image).to_vec()
}

/// The images with the bit set that says there is a backing file name, and a short one.
fn named(folder: &Folder, images: fn(&Folder) -> Vec<PathBuf>) -> Vec<PathBuf> {
    let images = images(folder);
    for image in &images {
        FEATURES.set(image, 1);
        put(image, 64, b"name");
    }
    images
}
