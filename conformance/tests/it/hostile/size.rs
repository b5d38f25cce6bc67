//! Claims of size: tables, disks and files far larger than what there is.

use std::path::PathBuf;

use super::Case;
use super::image::{DISK, IMAGE_SIZE, file_of, header, sound};
use crate::support::Folder;

pub(super) const CASES: &[Case] = &[
    Case::qed(
        "l1-table-of-one-gibibyte",
        |folder| huge_table(folder, (1 << 30) + (64 << 20)),
        &[("info -f qed IMAGE", 0, "virtual size"), ("check -f qed IMAGE", 0, "No errors")],
    ),
    Case::qed(
        "l1-table-past-the-end-of-the-file",
        |folder| huge_table(folder, 1 << 30),
        &[("info -f qed IMAGE", 1, "L1 table"), ("check -f qed IMAGE", 1, "L1 table")],
    ),
    Case::qed(
        "a-file-of-64-bytes-claims-2-to-the-63",
        |folder| {
            let bytes = header(64 << 20, 16, (1 << 63) - 512);
            vec![file_of(folder, "image", &bytes, 64)]
        },
        &[("info -f qed IMAGE", 1, "L1 table"), ("check -f qed IMAGE", 1, "L1 table")],
    ),
    Case::qed(
        "disk-of-2-to-the-63-bytes",
        |folder| {
            let image = huge_table(folder, (1 << 30) + (64 << 20));
            IMAGE_SIZE.set(&image[0], (1 << 63) - 512);
            image
        },
        &[("info -f qed IMAGE", 0, "virtual size")],
    ),
    Case::qed(
        "disk-of-2-to-the-63-bytes-in-two-million-tables",
        |folder| {
            let bytes = header(2 << 20, 8, (1 << 63) - 512);
            vec![file_of(folder, "image", &bytes, 18 << 20)]
        },
        &[
            ("info -f qed IMAGE", 0, "virtual size"),
            ("compare -f qed -F qed IMAGE IMAGE", 0, "identical"),
            ("convert -f qed -O qcow2 IMAGE out", 1, "image size"),
        ],
    ),
    Case::qed(
        "disk-larger-than-its-tables-map",
        |folder| {
            let image = sound(folder).path;
            IMAGE_SIZE.set(&image, (1 << 32) + 512);
            vec![image]
        },
        &[("info -f qed IMAGE", 1, "image size")],
    ),
    Case::qed(
        "file-far-longer-than-its-tables",
        |folder| {
            let image = sound(folder).path;
            std::fs::File::options().write(true).open(&image).unwrap().set_len(1 << 42).unwrap();
            vec![image]
        },
        &[("info -f qed IMAGE", 0, "virtual size"), ("check -f qed IMAGE", 3, "leaked clusters")],
    ),
    Case::qed(
        "disk-smaller-than-its-tables-map",
        |folder| {
            let image = sound(folder).path;
            IMAGE_SIZE.set(&image, DISK / 2 - 512);
            vec![image]
        },
        &[("check -f qed IMAGE", 3, "past the end of the virtual disk")],
    ),
];

/// A header that claims the largest L1 table, in a file of `len` bytes, all hole.
fn huge_table(folder: &Folder, len: u64) -> Vec<PathBuf> {
    vec![file_of(folder, "image", &header(64 << 20, 16, 1 << 50), len)]
}
