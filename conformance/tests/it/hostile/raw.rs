//! Raw disks on which a guest has written the magic of an image.

use std::path::PathBuf;

use qed_fuzz::qemu_img;

use super::Case;
use super::image::{Sound, file_of, header};
use crate::support::Folder;

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
        &[
            ("info -f raw IMAGE", 0, "file format: raw"),
            ("info IMAGE", 0, "backing file: /etc/shadow"),
            ("map IMAGE", 0, "is not mapped"),
            ("map --backing-chain IMAGE", 1, "by its first bytes"),
            ("convert -O raw IMAGE out", 1, "by its first bytes"),
            ("resize IMAGE 2M", 1, "must be stated"),
        ],
    ),
    Case::raw(
        "raw-disk-with-a-qcow2-header",
        |folder| {
            let image = folder.file("image");
            let create = ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow"];
            let words = create.map(PathBuf::from).into_iter().chain([image.clone(), "1M".into()]);
            qemu_img(words).success();
            vec![image]
        },
        &[
            ("info -f raw IMAGE", 0, "file format: raw"),
            ("info IMAGE", 0, "backing file: /etc/shadow"),
            ("map IMAGE", 0, "is not mapped"),
            ("map --backing-chain IMAGE", 1, "by its first bytes"),
            ("convert -O raw IMAGE out", 1, "by its first bytes"),
        ],
    ),
    Case::raw(
        "raw-disk-with-a-whole-image-on-it",
        |folder| vec![Sound::new(folder, "image").path],
        &[
            ("compare -f raw -F raw IMAGE IMAGE", 0, "identical"),
            ("resize IMAGE 16M", 1, "must be stated"),
            ("rebase -u -b other -F raw IMAGE", 1, "must be stated"),
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
