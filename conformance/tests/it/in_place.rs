//! QCOW2 images of every kind that QEMU makes, converted in place: the same disk, no corruption, and
//! the way back to the byte.

pub(crate) mod refused;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::Folder;
use crate::support::QED;

/// Makes `t`, a QCOW2 image; `$O` is what `-o` begins with, and the cluster size is in it.
struct Kind {
    name: &'static str,
    make: &'static str,
    /// Smallest cluster for which there is such an image.
    from: u64,
    /// QEMU does not open it before it is finalized.
    is_held: bool,
}

const WRITE: &str = "qemu-io -f qcow2 -c 'write -P 1 0 5M' -c 'write -P 2 9M 100k' \
                     -c 'write -P 3 15990000 7k' t";

const fn kind(name: &'static str, make: &'static str) -> Kind {
    Kind { name, make, from: 0, is_held: false }
}

const fn extended(name: &'static str, make: &'static str) -> Kind {
    Kind { from: 16 << 10, ..kind(name, make) }
}

const fn held(name: &'static str, make: &'static str) -> Kind {
    Kind { is_held: true, ..kind(name, make) }
}

const KINDS: &[Kind] = &[
    kind("version 3", "qemu-img create -f qcow2 -o $O t 16M; $WRITE"),
    kind("version 2", "qemu-img create -f qcow2 -o $O,compat=0.10 t 16M; $WRITE"),
    kind("empty", "qemu-img create -f qcow2 -o $O t 16M"),
    kind(
        "metadata allocated",
        "qemu-img create -f qcow2 -o $O,preallocation=metadata t 16M; $WRITE",
    ),
    kind("all allocated", "qemu-img create -f qcow2 -o $O,preallocation=full t 6M"),
    kind("lazy refcounts", "qemu-img create -f qcow2 -o $O,lazy_refcounts=on t 16M; $WRITE"),
    kind(
        "dirty",
        "qemu-img create -f qcow2 -o $O,lazy_refcounts=on t 16M
         qemu-io -f qcow2 -c 'write -P 1 0 5M' -c 'write -P 2 9M 100k' -c flush -c abort t || true",
    ),
    kind(
        "zero clusters",
        "qemu-img create -f qcow2 -o $O t 16M; $WRITE
         qemu-io -f qcow2 -c 'write -z 0 2M' -c 'write -z 12M 3M' -c 'write -z -u 4M 512k' t",
    ),
    kind(
        "discarded",
        "qemu-img create -f qcow2 -o $O t 16M; $WRITE
         qemu-io -f qcow2 -d unmap -c 'discard 0 4M' t",
    ),
    kind(
        "zlib",
        "qemu-img create -f qcow2 -o $O s 16M; mv s t; $WRITE; mv t s
         qemu-img convert -c -f qcow2 -O qcow2 -o $O s t; rm s",
    ),
    kind(
        "zlib beside plain",
        "qemu-img create -f qcow2 -o $O s 16M; mv s t; $WRITE; mv t s
         qemu-img convert -c -f qcow2 -O qcow2 -o $O s t; rm s
         qemu-io -f qcow2 -c 'write -P 9 1M 1M' t",
    ),
    kind(
        "zstd",
        "qemu-img create -f qcow2 -o $O s 16M; mv s t; $WRITE; mv t s
         qemu-img convert -c -f qcow2 -O qcow2 -o $O,compression_type=zstd s t; rm s",
    ),
    kind(
        "over a raw file",
        "head -c 14M /dev/urandom > base
         qemu-img create -f qcow2 -o $O -b base -F raw t 16M; $WRITE",
    ),
    kind(
        "over qcow2",
        "qemu-img create -f qcow2 base 14M; qemu-io -f qcow2 -c 'write -P 7 0 14M' base
         qemu-img create -f qcow2 -o $O -b base -F qcow2 t 16M; $WRITE",
    ),
    kind(
        "grown",
        "qemu-img create -f qcow2 -o $O t 16M; $WRITE; qemu-img resize -f qcow2 t 40M
         qemu-io -f qcow2 -c 'write -P 8 39M 64k' t",
    ),
    kind(
        "shrunk",
        "qemu-img create -f qcow2 -o $O t 40M; qemu-io -f qcow2 -c 'write -P 8 0 40M' t
         qemu-img resize -f qcow2 --shrink t 16M",
    ),
    kind(
        "odd size",
        "qemu-img create -f qcow2 -o $O t $((9 * 1048576 + 1536))
         qemu-io -f qcow2 -c 'write -P 1 5M 4195840' t",
    ),
    kind("refcounts of 1 bit", "qemu-img create -f qcow2 -o $O,refcount_bits=1 t 16M; $WRITE"),
    kind("refcounts of 64 bits", "qemu-img create -f qcow2 -o $O,refcount_bits=64 t 16M; $WRITE"),
    kind(
        "cut in its last cluster",
        "qemu-img create -f qcow2 -o $O t 16M; qemu-io -f qcow2 -c 'write -P 1 0 5M' t
         qemu-io -f qcow2 -c 'write -P 1 15M 512' t; truncate -s -512 t",
    ),
    extended("extended, full", "qemu-img create -f qcow2 -o $O,extended_l2=on t 16M; $WRITE"),
    extended(
        "extended, mixed",
        "qemu-img create -f qcow2 -o $O,extended_l2=on t 16M; $WRITE
         qemu-io -f qcow2 -c 'write -z 1M 3k' -c 'write -P 4 10M 2k' -c 'write -P 5 14M 70k' t",
    ),
    extended(
        "extended, mixed, over a raw file",
        "head -c 14M /dev/urandom > base
         qemu-img create -f qcow2 -o $O,extended_l2=on -b base -F raw t 16M; $WRITE
         qemu-io -f qcow2 -c 'write -z 1M 3k' -c 'write -P 4 10M 2k' -c 'write -P 5 13M 70k' t",
    ),
    held(
        "snapshots",
        "qemu-img create -f qcow2 -o $O t 16M; $WRITE; qemu-img snapshot -c one t
         qemu-io -f qcow2 -c 'write -P 6 1M 3M' t; qemu-img snapshot -c two t",
    ),
    held(
        "a bitmap",
        "qemu-img create -f qcow2 -o $O t 16M; qemu-img bitmap --add t changes; $WRITE",
    ),
];

/// Bytes of clusters.
const CLUSTERS: [u64; 5] = [4 << 10, 16 << 10, 64 << 10, 512 << 10, 2 << 20];

/// Compares what the program shows of both; what is not the disk's is not looked at.
const SAME_DISK: &str = "$QED compare -f qed -F qcow2 t old";

#[test]
fn every_kind_is_converted_and_comes_back() {
    let mut kinds = 0;
    for (number, kind) in KINDS.iter().enumerate() {
        // Every kind with three sizes, and every size with every third kind.
        let sizes = (0..CLUSTERS.len()).filter(|size| (size + number) % 5 < 3);
        for cluster in sizes.map(|size| CLUSTERS[size]).filter(|cluster| *cluster >= kind.from) {
            convert_and_come_back(kind, cluster);
            kinds += 1;
        }
    }
    assert!(kinds >= 60, "{kinds} kinds of image");
}

fn convert_and_come_back(kind: &Kind, cluster: u64) {
    let case = format!("{} with clusters of {cluster}", kind.name);
    let folder = Folder::new();
    let does = |script: &str| run(&folder, cluster, script, &case);
    does(kind.make);
    does("cp t old");
    does("$QED convert-in-place -f qcow2 --dry-run --drop-snapshots t; cmp t old");
    does("$QED convert-in-place -f qcow2 --drop-snapshots t");
    does(SAME_DISK);
    does("$QED check -q t");
    if kind.is_held {
        assert!(!did(&folder, cluster, "qemu-img info -f qed t").status.success(), "{case}");
    } else {
        does("qemu-img check -q -f qed t || [ $? = 3 ]");
        does("qemu-img compare -f qed -F qcow2 t old");
    }
    does("$QED convert-in-place --undo t; cmp t old");
    // Once more, and for good; a guest writes on.
    does("$QED convert-in-place -f qcow2 --drop-snapshots t; $QED convert-in-place --finalize t");
    does("qemu-io -f qed -c 'write -P 9 5M 1M' t; qemu-io -f qcow2 -c 'write -P 9 5M 1M' old");
    does("qemu-img check -q -f qed t || [ $? = 3 ]");
    does(SAME_DISK);
    let undone = did(&folder, cluster, "$QED convert-in-place --undo t");
    assert!(!undone.status.success(), "{case}: undone after it was written");
}

// spec-test: QED-CONV-03
#[test]
fn the_first_write_of_anyone_ends_the_way_back() {
    let writes: &[&str] = &[
        "qemu-io -f qed -c 'write -P 9 5M 1M' t",
        "$QED resize -q -f qed t 40M",
        "$QED amend -f qed -o journal=on t",
        "$QED rebase -f qed -u -b '' t",
        "qemu-img resize -q -f qed t 40M",
    ];
    for write in writes {
        let folder = Folder::new();
        run(&folder, 64 << 10, "qemu-img create -f qcow2 -o $O t 16M; $WRITE", write);
        run(&folder, 64 << 10, "$QED convert-in-place -q t", write);
        run(&folder, 64 << 10, write, write);
        let undone = did(&folder, 64 << 10, "$QED convert-in-place --undo t");
        assert!(!undone.status.success(), "{write}");
        let said = String::from_utf8_lossy(&undone.stderr);
        assert!(said.contains("nothing can be undone"), "{write}: {said}");
        run(&folder, 64 << 10, "$QED check -q t || [ $? = 3 ]", write);
    }
}

// spec-test: QED-CONV-03, QED-CONV-05
#[test]
fn what_is_held_is_ours_to_write_and_nobody_elses() {
    let folder = Folder::new();
    let does = |script: &str| run(&folder, 64 << 10, script, script);
    does("qemu-img create -f qcow2 -o $O t 16M; $WRITE; qemu-img snapshot -c one t");
    does("$QED convert-in-place -q --drop-snapshots t");
    for refused in ["qemu-img info -f qed t", "qemu-io -f qed -c 'write 0 64k' t"] {
        let said = did(&folder, 64 << 10, refused);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("Unsupported QED features"), "{refused}: {said}");
    }
    does("$QED dump t | grep -q CONVERSION_HOLD");
    does("$QED resize -q -f qed t 17M; qemu-img check -q -f qed t || [ $? = 3 ]");
}

// spec-test: QED-CONV-04
#[test]
fn a_real_file_system_survives() {
    let folder = Folder::new();
    let does = |script: &str| run(&folder, 64 << 10, script, script);
    does(
        "mkdir files; for i in $(seq 200); do head -c ${i}00 /dev/urandom > files/$i; done
         mke2fs -q -t ext4 -d files fs.raw 64M; qemu-img convert -f raw -O qcow2 fs.raw t",
    );
    does("$QED convert-in-place -q t; $QED check -q t");
    does("$QED convert -f qed -O raw t out.raw; cmp out.raw fs.raw; e2fsck -fn out.raw");
}

/// Runs a script that has to succeed.
#[track_caller]
pub(crate) fn run(folder: &Folder, cluster: u64, script: &str, case: &str) {
    let output = did(folder, cluster, script);
    assert!(
        output.status.success(),
        "{case}: {script}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a script.
pub(crate) fn did(folder: &Folder, cluster: u64, script: &str) -> Output {
    let script = script.replace("$WRITE", WRITE).replace("$O", &format!("cluster_size={cluster}"));
    sh(folder.path(), &script)
}

fn sh(folder: &Path, script: &str) -> Output {
    Command::new("sh")
        .args(["-ec", script])
        .env("QED", &*QED)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}
