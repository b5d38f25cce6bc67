//! `compact`, and the subcommands that compact afterwards: shorter files with the same disks.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::lab::{Lab, Ran};

/// A disk of as many MiB, of which every second cluster is discarded, and its content in `before.raw`.
fn sparse(mib: u64, create: &str) -> Lab {
    let lab = Lab::new();
    lab.qed(format!("create -q -f qed {create} a.qed {mib}M").split(' ')).succeeded();
    let fill = format!("yes abcdefghijklmno | head -c {mib}M > full.raw");
    lab.shell(&fill);
    lab.qed(["convert", "-n", "-f", "raw", "-O", "qed", "full.raw", "a.qed"]).succeeded();
    let count = (mib * 8).to_string();
    lab.qed(["bench", "-f", "qed", "--discard", "-s", "64k", "-S", "128k", "-c", &count, "a.qed"])
        .succeeded();
    lab.shell("rm full.raw");
    lab.qed(["convert", "-f", "qed", "-O", "raw", "a.qed", "before.raw"]).succeeded();
    lab
}

fn len(lab: &Lab) -> u64 {
    fs::metadata(lab.path("a.qed")).expect("the image").len()
}

/// Both checkers find nothing, free space neither, and the disk is what it was.
#[track_caller]
fn assert_compact(lab: &Lab) {
    lab.qed(["check", "-q", "-f", "qed", "a.qed"]).succeeded();
    lab.shell("qemu-img check -q -f qed a.qed");
    lab.qed(["compare", "-q", "-f", "raw", "-F", "qed", "before.raw", "a.qed"]).succeeded();
}

#[test]
fn the_file_gets_as_short_as_what_it_stores() {
    for create in ["-o cluster_size=64k", "-o journal=on", "-o classic=on"] {
        let lab = sparse(32, create);
        let before = len(&lab);
        assert!(before > 32 << 20, "{create}");
        let said = lab.qed(["compact", "-f", "qed", "a.qed"]).succeeded().stdout;
        assert!(said.starts_with("Image compacted: 16 MiB given back, "), "{create}: {said}");
        assert_eq!(said.lines().count(), 1, "{create}: nothing is held back: {said}");
        assert!(len(&lab) <= before - (16 << 20), "{create}: {}", len(&lab));
        assert_compact(&lab);
        let said = lab.qed(["compact", "-f", "qed", "a.qed"]).succeeded().stdout;
        assert!(said.starts_with("Image compacted: 0 B given back, 0 B moved"), "{create}: {said}");
    }
}

#[test]
fn a_defragmented_disk_lies_in_its_order() {
    let lab = sparse(16, "-o cluster_size=64k");
    // Written backwards: the order of the file is not that of the disk.
    lab.qed([
        "bench",
        "-f",
        "qed",
        "-w",
        "-s",
        "64k",
        "-S",
        "64k",
        "-c",
        "256",
        "--random",
        "-d",
        "1",
        "--pattern",
        "7",
        "a.qed",
    ])
    .succeeded();
    lab.qed(["convert", "-f", "qed", "-O", "raw", "a.qed", "before.raw"]).succeeded();
    let extents = || {
        let map = lab.qed(["map", "--output=json", "-f", "qed", "a.qed"]).succeeded().stdout;
        let map: Value = serde_json::from_str(&map).expect("JSON");
        map.as_array().expect("a list").len()
    };
    assert!(extents() > 16, "{}", extents());
    let said =
        lab.qed(["compact", "--defragment", "--output=json", "-f", "qed", "a.qed"]).succeeded();
    let said: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert!(said["moved"].as_u64() >= Some(16 << 20), "{said}");
    assert_eq!(said["held-back"], serde_json::json!({ "busy": 0, "tables": 0 }), "{said}");
    assert_eq!(said["end"].as_u64(), Some(len(&lab)), "{said}");
    assert!(extents() <= 2, "{}", extents());
    assert_compact(&lab);
}

#[test]
fn options_and_formats_are_taken_or_refused_by_name() {
    let lab = sparse(4, "-o cluster_size=64k");
    let quiet = lab.qed(["compact", "-q", "-f", "qed", "a.qed"]).succeeded();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let progress = lab.qed(["compact", "-p", "a.qed"]).succeeded().stdout;
    assert!(progress.contains("(100.00/100%)"), "{progress}");
    lab.shell("qemu-img create -q -f qcow2 b.qcow2 1M");
    let cases = [
        (
            vec!["compact", "-f", "qcow2", "b.qcow2"],
            "compacting a qcow2 image is not supported yet",
        ),
        (vec!["compact", "-f", "raw", "before.raw"], "compacting a raw image is not supported yet"),
        (
            vec!["resize", "--compact", "-f", "raw", "before.raw", "8M"],
            "--compact is about QED images",
        ),
        (vec!["convert-in-place", "--undo", "--compact", "b.qcow2"], "--compact is for --finalize"),
        (vec!["convert-in-place", "--compact", "b.qcow2"], "--compact is for --finalize"),
        (vec!["convert-in-place", "--finalize", "-p", "b.qcow2"], "take no option"),
    ];
    for (call, why) in cases {
        let ran = lab.qed(&call);
        assert_eq!(ran.code, Some(1), "{call:?}");
        assert!(ran.stderr.contains(why), "{call:?}: {}", ran.stderr);
    }
}

#[test]
fn a_bench_of_discards_gives_space_up() {
    let lab = Lab::new();
    lab.shell("yes abcdefghijklmno | head -c 8M > a.raw");
    let words = "bench -f raw --discard -s 64k -S 128k -c 64 -d 4 --flush-interval 8 a.raw";
    let said = lab.qed(words.split(' ')).succeeded().stdout;
    assert!(said.starts_with("Sending 64 discard requests, 65536 bytes each, 4 in"), "{said}");
    lab.shell("[ $(($(stat --format '%b * %B' a.raw))) -lt $((6 << 20)) ]");
    lab.shell(
        "cmp -n 65536 a.raw /dev/zero && yes abcdefghijklmno | cmp -n 65536 -i 65536:0 a.raw",
    );
    for (call, why) in [
        ("bench -f raw -w --discard a.raw", "cannot be used with"),
        ("bench -f qed --discard=sometimes a.qed", "Invalid discard mode 'sometimes'"),
    ] {
        lab.qed(["create", "-q", "-f", "qed", "a.qed", "1M"]).succeeded();
        let ran = lab.qed(call.split(' '));
        assert!(ran.code == Some(1) && ran.stderr.contains(why), "{call}: {}", ran.stderr);
    }
}

#[test]
fn a_signal_stops_it_and_the_image_is_whole() {
    let lab = sparse(512, "-o cluster_size=64k");
    let before = len(&lab);
    let mut command = lab.command(["compact", "-p", "-f", "qed", "a.qed"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdout = child.stdout.take().expect("piped");
    // The first progress line is written before anything is moved, the second after some was.
    stdout.read_exact(&mut [0; 34]).expect("progress");
    lab.shell(&format!("kill -s INT {}", child.id()));
    std::io::copy(&mut stdout, &mut std::io::sink()).expect("read");
    let ran = Ran::from_output(child.wait_with_output().expect("ended"));
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("interrupted by signal 2"), "{}", ran.stderr);
    let code = lab.qed(["check", "-q", "-f", "qed", "a.qed"]).code;
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
    lab.qed(["compare", "-q", "-f", "raw", "-F", "qed", "before.raw", "a.qed"]).succeeded();
    lab.qed(["compact", "-q", "-f", "qed", "a.qed"]).succeeded();
    assert!(len(&lab) <= before - (256 << 20));
    assert_compact(&lab);
}

#[test]
fn a_smaller_disk_and_one_that_is_converted_for_good_get_shorter_files() {
    let lab = sparse(32, "-o cluster_size=64k");
    let said = lab.qed(["resize", "--shrink", "--compact", "-f", "qed", "a.qed", "8M"]).succeeded();
    assert!(said.stdout.starts_with("Image resized.\nImage compacted: "), "{}", said.stdout);
    assert!(len(&lab) < 6 << 20, "{}", len(&lab));
    lab.shell("truncate -s 8M before.raw");
    assert_compact(&lab);

    lab.shell(
        "qemu-img create -q -f qcow2 q 64M
         for at in 0 9 18 27 36; do qemu-io -c \"write -q -P 5 ${at}M 1M\" q; done
         qemu-img convert -O raw q before.raw",
    );
    lab.qed(["convert-in-place", "-q", "q"]).succeeded();
    lab.shell("mv q a.qed");
    let long = len(&lab);
    let said = lab
        .qed(["convert-in-place", "--finalize", "--compact", "--output=json", "a.qed"])
        .succeeded()
        .stdout;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["compacted"]["end"].as_u64(), Some(len(&lab)), "{said}");
    // What QCOW2 needed beside the data: the L1 table fits in, which lay last.
    assert_eq!(len(&lab), long - (4 << 16), "{said}");
    assert_compact(&lab);
}
