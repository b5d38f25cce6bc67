//! What the shell is told.

use crate::lab::Lab;

/// Changes eight bytes of a file.
fn poke(lab: &Lab, name: &str, at: u64, value: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(lab.path(name)).expect("the image");
    file.write_all_at(&value.to_le_bytes(), at).expect("written");
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qed a.qed 1M && qemu-io -f qed -c 'write -P 1 0 64k' a.qed
         cp a.qed b.qed && qemu-io -f qed -c 'write -P 2 0 1' b.qed
         cp a.qed leak.qed && truncate -s +64k leak.qed
         cp a.qed corrupt.qed && cp a.qed header.qed
         qemu-img create -q -f qcow2 a.qcow2 1M && truncate -s 1M a.raw",
    );
    let l2 = 0x60000;
    poke(&lab, "corrupt.qed", l2, 0x9_9999_0000);
    poke(&lab, "header.qed", 48, 1);
    lab
}

#[test]
fn check_and_compare_have_codes_of_their_own() {
    let lab = lab();
    let cases: &[(&[&str], i32)] = &[
        (&["check", "a.qed"], 0),
        (&["check", "header.qed"], 1),
        (&["check", "missing.qed"], 1),
        (&["check", "--no-such-option"], 1),
        (&["check", "corrupt.qed"], 2),
        (&["check", "leak.qed"], 3),
        (&["check", "a.qcow2"], 63),
        (&["check", "a.raw"], 63),
        (&["compare", "a.qed", "a.qed"], 0),
        (&["compare", "a.qed", "b.qed"], 1),
        (&["compare", "a.qed"], 1),
        (&["compare", "a.qed", "corrupt.qed"], 2),
        (&["compare", "a.qed", "missing.qed"], 2),
        (&["compare", "a.qed", "header.qed"], 2),
    ];
    for (args, code) in cases {
        let ran = lab.qed(*args);
        assert_eq!(ran.code, Some(*code), "{args:?}: {}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn every_other_error_is_one() {
    let lab = lab();
    for subcommand in [
        "create",
        "info",
        "map",
        "convert",
        "rebase",
        "commit",
        "resize",
        "dd",
        "measure",
        "bench",
        "dump",
        "amend",
        "convert-in-place",
        "snapshot",
    ] {
        for args in [vec!["--no-such-option"], vec!["missing.qed"], vec!["a", "b", "c", "d"]] {
            let ran = lab.qed([vec![subcommand], args.clone()].concat());
            assert_eq!(ran.code, Some(1), "{subcommand} {args:?}: {}", ran.stderr);
            assert!(ran.stderr.starts_with("qed"), "{subcommand} {args:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_later_subcommand_is_refused_by_name() {
    let lab = lab();
    let ran = lab.qed(["bitmap", "a.qed"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "qed: the subcommand 'bitmap' is not supported yet\n");
}

#[test]
fn later_options_are_refused_by_name() {
    let lab = lab();
    let cases: &[(&[&str], &str)] = &[
        (&["create", "-f", "qed", "-o", "encryption=on", "x", "1M"], "the option 'encryption'"),
        (&["create", "-f", "qed", "-o", "preallocation=full", "x", "1M"], "preallocation=full"),
        (&["info", "--object", "secret,id=s", "a.qed"], "the option '--object'"),
        (&["convert", "--bitmaps", "a.qed", "x"], "the option '--bitmaps'"),
        (&["commit", "-r", "1M", "-f", "qed", "a.qed"], "the option '--rate'"),
        (&["bench", "-n", "a.qed"], "aio=native"),
        (&["bench", "--discard", "-i", "io_uring", "a.qed"], "aio=io_uring with --discard"),
        (&["resize", "-f", "qcow2", "a.qcow2", "2M"], "resizing a qcow2 image in place"),
        (&["rebase", "-f", "qcow2", "-b", "", "a.qcow2"], "rebasing a qcow2 image in place"),
        (&["snapshot", "-c", "s", "a.qcow2"], "creating a snapshot of a qcow2 image"),
        (&["snapshot", "-a", "s", "a.qcow2"], "applying a snapshot of a qcow2 image"),
        (&["snapshot", "-d", "s", "a.qed"], "deleting a snapshot of a qed image"),
        (&["commit", "-f", "qcow2", "a.qcow2"], "committing a qcow2 image in place"),
        (&["bench", "-w", "-f", "qcow2", "a.qcow2"], "writing to a qcow2 image in place"),
    ];
    for (args, what) in cases {
        let ran = lab.qed(*args);
        assert_eq!(ran.code, Some(1), "{args:?}");
        let refused = format!("{what} is not supported yet\n");
        assert!(ran.stderr.ends_with(&refused), "{args:?}: {}", ran.stderr);
    }
    assert!(!lab.path("x").exists(), "a refused call leaves no file");
}

#[test]
fn messages_begin_with_the_name_the_program_was_called_by() {
    let lab = lab();
    for name in ["qemu-img", "anything"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_qed"), lab.path(name)).expect("a link");
        let mut command = std::process::Command::new(lab.path(name));
        let ran = crate::lab::Ran::of(command.args(["info", "--nope"]));
        let words = format!(
            "{name} info: unrecognized option '--nope'\nTry '{name} info --help' for more info\n"
        );
        assert_eq!(ran.stderr, words);
    }
}

#[test]
fn a_failed_convert_names_what_it_made_and_removes_it() {
    let lab = lab();
    for existing in [false, true] {
        if existing {
            lab.shell("echo precious > out.qed");
        }
        let ran = lab.qed("convert -f qed -O qed corrupt.qed out.qed".split(' '));
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("output file 'out.qed' is"), "{}", ran.stderr);
        assert!(ran.stderr.contains("L1[0] L2[0] is 0x999990000"), "{}", ran.stderr);
        assert_eq!(lab.path("out.qed").exists(), existing);
    }
}

#[test]
fn an_output_that_cannot_be_made_leaves_an_existing_file_alone() {
    let lab = lab();
    lab.shell("cp a.qed before.qed");
    let calls = [
        "create -f qed -o cluster_size=3k a.qed 1M",
        "create -f qed a.qed 8E",
        "create -f qcow2 -o cluster_size=3k a.qed 1M",
        "convert -f raw -O qed -o table_size=3 a.raw a.qed",
        "convert -f raw -O qcow2 -o refcount_bits=3 a.raw a.qed",
        "dd -f nope -O qed if=a.raw of=a.qed",
    ];
    for call in calls {
        assert_eq!(lab.qed(call.split(' ')).code, Some(1), "{call}");
        lab.shell("cmp a.qed before.qed");
    }
}

#[test]
fn an_image_that_cannot_be_mapped_is_not_called_a_backing_file() {
    let ran = lab().qed(["map", "-f", "qed", "corrupt.qed"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("qed: guest offset 0x0: corrupt image: "), "{}", ran.stderr);
}
