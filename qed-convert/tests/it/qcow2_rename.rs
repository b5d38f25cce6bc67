//! Another backing file name in a QCOW2 header, beside `qemu-img rebase -u`: what QEMU says of the two
//! images is the same, and nothing but the header differs from what it was.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use qed_convert::qcow2::{Qcow2Backing, Qcow2Header, SetQcow2BackingError, set_qcow2_backing};
use qed_io::{Fault, Faulty, FileOptions, FileStorage, Repeat, RequestKind, Storage};
use serde_json::Value;

use crate::qcow2_lab::Lab;

/// What makes `t`.
const KINDS: &[&str] = &[
    "create -q -f qcow2 -b source.raw -F raw t",
    "create -q -f qcow2 -o compat=0.10 -b source.raw -F raw t",
    "create -q -f qcow2 -o compat=0.10,cluster_size=512 -b source.raw -F raw t",
    "create -q -f qcow2 -o cluster_size=1k -b source.raw -F raw t",
    "create -q -f qcow2 -o cluster_size=2M,lazy_refcounts=on -b source.raw -F raw t",
    "create -q -f qcow2 -o compression_type=zstd,extended_l2=on -b source.raw -F raw t",
    "create -q -f qcow2 t 3M",
    "create -q -f qcow2 -b source.raw -F raw t\nsnapshot -c one t\nio t write 1M 300k\nsnapshot -c two t",
    "create -q -f qcow2 -b source.raw -F raw t\nbitmap --add t one\nio t write 1M 300k",
    "create -q -f qcow2 t 3M\nbitmap --add t one",
    "create -q -f qcow2 -u -b a/rather/long/name/of/a/file/that/is/not/there -F qcow2 t 3M",
];

/// Name and format; the last is none.
const NEW: &[(&str, &str)] = &[
    ("other.raw", "raw"),
    ("a/folder/and/another/with/a/name/that/is/longer/than/the/one/before/it.qcow2", "qcow2"),
    ("disk.qed", "qed"),
    ("", ""),
];

/// `t` without its backing file, which is not there.
const ALONE: &str =
    r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"t"},"backing":null}"#;

fn change(lab: &Lab, name: &str, format: &str) -> Result<(), SetQcow2BackingError> {
    let file = FileStorage::open(lab.path("t"), FileOptions::READ_WRITE).expect("an image");
    let backing = Qcow2Backing { name: name.as_bytes(), format: format.as_bytes() };
    set_qcow2_backing(&file, Some(backing).filter(|it| !it.name.is_empty()))
}

fn info(lab: &Lab, name: &str) -> Value {
    let out = lab.tool("qemu-img", ["info", "--output=json", name]);
    let mut info: Value = serde_json::from_slice(&out.stdout).expect("QEMU knows the image");
    let members = info.as_object_mut().expect("an object");
    for own in ["filename", "actual-size", "children"] {
        members.remove(own);
    }
    info
}

#[test]
fn qemu_says_the_same_as_of_its_own_rebase() {
    for kind in KINDS {
        let lab = Lab::new();
        lab.run(kind);
        for (name, format) in NEW {
            let what = format!("{kind}: {name}");
            let before = fs::read(lab.path("t")).expect("an image");
            fs::copy(lab.path("t"), lab.path("q")).expect("room in /tmp");
            let asked = match *name {
                "" => ["rebase", "-u", "-f", "qcow2", "-b", "", "q"].to_vec(),
                name => ["rebase", "-u", "-f", "qcow2", "-b", name, "-F", format, "q"].to_vec(),
            };
            assert!(lab.tool("qemu-img", asked).status.success(), "{what}");
            change(&lab, name, format).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(info(&lab, "t"), info(&lab, "q"), "{what}");
            let checked = lab.tool("qemu-img", ["check", ALONE]);
            assert!(checked.status.success(), "{what}: {checked:?}");
            let after = fs::read(lab.path("t")).expect("an image");
            let file = FileStorage::open(lab.path("t"), FileOptions::READ_ONLY).expect("an image");
            let cluster = Qcow2Header::read(&file).expect("a header").cluster_size();
            let cluster = usize::try_from(cluster).expect("small");
            assert_eq!(before.len(), after.len(), "{what}");
            assert!(before[cluster..] == after[cluster..], "{what}: more than the header changed");
        }
    }
}

#[test]
fn a_dirty_image_stays_dirty_and_a_corrupt_one_is_left_alone() {
    let lab = Lab::new();
    lab.run("create -q -f qcow2 -o lazy_refcounts=on -b source.raw -F raw t");
    let bits = |bits: u8| {
        let file = FileStorage::open(lab.path("t"), FileOptions::READ_WRITE).expect("an image");
        file.write_at(&[bits], 79).expect("room in /tmp");
    };
    bits(1);
    change(&lab, "other.raw", "raw").expect("a dirty image");
    assert_eq!(info(&lab, "t")["dirty-flag"], true);
    assert_eq!(info(&lab, "t")["backing-filename"], "other.raw");
    for (bit, reason) in [(2, "corrupt"), (32, "feature")] {
        bits(bit);
        let before = fs::read(lab.path("t")).expect("an image");
        let refused = change(&lab, "third.raw", "raw").expect_err(reason);
        assert!(refused.to_string().contains(reason), "{refused}");
        assert!(fs::read(lab.path("t")).expect("an image") == before, "{reason}");
    }
}

/// Extensions that lie across sectors move in two steps: QEMU reads what is between them.
#[test]
fn qemu_opens_an_image_whose_extensions_are_aside() {
    let lab = Lab::new();
    lab.run("create -q -f qcow2 t 3M\nbitmap --add t one");
    let file = FileStorage::open(lab.path("t"), FileOptions::READ_WRITE).expect("an image");
    let faulty = Faulty::new(Arc::new(file));
    let commits = AtomicU32::new(0);
    faulty.fail_when(
        move |request| {
            let is_commit = request.kind == RequestKind::Write && request.range.start == 0;
            is_commit && commits.fetch_add(1, Ordering::Relaxed) == 1
        },
        Fault::Io,
        Repeat::Always,
    );
    let backing = Qcow2Backing { name: b"source.raw", format: b"raw" };
    let failed = set_qcow2_backing(&faulty, Some(backing)).expect_err("the second commit fails");
    assert!(matches!(failed, SetQcow2BackingError::Io { step: "commit", .. }), "{failed:?}");
    drop(faulty);
    let between = info(&lab, "t");
    assert_eq!(between["backing-filename"], "source.raw");
    assert_eq!(between["backing-filename-format"], "raw");
    assert_eq!(between["format-specific"]["data"]["bitmaps"][0]["name"], "one");
    // QEMU writes to it, and another call ends what was begun.
    lab.run("io t write 1M 300k\ncheck -q t");
    change(&lab, "other.raw", "raw").expect("an image");
    assert_eq!(info(&lab, "t")["backing-filename"], "other.raw");
}

#[test]
fn names_that_no_image_has_are_refused() {
    let lab = Lab::new();
    lab.run("create -q -f qcow2 -o cluster_size=1k -b source.raw -F raw t");
    let before = fs::read(lab.path("t")).expect("an image");
    let long = "n".repeat(1024);
    for (name, format) in [(&*long, "raw"), ("n", ""), ("n", "a_format_of_16_b")] {
        let refused = change(&lab, name, format);
        assert!(matches!(refused, Err(SetQcow2BackingError::Name)), "{refused:?}");
    }
    // The first cluster ends at byte 1024.
    let refused = change(&lab, &long[..1000], "raw");
    assert!(matches!(refused, Err(SetQcow2BackingError::NoRoom)), "{refused:?}");
    assert!(fs::read(lab.path("t")).expect("an image") == before);
}
