//! Images that are not converted in place: each with its reason, and not a byte of them changed.

use std::fs;

use super::{did, run};
use crate::support::Folder;

const CREATE: &str = "qemu-img create -f qcow2 -o $O t 16M; $WRITE; ";

/// What makes `t`, what is asked, and a part of the answer.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "qemu-img create -f qcow2 -o cluster_size=512 t 16M",
        "",
        "clusters of 512 bytes are too small",
    ),
    ("$CREATE qemu-img snapshot -c one t", "", "internal snapshots: delete them"),
    ("$CREATE ln t other", "", "2 names (hard links)"),
    (
        "qemu-img create -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s t 1M",
        "",
        "LUKS",
    ),
    ("qemu-img create -f qcow2 -o data_file=d t 1M", "", "data file"),
    // The corrupt bit.
    (
        "$CREATE printf '\\002' | dd of=t bs=1 seek=79 conv=notrunc status=none",
        "",
        "marked corrupt",
    ),
    // The second L2 entry is that of the first.
    (
        "$CREATE l2=$(($(od -An -t u4 --endian=big -j 196612 -N 4 t)))
         dd if=t of=t bs=8 skip=$((l2 / 8)) seek=$((l2 / 8 + 1)) count=1 conv=notrunc status=none",
        "",
        "has two uses",
    ),
    ("$CREATE printf x | dd of=t bs=1 seek=3000 conv=notrunc status=none", "", "byte 3000"),
    ("qemu-img create -f raw t 1M", "--to qed", "state that it is raw (-f raw)"),
    ("qemu-img create -f qed t 1M", "--to qed", "is a QED image already"),
    ("qemu-img create -f qed t 1M", "--undo", "nothing can be undone"),
    ("qemu-img create -f qed t 1M", "--finalize", "nothing to finalize"),
    ("$CREATE", "--undo", "nothing can be undone"),
];

#[test]
fn each_has_its_reason_and_is_left_alone() {
    assert_refused(REFUSED);
}

/// Each call fails with its reason, and changes no byte of `t`.
pub(crate) fn assert_refused(calls: &[(&str, &str, &str)]) {
    for (make, options, reason) in calls {
        let folder = Folder::new();
        let make = make.replace("$CREATE", CREATE);
        run(&folder, 64 << 10, &make, reason);
        let before = fs::read(folder.file("t")).unwrap();
        let answer = did(&folder, 64 << 10, &format!("$QED convert-in-place {options} t"));
        let said = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(1), "{reason}: {said}");
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(fs::read(folder.file("t")).unwrap() == before, "{reason}: it was written to");
    }
}

#[test]
fn an_image_in_use_is_left_alone() {
    let folder = Folder::new();
    let make = format!("{CREATE} qemu-img create -f qcow2 -b t -F qcow2 over");
    run(&folder, 64 << 10, &make, "in use");
    for user in ["t", "over"] {
        let script = format!(
            "mkfifo keep; qemu-io -f qcow2 {user} < keep > said & exec 3> keep
             echo 'read 0 512' >&3; until grep -q ops said; do sleep 0.01; done
             status=0; $QED convert-in-place t || status=$?
             exec 3>&-; wait; rm keep; [ $status = 1 ]"
        );
        let output = did(&folder, 64 << 10, &script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("or an overlay of it"), "{said}");
    }
}
