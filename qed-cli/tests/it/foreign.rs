//! Images of formats that are not supported: named, and raw only where that is stated.

use std::fs;

use crate::lab::{Lab, Ran};

/// The files of the lab that hold disks, and the format that each is in.
const IMAGES: &[(&str, &str)] = &[
    ("sparse.vmdk", "vmdk"),
    ("stream.vmdk", "vmdk"),
    ("flat.vmdk", "vmdk"),
    ("extents.vmdk", "vmdk"),
    ("cowd.vmdk", "vmdk"),
    ("disk.vdi", "vdi"),
    ("disk.vhdx", "vhdx"),
    ("dynamic.vhd", "vpc"),
    ("fixed.vhd", "vpc"),
    ("disk.hds", "parallels"),
    ("old.hds", "parallels"),
    ("disk.luks", "luks"),
    ("disk.qcow", "qcow"),
    ("disk.dmg", "dmg"),
    ("disk.bochs", "bochs"),
    ("disk.cloop", "cloop"),
];

/// Those that QEMU makes are made by it, the others are data with the bytes that they are known by.
const MAKE: &str = "
    qemu-img create -q -f raw disk.raw 1M
    qemu-io -f raw -c 'write -P 5 0 1M' disk.raw > made
    make() { qemu-img convert -f raw disk.raw \"$@\"; }
    make -O vmdk -o subformat=monolithicSparse sparse.vmdk
    make -O vmdk -o subformat=streamOptimized stream.vmdk
    make -O vmdk -o subformat=monolithicFlat flat.vmdk
    make -O vmdk -o subformat=twoGbMaxExtentFlat extents.vmdk
    make -O vdi disk.vdi
    make -O vhdx disk.vhdx
    make -O vpc dynamic.vhd
    make -O vpc -o subformat=fixed fixed.vhd
    make -O parallels disk.hds
    make -O qcow disk.qcow
    qemu-img create -q -f luks --object secret,id=s,data=x -o key-secret=s,iter-time=10 disk.luks 1M
    mark() { cp disk.raw $1; printf \"$3\" | dd of=$1 bs=1 seek=$2 conv=notrunc status=none; }
    mark cowd.vmdk 0 COWD
    mark old.hds 0 WithoutFreeSpace
    mark disk.dmg 1048064 koly
    mark disk.bochs 0 'Bochs Virtual HD Image'
    mark disk.cloop 0 '#!/bin/sh\\n#V2.0 Format\\nmodprobe cloop file=x'
    ";

fn lab() -> Lab {
    let lab = Lab::new();
    lab.shell(MAKE);
    lab
}

#[track_caller]
fn assert_named(ran: &Ran, format: &str, call: &str) {
    assert_ne!(ran.code, Some(0), "{call}: {}", ran.stdout);
    let text = format!("looks like {format}, a format that is not supported");
    assert!(ran.stderr.contains(&text), "{call}: {}", ran.stderr);
}

#[test]
fn an_image_of_another_format_is_not_taken_for_raw() {
    let lab = lab();
    for (name, format) in IMAGES {
        assert_named(&lab.qed(["convert", "-O", "qed", name, "out"]), format, name);
        assert!(!lab.path("out").exists(), "{name}");
    }
    // The extents of a descriptor are raw files.
    lab.qed(["compare", "flat-flat.vmdk", "disk.raw"]).succeeded();
}

#[test]
fn each_subcommand_names_the_format() {
    let lab = lab();
    let before = fs::read(lab.path("fixed.vhd")).expect("made above");
    for call in [
        "amend -o classic=off",
        "bench -c 1",
        "bench -w -c 1",
        "check",
        "check -r all",
        "commit",
        "compare disk.raw",
        "convert-in-place",
        "convert-in-place --to qcow2",
        "dd of=out",
        "map",
        "map --backing-chain",
        "measure -O qed",
        "rebase -u -b disk.raw -F raw",
        "serve --socket s",
        "serve --socket s --read-only",
    ] {
        let mut args: Vec<&str> = call.split(' ').collect();
        args.push(if call.starts_with("dd") { "if=fixed.vhd" } else { "fixed.vhd" });
        assert_named(&lab.qed(args), "vpc", call);
    }
    assert_named(&lab.qed(["resize", "fixed.vhd", "+1M"]), "vpc", "resize");
    assert_named(&lab.qed(["compare", "fixed.vhd", "disk.raw"]), "vpc", "compare");
    assert_eq!(lab.qed(["check", "fixed.vhd"]).code, Some(63));
    assert_eq!(lab.qed(["compare", "fixed.vhd", "disk.raw"]).code, Some(2));
    assert_eq!(fs::read(lab.path("fixed.vhd")).expect("still there"), before);
}

#[test]
fn what_is_stated_to_be_raw_is_raw() {
    let lab = lab();
    for (name, _) in IMAGES {
        lab.qed(["convert", "-f", "raw", "-O", "qed", name, "out"]).succeeded();
        lab.qed(["compare", "-f", "qed", "-F", "raw", "out", name]).succeeded();
    }
}

#[test]
fn a_backing_file_is_recognised_by_the_same_rule() {
    let lab = lab();
    for (name, format) in IMAGES {
        // QEMU stores the format raw as a bit, and no other.
        lab.shell(&format!("qemu-img create -q -u -f qed -b {name} -F qed over.qed 1M"));
        let recognised = ["map", "-f", "qed", "--backing-chain", "--trust-magic", "over.qed"];
        let ran = lab.qed(recognised);
        let text = format!("'{name}' looks like a {format} image, which is not supported");
        assert!(ran.code == Some(1) && ran.stderr.contains(&text), "{name}: {}", ran.stderr);

        lab.shell(&format!("qemu-img create -q -f qed -b {name} -F raw over.qed"));
        lab.qed(["convert", "-f", "qed", "-O", "raw", "over.qed", "out"]).succeeded();
        lab.qed(["compare", "-f", "raw", "-F", "raw", "out", name]).succeeded();

        let ran = lab.qed(["create", "-f", "qed", "-b", name, "new.qed"]);
        let text = format!("Detected format of {format}.");
        assert!(ran.code == Some(1) && ran.stderr.contains(&text), "{name}: {}", ran.stderr);
    }
}
