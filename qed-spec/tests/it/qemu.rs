//! Our answer beside that of the installed qemu-img, header by header.
//!
//! Where the two differ the case says so: it is a clause of the section on QEMU, not a fault.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use qed_spec::{Features, Header};

use crate::image::{Fields, shapes};

/// Whether `qemu-img info` opens the image at `path`.
fn qemu_opens(path: &Path) -> bool {
    let status = Command::new("qemu-img")
        .args(["info", "-U", "-f", "qed"])
        .arg(path)
        .output()
        .expect("qemu-img runs: install the Debian package qemu-utils")
        .status;
    match status.code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("qemu-img ended with {other:?}"),
    }
}

/// Our answer and QEMU's for a file of `file_len` bytes that starts with these fields.
fn answers(fields: Fields, file_len: u64) -> (bool, bool) {
    let folder = tempfile::tempdir().expect("a folder for images");
    let path = folder.path().join("image.qed");
    let mut file = File::create(&path).expect("a new file");
    file.write_all(&fields.bytes()).expect("room for 64 bytes");
    file.set_len(file_len).expect("a sparse file");
    let ours = Header::parse(&fields.bytes(), file_len, Features::CLASSIC).is_ok();
    (ours, qemu_opens(&path))
}

// spec-test: QED-QEMU-01, QED-QEMU-02, QED-QEMU-03
#[test]
fn we_open_all_75_shapes_and_qemu_those_that_geometry_says() {
    for (cluster_size, table_size, geometry) in shapes() {
        let fields = Fields {
            cluster_size,
            table_size,
            l1_table_offset: cluster_size.into(),
            ..Fields::CLASSIC
        };
        let fields = Fields { image_size: 512, ..fields };
        let file_len = u64::from(cluster_size) * u64::from(1 + table_size);
        let expected = (true, geometry.opens_in_qemu());
        assert_eq!(answers(fields, file_len), expected, "{cluster_size} bytes, {table_size}");
    }
}

const FIVE: u64 = 5 * 65536;

// spec-test: QED-HDR-02, QED-HDR-03, QED-HDR-04, QED-HDR-06, QED-HDR-07, QED-FEAT-01, QED-FEAT-02
#[test]
fn both_give_the_same_answer() {
    let classic = Fields::CLASSIC;
    let cases = [
        (classic, FIVE, true),
        (Fields { magic: *b"QED1", ..classic }, FIVE, false),
        (Fields { cluster_size: 2048, ..classic }, FIVE, false),
        (Fields { cluster_size: 65537, ..classic }, FIVE, false),
        (Fields { cluster_size: 1 << 27, ..classic }, 1 << 30, false),
        (Fields { table_size: 0, ..classic }, FIVE, false),
        (Fields { table_size: 3, ..classic }, FIVE, false),
        (Fields { table_size: 16, ..classic }, 17 * 65536, true),
        (Fields { table_size: 32, ..classic }, 33 * 65536, false),
        (Fields { header_size: 2, l1_table_offset: 131072, ..classic }, 6 * 65536, true),
        (Fields { header_size: 2, ..classic }, 6 * 65536, false),
        (Fields { header_size: 100, ..classic }, FIVE, false),
        (Fields { header_size: u32::MAX, ..classic }, FIVE, false),
        (Fields { l1_table_offset: 0, ..classic }, FIVE, false),
        (Fields { l1_table_offset: 66048, ..classic }, 6 * 65536, false),
        (Fields { l1_table_offset: 131072, ..classic }, FIVE, false),
        (Fields { l1_table_offset: 1 << 63, ..classic }, FIVE, false),
        (classic, FIVE - 512, false),
        (Fields { image_size: 0, ..classic }, FIVE, true),
        (Fields { image_size: 511, ..classic }, FIVE, false),
        (Fields { image_size: 1 << 46, ..classic }, FIVE, true),
        (Fields { image_size: (1 << 46) + 512, ..classic }, FIVE, false),
        (Fields { image_size: 1 << 63, ..classic }, FIVE, false),
        (Fields { features: 2, ..classic }, FIVE, true),
        (Fields { features: 4, ..classic }, FIVE, true),
        (Fields { features: 8, ..classic }, FIVE, false),
        (Fields { features: 1 << 32, ..classic }, FIVE, false),
        (Fields { features: 1 << 63, ..classic }, FIVE, false),
        (Fields { compat_features: u64::MAX, ..classic }, FIVE, true),
        (Fields { autoclear_features: u64::MAX, ..classic }, FIVE, true),
        (Fields { features: 1, name_offset: 65535, name_len: 2, ..classic }, FIVE, false),
        (Fields { features: 1, name_offset: u32::MAX, name_len: u32::MAX, ..classic }, FIVE, false),
        (Fields { features: 1, name_offset: 64, name_len: 4096, ..classic }, FIVE, false),
    ];
    for (fields, file_len, expected) in cases {
        let found = answers(fields, file_len);
        assert_eq!(found, (expected, expected), "ours, QEMU's for {fields:?} in {file_len} bytes");
    }
}

// spec-test: QED-QEMU-06, QED-QEMU-07, QED-QEMU-08
#[test]
fn qemu_opens_what_breaks_a_rule() {
    let classic = Fields::CLASSIC;
    let cases = [
        (Fields { header_size: 0, ..classic }, FIVE),
        (Fields { header_size: 0, l1_table_offset: 0, ..classic }, FIVE),
        (Fields { features: 5, name_offset: 64, name_len: 0, ..classic }, FIVE),
        (Fields { features: 5, name_offset: 40, name_len: 24, ..classic }, FIVE),
        (classic, FIVE - 1),
        (classic, FIVE - 511),
    ];
    for (fields, file_len) in cases {
        let found = answers(fields, file_len);
        assert_eq!(found, (false, true), "ours, QEMU's for {fields:?} in {file_len} bytes");
    }
}
