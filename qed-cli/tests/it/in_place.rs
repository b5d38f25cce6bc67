//! `convert-in-place`: what it prints in each direction, and devices and files that it may not write.

use std::fs;

use serde_json::Value;

use crate::lab::Lab;

/// What makes `t`, the words of the conversion, and what it is called afterwards.
const WAYS: [(&str, &str, &str); 4] = [
    ("qemu-img create -q -f qcow2 t 4M && qemu-io -c 'write 1M 100k' t", "--to qed", "a QED image"),
    (
        "qemu-img create -q -f qed t 4M && qemu-io -f qed -c 'write 1M 100k' t",
        "-f qed --to qcow2",
        "qcow2",
    ),
    ("truncate -s 4M t && qemu-io -f raw -c 'write 1M 100k' t", "-f raw --to qed", "qed"),
    (
        "truncate -s 4M t && qemu-io -f raw -c 'write 1M 100k' t && $QED convert-in-place -q -f raw t",
        "-f qed --to raw",
        "raw",
    ),
];

fn made(make: &str) -> Lab {
    let lab = Lab::new();
    let qed = env!("CARGO_BIN_EXE_qed");
    lab.shell(&format!("{{ {}; }} > made", make.replace("$QED", qed)));
    lab
}

fn call(options: &str, way: &str) -> Vec<String> {
    let words = format!("convert-in-place {options} {way} t");
    words.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_dry_run_says_what_would_be_and_writes_nothing() {
    for (make, way, name) in WAYS {
        let lab = made(make);
        let before = fs::read(lab.path("t")).expect("the image");
        let text = lab.qed(call("--dry-run", way)).succeeded().stdout;
        assert!(
            text.starts_with(&format!("'t' can become {name}. Nothing was written.\n")),
            "{text}"
        );
        let json = lab.qed(call("--dry-run --output json", way)).succeeded().stdout;
        let planned: Value = serde_json::from_str(&json).expect(&json);
        assert_eq!(
            (&planned["filename"], &planned["dry-run"]),
            (&"t".into(), &true.into()),
            "{way}"
        );
        assert!(fs::read(lab.path("t")).expect("the image") == before, "{way}");

        let json = lab.qed(call("--output json", way)).succeeded().stdout;
        let done: Value = serde_json::from_str(&json).expect(&json);
        let lens = ["file-length-before", "file-length-after"].map(|key| done[key].as_u64());
        assert_eq!(
            lens,
            ["file-length-before", "file-length-after"].map(|key| planned[key].as_u64())
        );
        assert!(done["seconds"].is_f64() && done["dry-run"] == false, "{json}");
        let len = fs::metadata(lab.path("t")).expect("the image").len();
        assert_eq!(lens, [Some(before.len() as u64), Some(len)], "{way}");
    }
}

#[test]
fn what_was_done_is_said_unless_it_is_not_to_be() {
    for (make, way, name) in WAYS {
        let said = made(make).qed(call("", way)).succeeded();
        assert!(said.stdout.starts_with(&format!("'t' is {name} now (")), "{}", said.stdout);
        let quiet = made(make).qed(call("-q", way)).succeeded();
        assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""), "{way}");
        let progress = made(make).qed(call("-p", way)).succeeded();
        assert!(progress.stdout.contains("(100.00/100%)"), "{way}: {}", progress.stdout);
    }
}

#[test]
fn a_file_that_may_only_be_read_is_not_converted() {
    for (make, way, _) in WAYS {
        let lab = made(make);
        // Root may write any file, so that somebody else is asked.
        lab.shell(&format!(
            "cp {} qed; cp t before; chmod 555 . t; status=0
             if [ $(id -u) = 0 ]; then as='setpriv --reuid=65534 --clear-groups'; fi
             $as ./qed convert-in-place {way} t 2> /dev/stdout | grep -q 'Permission denied'
             chmod 755 .; cmp before t",
            env!("CARGO_BIN_EXE_qed")
        ));
    }
}

#[test]
fn a_block_device_is_not_converted() {
    for (make, way, _) in WAYS {
        let lab = made(make);
        lab.shell(&format!(
            "if [ $(id -u) != 0 ] && [ -n \"$QED_SKIPPED\" ]; then
                 echo a_block_device_is_not_converted: needs root and loop devices >> $QED_SKIPPED
                 exit
             fi
             cp t before; device=$(losetup --find --show t)
             {} convert-in-place {way} $device > said 2>&1; status=$?
             losetup --detach $device; cmp before t
             [ $status = 1 ] && grep -q 'block device' said",
            env!("CARGO_BIN_EXE_qed")
        ));
    }
}

#[test]
fn that_qemu_has_to_wait_is_said_by_the_conversion_and_by_info() {
    for (make, is_held) in
        [("qemu-img snapshot -c s t", true), ("qemu-img bitmap --add t b", true), ("true", false)]
    {
        let lab = made(&format!("qemu-img create -q -f qcow2 t 4M; {make}"));
        let said = lab.qed(["convert-in-place", "--drop-snapshots", "t"]).succeeded().stdout;
        let line = "QEMU cannot open it before the first write by qed, or";
        assert_eq!(said.contains(line) && said.contains("--finalize t"), is_held, "{make}: {said}");
        let info = || lab.qed(["info", "t"]).succeeded().stdout;
        assert_eq!(info().contains(line), is_held, "{make}: {}", info());
        assert!(info().contains("--undo makes it what it was"), "{make}: {}", info());
        let json = lab.qed(["info", "--output=json", "t"]).succeeded().stdout;
        let json: Value = serde_json::from_str(&json).expect(&json);
        let data = &json["format-specific"]["data"];
        assert_eq!(
            (&data["can-be-undone"], &data["opens-in-qemu"]),
            (&true.into(), &(!is_held).into())
        );
        let refused = if is_held { "! " } else { "" };
        lab.shell(&format!("{refused}qemu-img info t > said 2>&1"));
        lab.qed(["convert-in-place", "-q", "--finalize", "t"]).succeeded();
        assert!(!info().contains("conversion:"), "{make}: {}", info());
        lab.shell("qemu-img info t > said");
    }
}

/// Makes `half`, a raw file of 4 MiB whose conversion was interrupted with all of it appended, and
/// its plan in the form of earlier versions, which a shell can write.
const INTERRUPTED: &str = r"
    head -c 4M /dev/urandom > disk; cp disk done; $QED convert-in-place -q -f raw done
    cp done half; head -c 64K disk | dd of=half conv=notrunc status=none
    { printf 'QEDPLAN1\1\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0'; head -c 512 disk; head -c 512 done; } > plan
    cp plan half.qed-convert; cp half before
";

/// Each is run after [`INTERRUPTED`] and has to hold.
const AFTERWARDS: [&str; 6] = [
    "$QED convert-in-place -q -f raw half; qemu-img compare -q -f qed -F raw half disk
     [ ! -e half.qed-convert ]",
    // One plan by all names.
    "mkdir d; ln -s ../half d/link; $QED convert-in-place -q -f raw d/link
     qemu-img compare -q -f qed -F raw half disk; [ ! -e half.qed-convert ]",
    // A file that grew: nothing is cut, and the message says which plan and what to do.
    "truncate -s 8M half; cp half before; ! $QED convert-in-place -f raw half 2> said; cmp half before
     grep -q half.qed-convert said; grep -q 'truncate -s 4194304' said; cmp plan half.qed-convert",
    "chmod 666 half.qed-convert; ! $QED convert-in-place -f raw half 2> said; cmp half before
     grep -q 'not believed' said",
    "mv half.qed-convert x; ln -s x half.qed-convert; ! $QED convert-in-place -f raw half 2> said
     cmp half before; grep -q 'not believed' said",
    "if [ $(id -u) != 0 ] && [ -n \"$QED_SKIPPED\" ]; then
         echo an_interrupted_conversion_cuts_nothing_else: another owner needs root >> $QED_SKIPPED
         exit
     fi
     chown 65534 half.qed-convert; ! $QED convert-in-place -f raw half 2> said; cmp half before
     grep -q 'another user' said
     chown 65534 half; $QED convert-in-place -q -f raw half",
];

#[test]
fn an_interrupted_conversion_cuts_nothing_else() {
    for check in AFTERWARDS {
        let script = format!("set -e; QED={}; {INTERRUPTED} {check}", env!("CARGO_BIN_EXE_qed"));
        Lab::new().shell(&script);
    }
}
