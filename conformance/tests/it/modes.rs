//! Images in compat and in journal mode beside QEMU: it opens, checks and writes them when they were
//! closed, and what it leaves is told from what we left.

use std::path::Path;
use std::sync::Arc;

use qed_check::recovery_hook;
use qed_core::{
    CreateOptions, Identity, Image, Layout, LockPolicy, RecoveryPolicy, RefuseBacking,
    WriteContext, create,
};
use qed_fuzz::{qemu_img, qemu_io};
use qed_io::{Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::{AutoclearFeatures, Epoch, Features, Geometry, GuestOffset, ImageUuid};

use crate::support::{Folder, checked, close, number_at, words};

const SIZE: u64 = 64 << 20;

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };
const COMPAT: Layout = Layout::Compat(IDENTITY);
const JOURNAL: Layout = Layout::Journal { identity: IDENTITY, ring_len_bytes: 64 << 10 };

fn new_image(path: &Path, layout: Layout, geometry: Geometry) {
    let options =
        NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
    let file = FileStorage::create(path, options).unwrap();
    create(&file, &CreateOptions { geometry, layout, ..CreateOptions::new(SIZE) }).unwrap();
}

/// Opens as the programs do: with a recovery where one is needed.
fn open(path: &Path) -> Image {
    let storage = Arc::new(FileStorage::open(path, FileOptions::READ_WRITE).unwrap());
    let context =
        WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Run(&recovery_hook));
    Image::open(storage, &context).unwrap()
}

fn write(image: &Image, at: u64, fill: u8) {
    image.write_at(&[fill; 4096], GuestOffset::new(at)).unwrap();
}

/// What QEMU does with the image; a failed verification of a pattern is said in its output.
#[track_caller]
fn qemu_does(image: &Path, commands: &[&str]) {
    let commands: Vec<String> = commands.iter().map(|&command| command.to_owned()).collect();
    let answer = qemu_io(&["-f", "qed"], image, &commands).success();
    assert!(!answer.stdout.contains("failed"), "{}", answer.stdout);
}

#[track_caller]
fn qemu_finds_nothing(image: &Path) {
    let paths = [image.to_owned()];
    qemu_img(words(&["check", "-q", "-f", "qed"], &paths)).success();
}

/// The autoclear bit of what a mode keeps, if the image has it.
fn kept(image: &Path) -> AutoclearFeatures {
    let bits = AutoclearFeatures::TABLE_DIRTY | AutoclearFeatures::JOURNAL;
    AutoclearFeatures::from_bits_truncate(number_at(image, 32)) & bits
}

fn bit_of(layout: Layout) -> AutoclearFeatures {
    match layout {
        Layout::Journal { .. } => AutoclearFeatures::JOURNAL,
        _ => AutoclearFeatures::TABLE_DIRTY,
    }
}

fn needs_check(image: &Path) -> bool {
    number_at(image, 16) & Features::NEED_CHECK.bits() != 0
}

fn shapes() -> impl Iterator<Item = Geometry> {
    [(12, 2), (12, 4), (13, 2), (14, 4), (15, 2), (16, 4), (17, 16), (20, 2), (21, 4)]
        .into_iter()
        .map(|(bits, tables)| Geometry::new(1 << bits, tables).unwrap())
}

// spec-test: QED-MODE-02, QED-DIRTY-08, QED-JRN-16, QED-JRN-31
#[test]
fn qemu_reads_checks_and_writes_what_we_closed_and_we_what_it_closed() {
    let modes = shapes().flat_map(|geometry| [(COMPAT, geometry), (JOURNAL, geometry)]);
    for (layout, geometry) in modes {
        let folder = Folder::new();
        let path = folder.file("image");
        new_image(&path, layout, geometry);
        qemu_finds_nothing(&path);
        let image = open(&path);
        write(&image, 0, 1);
        write(&image, SIZE - 4096, 2);
        close(image);
        assert_eq!(kept(&path), bit_of(layout));
        qemu_finds_nothing(&path);
        qemu_does(&path, &["read -P 1 0 4k", "read -P 2 67104768 4k"]);
        assert!(kept(&path).is_empty(), "QEMU clears what it does not keep");
        qemu_does(&path, &["write -P 3 8M 64k", "write -P 4 0 4k"]);
        let image = open(&path);
        assert_eq!(kept(&path), bit_of(layout), "bitmap or journal begins anew");
        let mut bytes = [0; 4096];
        for (at, fill) in [(0, 4), (8 << 20, 3), (SIZE - 4096, 2)] {
            image.read_at(&mut bytes, GuestOffset::new(at)).unwrap();
            assert_eq!(bytes, [fill; 4096]);
        }
        write(&image, 16 << 20, 5);
        close(image);
        qemu_finds_nothing(&path);
        qemu_does(&path, &["read -P 5 16M 4k", "read -P 3 8M 64k"]);
    }
}

// spec-test: QED-FEAT-08
#[test]
fn a_commit_that_keeps_the_bits_leaves_an_image_that_we_write() {
    [COMPAT, JOURNAL].into_iter().for_each(write_after_a_commit);
}

fn write_after_a_commit(layout: Layout) {
    let folder = Folder::new();
    let (base, overlay) = (folder.file("base"), folder.file("overlay"));
    new_image(&base, layout, Geometry::new(1 << 16, 4).unwrap());
    let image = open(&base);
    write(&image, 0, 1);
    close(image);
    let paths = [base.clone(), overlay.clone()];
    qemu_img(words(&["create", "-q", "-f", "qcow2", "-F", "qed", "-b"], &paths)).success();
    let answer = qemu_io(&["-f", "qcow2"], &overlay, &["write -P 7 32M 1M".to_owned()]);
    answer.success();
    qemu_img(words(&["commit", "-q", "-f", "qcow2"], &[overlay])).success();
    assert_eq!(kept(&base), bit_of(layout), "QEMU keeps what it does not know");
    let image = open(&base);
    write(&image, 48 << 20, 8);
    close(image);
    assert_eq!((checked(&base).corruptions(), checked(&base).unnamed_clusters()), (0, 0));
    qemu_finds_nothing(&base);
    qemu_does(&base, &["read -P 1 0 4k", "read -P 7 32M 1M", "read -P 8 48M 4k"]);
}

#[test]
fn qemu_opens_what_a_crash_left_and_so_do_we_after_it() {
    let folder = Folder::new();
    let (path, ours, theirs) = (folder.file("image"), folder.file("ours"), folder.file("theirs"));
    new_image(&path, COMPAT, Geometry::new(1 << 16, 4).unwrap());
    let image = open(&path);
    write(&image, 0, 1);
    image.flush().unwrap();
    write(&image, 1 << 20, 2);
    std::fs::copy(&path, &ours).unwrap();
    std::fs::copy(&path, &theirs).unwrap();
    drop(image);
    for crashed in [&ours, &theirs] {
        assert!(needs_check(crashed));
    }
    qemu_does(&theirs, &["read -P 1 0 4k", "write -P 3 2M 4k"]);
    for (path, third) in [(&ours, 0), (&theirs, 3)] {
        let image = open(path);
        let mut bytes = [9; 4096];
        image.read_at(&mut bytes, GuestOffset::new(0)).unwrap();
        assert_eq!(bytes, [1; 4096], "a flush was acknowledged");
        image.read_at(&mut bytes, GuestOffset::new(2 << 20)).unwrap();
        assert_eq!(bytes, [third; 4096]);
        close(image);
        assert!(!needs_check(path) && kept(path) == bit_of(COMPAT));
        assert_eq!(checked(path).corruptions(), 0);
    }
}

// spec-test: QED-JRN-16, QED-FEAT-01
#[test]
fn qemu_refuses_a_journal_that_was_not_emptied_and_opens_it_once_it_is() {
    let folder = Folder::new();
    let (path, crashed) = (folder.file("image"), folder.file("crashed"));
    new_image(&path, JOURNAL, Geometry::new(1 << 16, 4).unwrap());
    let image = open(&path);
    write(&image, 0, 1);
    image.flush().unwrap();
    std::fs::copy(&path, &crashed).unwrap();
    drop(image);
    let before = std::fs::read(&crashed).unwrap();
    let refused = qemu_io(&["-f", "qed"], &crashed, &["read 0 4k".to_owned()]);
    assert!(refused.stderr.contains("Unsupported QED features"), "{}", refused.stderr);
    let check =
        qemu_img(words(&["check", "-f", "qed", "-r", "all"], std::slice::from_ref(&crashed)));
    assert!(check.stderr.contains("Unsupported QED features"), "{}", check.stderr);
    assert!(std::fs::read(&crashed).unwrap() == before);

    open(&crashed).close().unwrap();
    assert_eq!(checked(&crashed).corruptions(), 0);
    qemu_does(&crashed, &["read -P 1 0 4k", "write -P 2 1M 4k"]);
    let image = open(&crashed);
    let mut bytes = [9; 4096];
    image.read_at(&mut bytes, GuestOffset::new(1 << 20)).unwrap();
    assert_eq!(bytes, [2; 4096]);
}

#[test]
fn what_a_killed_qemu_left_of_a_journal_image_is_checked_before_it_is_written() {
    let folder = Folder::new();
    let path = folder.file("image");
    new_image(&path, JOURNAL, Geometry::new(1 << 16, 4).unwrap());
    let image = open(&path);
    write(&image, 0, 1);
    close(image);
    // `abort` ends QEMU without closing the image.
    let commands = ["write -P 3 8M 4k", "flush", "abort"].map(str::to_owned);
    qemu_io(&["-f", "qed"], &path, &commands);
    assert!(needs_check(&path) && kept(&path).is_empty());
    let storage = Arc::new(FileStorage::open(&path, FileOptions::READ_WRITE).unwrap());
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    assert!(Image::open(storage, &context).is_err());
    let image = open(&path);
    let mut bytes = [9; 4096];
    for (at, fill) in [(0, 1), (8 << 20, 3)] {
        image.read_at(&mut bytes, GuestOffset::new(at)).unwrap();
        assert_eq!(bytes, [fill; 4096]);
    }
    close(image);
    assert!(!needs_check(&path));
    qemu_finds_nothing(&path);
}
