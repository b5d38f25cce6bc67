//! Raw disks on which a guest has written the magic of an image.

use std::path::PathBuf;

use qed_fuzz::qemu_img;

use super::image::{Sound, file_of, header, put};
use super::{Answer, Case};
use crate::support::Folder;

/// The disk names a file elsewhere, and does not say its format.
const NOT_FOLLOWED: &[Answer] = &[
    ("info -f raw IMAGE", 0, "file format: raw"),
    ("info IMAGE", 0, "backing file: /etc/shadow"),
    ("map IMAGE", 1, "nothing states the format"),
    ("info --backing-chain IMAGE", 1, "nothing states the format"),
    ("convert -O raw IMAGE out", 1, "nothing states the format"),
    ("resize IMAGE 2M", 1, ""),
    ("commit IMAGE", 1, ""),
];

pub(super) const CASES: &[Case] = &[
    Case::raw(
        "raw-disk-with-a-qed-header",
        |folder| {
            let mut disk = header(4096, 2, 1 << 20);
            disk[16] = 1;
            disk[56..64].copy_from_slice(&[64, 0, 0, 0, 11, 0, 0, 0]);
            disk.extend(b"/etc/shadow");
            vec![file_of(folder, "image", &disk, 1 << 20)]
        },
        NOT_FOLLOWED,
    ),
    Case::raw(
        "raw-disk-with-a-qcow2-header",
        |folder| {
            let image = qcow2_over(folder, "/etc/shadow");
            // The extension that states the format becomes one that nobody knows.
            let bytes = std::fs::read(&image).unwrap();
            let at = bytes.windows(4).position(|found| found == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
            put(&image, at as u64, &[0x12, 0x34, 0x56, 0x78]);
            vec![image]
        },
        NOT_FOLLOWED,
    ),
    Case::raw(
        "raw-disk-with-a-header-that-states-a-format",
        |folder| {
            file_of(folder, "secret", b"secret", 512);
            let image = qcow2_over(folder, "secret");
            std::fs::copy(&image, folder.file("expected")).unwrap();
            vec![image]
        },
        &[
            ("info -f raw IMAGE", 0, "file format: raw"),
            ("compare -f raw -F raw IMAGE expected", 0, "identical"),
            ("map IMAGE", 0, "secret"),
        ],
    ),
    Case::raw(
        "raw-disk-with-a-whole-image-on-it",
        |folder| vec![Sound::new(folder, "image").path],
        &[
            ("compare -f raw -F raw IMAGE IMAGE", 0, "identical"),
            ("info IMAGE", 0, "file format: qed"),
        ],
    ),
    Case::raw(
        "raw-disk-of-8-exbibytes",
        |folder| vec![file_of(folder, "image", &[], i64::MAX.unsigned_abs() & !0xfff)],
        &[("info -f raw IMAGE", 0, "8 EiB"), ("convert -f raw -O raw IMAGE out", 0, "")],
    ),
    Case::raw(
        "raw-disk-of-no-bytes",
        |folder: &Folder| vec![file_of(folder, "image", &[], 0)],
        &[("info -f raw IMAGE", 0, "0 B"), ("convert -f raw -O raw IMAGE out", 0, "")],
    ),
];

/// A QCOW2 image, which states that its backing file is raw.
fn qcow2_over(folder: &Folder, backing: &str) -> PathBuf {
    let image = folder.file("image");
    let create = ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing];
    let words = create.map(PathBuf::from).into_iter().chain([image.clone(), "1M".into()]);
    qemu_img(words).success();
    image
}
