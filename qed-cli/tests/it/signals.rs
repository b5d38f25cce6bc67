//! SIGINT and SIGTERM stop at a safe point, SIGUSR1 shows the progress.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use crate::lab::{Lab, Ran};

/// A conversion that cannot end by itself: its output is a pipe that nobody empties.
fn endless(lab: &Lab, args: &[&str]) -> Child {
    lab.shell("qemu-img create -q -f qed a.qed 1G");
    lab.command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn signal(child: &Child, name: &str) {
    // The shell's own: a small Debian has no program of that name.
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s $0 $1", name, &child.id().to_string()]);
    assert_eq!(Ran::of(&mut kill).code, Some(0));
}

#[test]
fn signals_end_the_program_with_their_code() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let lab = Lab::new();
        let mut child = endless(&lab, &["convert", "-f", "qed", "-O", "raw", "a.qed", "-"]);
        // The first byte of output means that the conversion is under way.
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut [0]).expect("output");
        signal(&child, name);
        // A writer that is blocked comes to its next safe point when the pipe is read.
        std::io::copy(&mut stdout, &mut std::io::sink()).expect("read");
        let status = child.wait().expect("ended");
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{name}");
    }
}

#[test]
fn an_interrupted_convert_names_and_removes_what_it_made() {
    let lab = Lab::new();
    // So much that it is not copied before the signal comes.
    lab.shell("yes | head -c 512M > big.raw");
    for existing in [false, true] {
        if existing {
            lab.shell("echo precious > out.qed");
        }
        let mut command = lab
            .command(["convert", "-p", "-m", "1", "-f", "raw", "-O", "qed", "big.raw", "out.qed"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdout = child.stdout.take().expect("piped");
        // The first progress line is written before the file is made, the second after data.
        let mut lines = [0; 34];
        stdout.read_exact(&mut lines).expect("progress");
        signal(&child, "TERM");
        std::io::copy(&mut stdout, &mut std::io::sink()).expect("read");
        let ran = Ran::from_output(child.wait_with_output().expect("ended"));
        assert_eq!(ran.code, Some(143), "{}", ran.stderr);
        assert!(ran.stderr.contains("'out.qed'"), "{}", ran.stderr);
        assert_eq!(lab.path("out.qed").exists(), existing, "{}", ran.stderr);
    }
}

#[test]
fn sigusr1_shows_the_progress() {
    let lab = Lab::new();
    let mut child = endless(&lab, &["convert", "-f", "qed", "-O", "raw", "a.qed", "-"]);
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0]).expect("output");
    signal(&child, "USR1");
    std::io::copy(&mut stdout, &mut std::io::sink()).expect("read");
    let ran = Ran::from_output(child.wait_with_output().expect("ended"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("/100%)\n"), "{}", ran.stderr);
}
