//! QED images converted in place to QCOW2 by the program: closed and not, of every layout, and those
//! that came from QCOW2.

use crate::in_place::refused::assert_refused;
use crate::in_place::run;
use crate::support::Folder;

/// Name, and what makes `t`, a QED image.
const KINDS: &[(&str, &str)] = &[
    ("of QEMU", "qemu-img create -f qed -o $O t 16M; $IO -c 'write -P 1 0 5M' t"),
    (
        "of QEMU, not closed",
        "qemu-img create -f qed -o $O t 16M
         $IO -c 'write -P 1 0 5M' -c 'write -z 8M 1M' -c flush -c 'write -P 2 9M 1M' -c abort t || true",
    ),
    (
        "over a raw file",
        "head -c 12M /dev/urandom > base; qemu-img create -f qed -o $O -b base -F raw t 16M
         $IO -c 'write -P 1 3M 500k' -c 'write -z 1M 1M' t",
    ),
    (
        "over a raw file, not closed",
        "head -c 12M /dev/urandom > base; qemu-img create -f qed -o $O -b base -F raw t 16M
         $IO -c 'write -P 1 3M 500k' -c 'write -z 1M 1M' -c flush -c abort t || true",
    ),
    ("compat mode", "$QED create -f qed -o $O t 16M; $IO -c 'write -P 1 0 5M' t"),
    ("journal mode", "$QED create -f qed -o $O,journal=on t 16M; $IO -c 'write -P 1 0 5M' t"),
    (
        "journal mode over qcow2",
        "qemu-img create -f qcow2 base 12M; qemu-io -f qcow2 -c 'write -P 4 0 12M' base
         $QED create -f qed -o $O,journal=on -b base -F qcow2 t 16M; $IO -c 'write -P 1 1M 5M' t",
    ),
    (
        "with leaks",
        "qemu-img create -f qed -o $O t 16M; $IO -c 'write -P 1 0 5M' t; head -c 3M /dev/zero >> t",
    ),
    (
        "once qcow2",
        "qemu-img create -f qcow2 -o $O t 16M; qemu-io -f qcow2 -c 'write -P 1 0 5M' t
         $QED convert-in-place -q t; $IO -c 'write -P 2 1M 2M' t",
    ),
    (
        "once qcow2, given up",
        "qemu-img create -f qcow2 -o $O t 16M; qemu-io -f qcow2 -c 'write -P 1 0 5M' t
         $QED convert-in-place -q t; $QED convert-in-place -q --finalize t",
    ),
];

#[test]
fn every_kind_becomes_qcow2_without_a_finding() {
    for cluster in [4 << 10, 64 << 10, 2 << 20] {
        for (name, make) in KINDS {
            let case = format!("{name}, {cluster}");
            let folder = Folder::new();
            let does = |script: &str| run(&folder, cluster, script, &case);
            // QEMU knows no QED images with tables of 4 clusters where these are so large.
            let make = match cluster {
                2_097_152 => make.replace("-f qed -o $O", "-f qed -o $O,table_size=2"),
                _ => (*make).to_owned(),
            };
            does(&make.replace("$IO", "qemu-io -f qed"));
            does("cp t copy; $QED convert -f qed -O raw copy expected");
            does("$QED convert-in-place -f qed --to qcow2 t");
            does("qemu-img check -f qcow2 t; qemu-img compare -f qcow2 -F raw t expected");
            // Whoever goes on finds room and no old tables.
            does("qemu-io -f qcow2 -c 'write -P 7 6M 5M' t; qemu-img check -f qcow2 t");
            does("$QED convert-in-place -f qcow2 --to qed t; $QED check -f qed t");
        }
    }
}

/// What makes `t`, what is asked, and a part of the answer.
const REFUSED: &[(&str, &str, &str)] = &[
    ("qemu-img create -f raw t 1M", "-f raw --to qcow2", "is no QED image"),
    ("qemu-img create -f qcow2 t 1M", "-f qcow2 --to qcow2", "is a qcow2 image already"),
    ("qemu-img create -f qcow2 t 1M", "-f qcow2 --to raw", "is no QED image"),
    (
        "qemu-img create -f qcow2 t 1M; $QED convert-in-place t",
        "-f qed --to qcow2",
        "--undo makes it what it was",
    ),
    ("qemu-img create -f qed t 1M", "-f qed --to qcow2 --decompress", "--decompress is about"),
    (
        "qemu-img create -f qed t 1M",
        "-f qed --to raw --drop-snapshots",
        "--drop-snapshots is about",
    ),
    ("qemu-img create -f raw t 1M", "-f raw --drop-snapshots", "--drop-snapshots is about"),
    ("qemu-img create -f raw t 1M", "-f raw --trust-magic", "a raw file has no backing file"),
    ("qemu-img create -f qed t 1M", "-f qed --undo --dry-run", "take no option but"),
    ("qemu-img create -f qed t 1M; ln t other", "-f qed --to qcow2", "2 names (hard links)"),
];

#[test]
fn each_refusal_has_its_reason_and_leaves_the_image_alone() {
    assert_refused(REFUSED);
}
