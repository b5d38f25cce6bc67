//! Table entries that name what they must not.

use std::path::PathBuf;

use super::image::{
    CLUSTER, DISK, FEATURES, IMAGE_SIZE, L1, Sound, TABLE, file_of, header, put, sound,
};
use super::{Answer, Case};
use crate::support::{Folder, set_number};

/// The mark of an image that was not closed.
const NEED_CHECK: u64 = 2;

pub(super) const CASES: &[Case] = &[
    Case::qed(
        "l1-entry-into-the-header",
        |folder| roomy(folder, L1 + CLUSTER, CLUSTER),
        NAMED_BY_CHECK,
    ),
    Case::qed(
        "l1-entry-into-the-l1-table",
        |folder| sound(folder).with_l1(|_| L1 + CLUSTER),
        &[("check -f qed IMAGE", 2, "overlaps the L1 table"), ("resize -f qed IMAGE 16M", 1, "L1")],
    ),
    Case::qed(
        "l1-entry-past-the-end",
        |folder| sound(folder).with_l1(|image| image.len),
        &[("check -f qed IMAGE", 2, "past the end"), ("resize -f qed IMAGE 16M", 1, "L1")],
    ),
    Case::qed(
        "l1-entry-near-2-to-the-64",
        |folder| sound(folder).with_l1(|_| u64::MAX - CLUSTER + 1),
        &[("check -f qed IMAGE", 2, "past the end"), ("resize -f qed IMAGE 16M", 1, "L1")],
    ),
    Case::qed(
        "l1-entry-unaligned",
        |folder| sound(folder).with_l1(|image| image.second + 512),
        &[("check -f qed IMAGE", 2, "not cluster-aligned"), ("resize -f qed IMAGE 16M", 1, "L1")],
    ),
    Case::qed(
        "l1-entry-of-one",
        |folder| sound(folder).with_l1(|_| 1),
        &[("check -f qed IMAGE", 2, "not cluster-aligned"), ("resize -f qed IMAGE 16M", 1, "L1")],
    ),
    Case::qed(
        "l1-entries-of-one-table",
        |folder| sound(folder).with_l1(|image| image.first),
        &[("check -f qed IMAGE", 2, "earlier L1 entry"), BOTH_NAMED],
    ),
    Case::qed(
        "l1-tables-overlap",
        |folder| sound(folder).with_l1(|image| image.first + CLUSTER),
        &[("check -f qed IMAGE", 2, "overlaps the table"), BOTH_NAMED],
    ),
    Case::qed(
        "l2-entry-into-the-header",
        |folder| roomy(folder, L1 + CLUSTER + TABLE, CLUSTER),
        &[("check -f qed IMAGE", 2, "a cluster of the header area"), NOT_READ],
    ),
    Case::qed(
        "l2-entry-into-the-l1-table",
        |folder| sound(folder).with_l2(|_| L1),
        &[("check -f qed IMAGE", 2, "a cluster of the L1 table"), NOT_READ],
    ),
    Case::qed(
        "l2-entry-into-its-own-table",
        |folder| sound(folder).with_l2(|image| image.first),
        &[("check -f qed IMAGE", 2, "a cluster of an L2 table")],
    ),
    Case::qed(
        "l2-entry-into-another-table",
        |folder| sound(folder).with_l2(|image| image.second + CLUSTER),
        &[("check -f qed IMAGE", 2, "a cluster of an L2 table")],
    ),
    Case::qed(
        "l2-entry-past-the-end",
        |folder| sound(folder).with_l2(|image| image.len),
        &[("check -f qed IMAGE", 2, "past the end of the file"), NOT_READ],
    ),
    Case::qed(
        "l2-entry-in-a-cut-off-cluster",
        |folder| {
            let image = sound(folder);
            let file = std::fs::File::options().write(true).open(&image.path).unwrap();
            file.set_len(image.len - 1).unwrap();
            vec![image.path]
        },
        &[("check -f qed IMAGE", 2, "cut off by the end of the file")],
    ),
    Case::qed(
        "l2-entry-unaligned",
        |folder| sound(folder).with_l2(|_| 3 * CLUSTER + 8),
        &[("check -f qed IMAGE", 2, "not cluster-aligned"), NOT_READ],
    ),
    Case::qed(
        "l2-entry-with-bit-63",
        |folder| sound(folder).with_l2(|image| image.first_cluster() | 1 << 63),
        &[("check -f qed IMAGE", 2, "past the end of the file"), NOT_READ],
    ),
    Case::qed(
        "l2-entries-of-one-cluster",
        |folder| sound(folder).with_l2(Sound::first_cluster),
        &[
            ("check -f qed IMAGE", 2, "an earlier L2 entry"),
            ("bench -w -f qed -s 512 -c 1 IMAGE", 1, "another entry names"),
            ("bench -w -f qed -s 512 -c 1 -o 4096 IMAGE", 1, "another entry names"),
        ],
    ),
    Case::qed(
        "l2-entries-of-one-cluster-in-two-tables",
        |folder| {
            let image = sound(folder);
            set_number(&image.path, image.second + 8, image.first_cluster());
            vec![image.path]
        },
        &[("check -f qed IMAGE", 2, "an earlier L2 entry")],
    ),
    Case::qed(
        "all-l2-entries-of-one-cluster",
        |folder| {
            let image = sound(folder);
            let data = image.first_cluster();
            for table in [image.first, image.second] {
                put(&image.path, table, &data.to_le_bytes().repeat(1024));
            }
            vec![image.path]
        },
        &[("check -f qed IMAGE", 2, "an earlier L2 entry")],
    ),
    Case::qed(
        "l2-table-of-noise",
        |folder| {
            let image = sound(folder);
            let mut random = qed_fuzz::Random::new(1);
            let noise: Vec<u8> = (0..1024).flat_map(|_| random.next_u64().to_le_bytes()).collect();
            put(&image.path, image.first, &noise);
            vec![image.path]
        },
        &[("check -f qed IMAGE", 2, "not cluster-aligned"), NOT_READ],
    ),
    Case::qed(
        "marked-image-with-a-corruption",
        |folder| {
            let image = sound(folder);
            FEATURES.set(&image.path, NEED_CHECK);
            image.with_l2(Sound::first_cluster)
        },
        &[
            ("info -f qed --output=json IMAGE", 0, "\"dirty-flag\": true"),
            ("check -f qed IMAGE", 2, "an earlier L2 entry"),
            ("resize -f qed IMAGE 16M", 1, "an earlier L2 entry"),
        ],
    ),
    Case::qed(
        "marked-image-with-entries-past-the-end",
        |folder| {
            let image = sound(folder);
            FEATURES.set(&image.path, NEED_CHECK);
            set_number(&image.path, L1 + 8, image.len + 8 * CLUSTER);
            image.with_l2(|image| image.len)
        },
        &[("map -f qed IMAGE", 0, "0x5000"), ("convert -f qed -O raw IMAGE out", 0, "")],
    ),
    Case::qed(
        "entries-past-the-end-of-the-disk",
        |folder| {
            let image = sound(folder);
            IMAGE_SIZE.set(&image.path, CLUSTER);
            vec![image.path]
        },
        &[("check -f qed IMAGE", 3, "past the end of the virtual disk")],
    ),
];

const NAMED_BY_CHECK: &[Answer] =
    &[("check -f qed IMAGE", 2, "header area"), ("resize -f qed IMAGE 16M", 1, "L1")];
const BOTH_NAMED: Answer = ("resize -f qed IMAGE 16M", 1, "L1[0] and L1[1] name overlapping");
const NOT_READ: Answer = ("convert -f qed -O raw IMAGE out", 1, "L2");

/// An image with a header area of two clusters, its L1 table behind that and one L2 table, with one
/// number changed.
fn roomy(folder: &Folder, at: u64, value: u64) -> Vec<PathBuf> {
    let l1 = 2 * CLUSTER;
    let mut bytes = header(4096, 2, DISK);
    bytes[12] = 2;
    bytes[40..48].copy_from_slice(&l1.to_le_bytes());
    let image = file_of(folder, "image", &bytes, l1 + 2 * TABLE + 2 * CLUSTER);
    set_number(&image, l1, l1 + TABLE);
    set_number(&image, l1 + TABLE + 8, l1 + 2 * TABLE);
    set_number(&image, at, value);
    vec![image]
}
