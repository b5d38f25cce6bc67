//! An image that one of the two has open does not open in the other.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use qed_core::{
    Image, LockPolicy, OpenError, ReadContext, ReadOnlyImage, RecoveryPolicy, RefuseBacking,
    WriteContext,
};
use qed_fuzz::qemu_img;
use qed_io::{FileOptions, FileStorage, LockError, Storage};
use qed_spec::Geometry;

use crate::support::{Folder, Under, create_image, open_for_writing, words};

#[test]
fn an_image_that_qemu_writes_does_not_open() {
    let folder = Folder::new();
    let image = folder.file("image");
    create_image(&image, Geometry::new(1 << 16, 4).unwrap(), 1 << 20, Under::Nothing);
    let before = std::fs::read(&image).unwrap();
    let holder = Holder::open(&image);
    let storage = || -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(&image, FileOptions::READ_WRITE).unwrap())
    };
    let write = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    let read = ReadContext::new(&RefuseBacking, LockPolicy::Take);
    for error in [
        Image::open(storage(), &write).unwrap_err(),
        ReadOnlyImage::open(storage(), &read).unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::Lock(LockError::Held { .. })), "{error}");
    }
    let beside = ReadContext::new(&RefuseBacking, LockPolicy::None);
    ReadOnlyImage::open(storage(), &beside).unwrap();
    assert!(std::fs::read(&image).unwrap() == before);
    drop(holder);
    Image::open(storage(), &write).unwrap();
}

#[test]
fn an_image_that_we_write_does_not_open_in_qemu() {
    let folder = Folder::new();
    let image = folder.file("image");
    create_image(&image, Geometry::new(1 << 16, 4).unwrap(), 1 << 20, Under::Nothing);
    let held = open_for_writing(&image);
    let paths = [image.clone()];
    for (options, lock) in [
        (&["info", "-f", "qed"][..], "shared \"write\""),
        (&["check", "-f", "qed", "-r", "all"], "\"write\""),
    ] {
        let refused = qemu_img(words(options, &paths));
        assert_eq!(refused.code, Some(1));
        let text = format!("Failed to get {lock} lock");
        assert!(refused.stderr.contains(&text), "{}", refused.stderr);
    }
    qemu_img(words(&["info", "-U", "-f", "qed"], &paths)).success();
    drop(held);
    qemu_img(words(&["info", "-f", "qed"], &paths)).success();
}

/// A `qemu-io` that has an image open for writing.
struct Holder(Child);

impl Holder {
    fn open(image: &Path) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-f", "qed"])
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io runs: install the Debian package qemu-utils");
        // It answers when the image is open.
        child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut answer = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        assert!(answer.contains("1 MiB"), "{answer}");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input ends it, and its end releases the locks.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
