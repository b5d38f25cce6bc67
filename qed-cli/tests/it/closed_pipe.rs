//! Output that cannot be written is not a success; where nobody reads it, there is nothing to say.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::lab::{Lab, Ran};

const CALLS: &[&[&str]] = &[
    &["info", "a.qed"],
    &["info", "--output=json", "a.qed"],
    &["check", "a.qed"],
    &["check", "--output=json", "a.qed"],
    &["map", "a.qed"],
    &["map", "--output=json", "a.qed"],
    &["dump", "a.qed"],
    &["dump", "--output=json", "a.qed"],
    &["compare", "a.qed", "a.qed"],
    &["measure", "-O", "qed", "--size", "1G"],
    &["create", "-f", "qed", "b.qed", "1M"],
    &["create", "-f", "qed", "-o", "help"],
    &["resize", "-f", "qed", "a.qed", "+0"],
    &["commit", "-f", "qed", "o.qed"],
    &["convert", "-f", "qed", "-O", "raw", "a.qed", "-"],
    &["convert", "-p", "-f", "qed", "-O", "raw", "a.qed", "b.raw"],
    &["bench", "-f", "qed", "-c", "1", "a.qed"],
    &["help"],
    &["completions", "bash"],
    &["--version"],
];

fn lab() -> Lab {
    let lab = Lab::new();
    lab.shell("truncate -s 1M base.raw; qemu-img create -q -f qed -b base.raw -F raw o.qed");
    lab.shell("qemu-img create -q -f qed a.qed 1M && qemu-io -f qed -c 'write 0 64k' a.qed");
    lab
}

#[test]
fn a_full_device_is_an_error() {
    let lab = lab();
    for call in CALLS {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let ran = Ran::of(lab.command(*call).stdin(Stdio::null()).stdout(full));
        assert_eq!(ran.code, Some(1), "{call:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("No space left on device"), "{call:?}: {}", ran.stderr);
    }
}

#[test]
fn a_closed_pipe_ends_the_program_without_a_word() {
    let lab = lab();
    for call in CALLS {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = Ran::of(lab.command(*call).stdin(Stdio::null()).stdout(writer));
        assert_eq!(ran.code, Some(141), "{call:?}: {}", ran.stderr);
        // What it leaves behind is told as ever.
        let is_fate = ran.stderr == "qed: the incomplete output file 'b.raw' is removed\n";
        assert!(ran.stderr.is_empty() || is_fate, "{call:?}: {}", ran.stderr);
    }
}
