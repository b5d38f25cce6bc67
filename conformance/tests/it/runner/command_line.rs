//! The runner as a program: its exit codes and the files that it writes.

use std::process::Command;

use super::TWO;
use crate::support::Folder;

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the runner on two vectors.
fn conformance(folder: &Folder, words: &[&str]) -> Ran {
    std::fs::create_dir_all(folder.file("vectors")).unwrap();
    std::fs::write(folder.file("vectors/a.toml"), TWO).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(["--vectors", "vectors"])
        .args(words)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn all_as_expected_is_0_and_the_reports_are_written() {
    let folder = Folder::new();
    let words = ["--library", "--json", "a.json", "--markdown", "a.md"];
    let ran = conformance(&folder, &words);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("QED-HDR-02   must        1      0"), "{}", ran.stdout);
    for name in ["a.json", "a.md"] {
        assert!(std::fs::read_to_string(folder.file(name)).unwrap().contains("QED-HDR-02"));
    }
}

#[test]
fn a_failure_is_1_and_a_known_one_0() {
    let folder = Folder::new();
    let wrong = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wrong/refuses.sh");
    let words = ["--program", wrong, "--json", "known.json"];
    let ran = conformance(&folder, &words);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("FAILED sound"), "{}", ran.stdout);
    let ran = conformance(&folder, &["--program", wrong, "--known", "known.json"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let here = ["--program", wrong, "--dir", ".", "--known", "known.json"];
    assert_eq!(conformance(&folder, &here).code, Some(0));
    let two = ["--library", "--program", wrong, "--known", "known.json"];
    assert_eq!(conformance(&folder, &two).code, Some(2));
    let ran = conformance(&folder, &["--library", "--known", "known.json"]);
    assert!(ran.stdout.contains("no longer fails: sound, open"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_run_is_2() {
    for (words, says) in [
        (&[][..], "say what to run"),
        (&["--libary"], "there is no option --libary"),
        (&["--library", "--json"], "--json needs a value"),
        (&["--library", "--seconds", "0"], "--seconds takes seconds"),
        (&["--serve", "x"], "--serve needs --nbd"),
        (&["--library", "--only", "nothing-like-it"], "no such vector"),
        (&["--library", "--known", "absent.json"], "the report cannot be read"),
        (&["--program", "no-such-program-here"], "no-such-program-here cannot be run"),
        (&["--nbd", "nbd+unix:///?socket=/no/such/socket"], "/no/such/socket cannot be run"),
        (&["--library", "--dir", "no-such-folder"], "no-such-folder"),
    ] {
        let ran = conformance(&Folder::new(), words);
        assert_eq!(ran.code, Some(2), "{words:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(says), "{words:?}: {}", ran.stderr);
    }
}
