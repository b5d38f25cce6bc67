//! Chains that come back to themselves, never end, or lie about a format.

use std::fs::{copy, hard_link};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use qed_fuzz::qemu_img;

use super::image::{CLUSTER, DISK, FEATURES, NAME_LEN, NAME_OFFSET, Sound, file_of, put};
use super::{Answer, Case};
use crate::support::Folder;

/// The program opens no more backing files below one image.
const DEEPEST: usize = 200;

const LOOPS: &[Answer] = &[
    (
        "info --backing-chain --backing-format qed --backing-format qed -f qed IMAGE",
        1,
        "infinite loop",
    ),
    (
        "map --backing-chain --backing-format qed --backing-format qed -f qed IMAGE",
        1,
        "infinite loop",
    ),
    (
        "convert --backing-format qed --backing-format qed -f qed -O raw IMAGE out",
        1,
        "infinite loop",
    ),
    ("rebase --backing-format qed --backing-format qed -f qed -b other -F raw IMAGE", 1, "image"),
];
const TOO_DEEP: &[Answer] = &[
    ("info --backing-chain -f qcow2 IMAGE", 1, "more than 200"),
    ("convert -f qcow2 -O raw IMAGE out", 1, "more than 200"),
];

pub(super) const CASES: &[Case] = &[
    Case::qed(
        "chain-of-one-image-over-itself",
        |folder| vec![over(folder, "image", "image")],
        LOOPS,
    ),
    Case::qed(
        "chain-of-two-images-over-each-other",
        |folder| {
            over(folder, "other", "image");
            vec![over(folder, "image", "other")]
        },
        LOOPS,
    ),
    Case::qed(
        "chain-that-loops-through-a-hard-link",
        |folder| {
            let image = over(folder, "image", "other");
            hard_link(&image, folder.file("other")).unwrap();
            vec![image]
        },
        LOOPS,
    ),
    Case::qed(
        "chain-that-loops-through-a-symbolic-link",
        |folder| {
            let image = over(folder, "image", "other");
            symlink(&image, folder.file("other")).unwrap();
            vec![image]
        },
        LOOPS,
    ),
    Case::qcow2("chain-of-a-thousand-images", |folder| chain(folder, 1000), TOO_DEEP),
    Case::qcow2("chain-one-image-too-deep", |folder| chain(folder, DEEPEST + 1), TOO_DEEP),
    Case::qcow2(
        "chain-as-deep-as-allowed",
        |folder| chain(folder, DEEPEST),
        &[("convert -f qcow2 -O raw IMAGE out", 0, ""), ("map -f qcow2 IMAGE", 0, "Offset")],
    ),
    Case::qed(
        "backing-file-of-another-format-than-stated",
        |folder| {
            file_of(folder, "raw", &[7; 4096], 8192);
            vec![over(folder, "image", "raw")]
        },
        &[
            ("convert --backing-format qed -f qed -O raw IMAGE out", 1, "not in qed format"),
            ("convert --backing-format qcow2 -f qed -O raw IMAGE out", 1, "not in qcow2 format"),
            ("convert -f qed -O raw IMAGE out", 0, ""),
        ],
    ),
    Case::qed(
        "raw-backing-file-with-the-magic-of-an-image",
        |folder| {
            let below = Sound::new(folder, "below").path;
            let image = over(folder, "image", "below");
            FEATURES.set(&image, 5);
            // Where the overlay has nothing it shows the bytes of the file, header and all.
            let mut expected = std::fs::read(below).unwrap();
            let overlay: Vec<u8> = qed_fuzz::content(7, 0..3 * CLUSTER);
            expected[..overlay.len()].copy_from_slice(&overlay);
            let len = usize::try_from(DISK).unwrap();
            expected.resize(len, 0);
            let half = len / 2;
            let second = qed_fuzz::content(7, DISK / 2..DISK / 2 + 3 * CLUSTER);
            expected[half..half + second.len()].copy_from_slice(&second);
            file_of(folder, "expected", &expected, DISK);
            vec![image]
        },
        &[("compare -f qed -F raw IMAGE expected", 0, "identical")],
    ),
    Case::qed(
        "backing-file-taken-for-an-image-by-its-magic",
        |folder| {
            over(folder, "below", "/etc/shadow");
            vec![over(folder, "image", "below")]
        },
        &[
            ("convert -f qed -O raw IMAGE out", 1, "nothing states the format"),
            ("map -f qed IMAGE", 1, "'/etc/shadow'"),
            (
                "convert --backing-format qed -f qed -O raw IMAGE out",
                1,
                "nothing states the format",
            ),
        ],
    ),
];

/// The sound image under a name, with another name as its backing file, whose format it does not
/// say.
fn over(folder: &Folder, name: &str, backing: &str) -> PathBuf {
    let image = Sound::new(folder, name).path;
    put(&image, 64, backing.as_bytes());
    FEATURES.set(&image, 1);
    NAME_OFFSET.set(&image, 64);
    NAME_LEN.set(&image, backing.len() as u64);
    image
}

/// An image over this many others, one over the next, each of a stated format.
fn chain(folder: &Folder, below: usize) -> Vec<PathBuf> {
    let name = |number: usize| format!("image-{number:04}");
    let model = folder.file("model");
    let create = ["create", "-q", "-u", "-f", "qcow2", "-b", "image-0000", "-F", "qcow2"];
    let words = create.map(Into::into).into_iter().chain([model.clone(), "1M".into()]);
    qemu_img(words).success();
    let bytes = std::fs::read(&model).unwrap();
    let at = bytes.windows(10).position(|found| found == b"image-0000").unwrap();
    for number in 0..below {
        let image = folder.file(&name(number));
        copy(&model, &image).unwrap();
        put(&image, at as u64, name(number + 1).as_bytes());
    }
    let last = folder.file(&name(below));
    let create = ["create", "-q", "-f", "qcow2"].map(PathBuf::from);
    qemu_img(create.into_iter().chain([last, "1M".into()])).success();
    vec![folder.file(&name(0))]
}
