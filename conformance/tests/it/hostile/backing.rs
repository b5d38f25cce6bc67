//! Backing file names that lead elsewhere, or nowhere.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::image::{FEATURES, NAME_LEN, NAME_OFFSET, file_of, put, sound};
use super::{Answer, Case};
use crate::support::Folder;

const BACKING: u64 = 1;
const RAW: u64 = 4;
const CONVERT: &str = "convert -f qed -O raw IMAGE out";
// Metadata can be looked at whatever the name is.
const INFO: Answer = ("info -f qed IMAGE", 0, "backing file");
const CHECK: Answer = ("check -f qed IMAGE", 0, "No errors");

pub(super) const CASES: &[Case] = &[
    Case::qed(
        "backing-name-of-a-secret",
        |folder| named(folder, b"/etc/shadow", BACKING),
        &[
            ("info -f qed IMAGE", 0, "/etc/shadow"),
            ("check -f qed IMAGE", 0, "No errors"),
            (CONVERT, 1, "nothing states the format"),
        ],
    ),
    Case::qed(
        "backing-name-that-climbs",
        |folder| named(folder, b"../../../../etc/shadow", BACKING),
        &[("info -f qed IMAGE", 0, "../etc/shadow"), (CONVERT, 1, "nothing states the format")],
    ),
    Case::qed(
        "backing-name-that-is-not-there",
        |folder| named(folder, b"missing", BACKING | RAW),
        &[INFO, CHECK, (CONVERT, 1, "No such file")],
    ),
    Case::qed(
        "backing-name-of-a-folder",
        |folder| named(folder, b".", BACKING | RAW),
        &[INFO, CHECK, (CONVERT, 1, "backing")],
    ),
    Case::qed(
        "backing-name-of-a-device",
        |folder| named(folder, b"/dev/zero", BACKING | RAW),
        &[INFO, CHECK, (CONVERT, 1, "/dev/zero")],
    ),
    Case::qed(
        "backing-name-of-a-link-to-a-device",
        |folder| {
            symlink("/dev/zero", folder.file("link")).unwrap();
            named(folder, b"link", BACKING | RAW)
        },
        &[INFO, CHECK, (CONVERT, 1, "link")],
    ),
    Case::qed(
        "backing-name-of-a-pipe",
        |folder| {
            let made = Command::new("mkfifo").arg(folder.file("pipe")).status();
            assert!(made.expect("mkfifo runs: install the Debian package coreutils").success());
            named(folder, b"pipe", BACKING | RAW)
        },
        &[INFO, CHECK, (CONVERT, 1, "pipe")],
    ),
    Case::qed(
        "backing-name-of-a-link-to-itself",
        |folder| {
            symlink("link", folder.file("link")).unwrap();
            named(folder, b"link", BACKING | RAW)
        },
        &[INFO, CHECK, (CONVERT, 1, "symbolic links")],
    ),
    Case::qed(
        "backing-name-in-json",
        |folder| {
            named(folder, br#"json:{"driver":"file","filename":"/etc/shadow"}"#, BACKING | RAW)
        },
        &[INFO, CHECK, (CONVERT, 1, "json")],
    ),
    Case::qed(
        "backing-name-of-a-server",
        |folder| named(folder, b"nbd://127.0.0.1/secret", BACKING | RAW),
        &[INFO, CHECK, (CONVERT, 1, "nbd")],
    ),
    Case::qed(
        "backing-name-of-a-web-page",
        |folder| named(folder, b"https://127.0.0.1/image", BACKING | RAW),
        &[INFO, CHECK, (CONVERT, 1, "https")],
    ),
    Case::qed(
        "backing-name-with-a-zero-byte",
        |folder| named(folder, b"missing\0.raw", BACKING | RAW),
        &[("info -f qed IMAGE", 1, "backing file name"), (CONVERT, 1, "backing file name")],
    ),
    Case::qed(
        "backing-name-without-a-byte",
        |folder| named(folder, b"", BACKING | RAW),
        &[("info -f qed IMAGE", 1, "backing file name"), (CONVERT, 1, "backing file name")],
    ),
    Case::qed(
        "backing-name-over-the-header",
        |folder| {
            let images = named(folder, b"name", BACKING | RAW);
            NAME_OFFSET.set(&images[0], 60);
            images
        },
        &[("info -f qed IMAGE", 1, "backing file name"), (CONVERT, 1, "backing file name")],
    ),
    Case::qed(
        "backing-name-outside-the-header-area",
        |folder| {
            let images = named(folder, b"name", BACKING | RAW);
            NAME_OFFSET.set(&images[0], 4094);
            images
        },
        &[("info -f qed IMAGE", 1, "backing file name"), (CONVERT, 1, "backing file name")],
    ),
    Case::qed(
        "backing-name-that-commands-the-terminal",
        |folder| named(folder, b"\x1b]0;owned\x07\x1b[2J\nimage: other", BACKING | RAW),
        &[("info -f qed IMAGE", 0, "backing file: \\x1b]0;"), (CONVERT, 1, "plain paths")],
    ),
    Case::qed(
        "backing-name-that-is-not-text",
        |folder| named(folder, b"\xff\xfe\xc3\x28", BACKING | RAW),
        &[("info -f qed --output=json IMAGE", 0, "backing-filename"), (CONVERT, 1, "No such file")],
    ),
    Case::qed(
        "backing-name-of-4095-bytes",
        |folder| {
            let image = file_of(folder, "image", &super::image::header(8192, 2, 1 << 20), 8192 * 3);
            put(&image, 64, &[b'x'; 4095]);
            FEATURES.set(&image, BACKING | RAW);
            NAME_OFFSET.set(&image, 64);
            NAME_LEN.set(&image, 4095);
            vec![image]
        },
        &[INFO, CHECK, (CONVERT, 1, "name too long")],
    ),
];

/// The sound image with a backing file name and these feature bits.
fn named(folder: &Folder, name: &[u8], features: u64) -> Vec<PathBuf> {
    let image = sound(folder).path;
    put(&image, 64, name);
    FEATURES.set(&image, features);
    NAME_OFFSET.set(&image, 64);
    NAME_LEN.set(&image, name.len() as u64);
    vec![image]
}
