//! Names that are not UTF-8, hold colons or commas, or lead elsewhere.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::lab::Lab;

const ODD: &[u8] = b"d\xff \"\\\x01.img";

fn odd(suffix: &str) -> OsString {
    OsString::from_vec([ODD, suffix.as_bytes()].concat())
}

#[test]
fn names_that_are_not_utf8_survive() {
    let lab = Lab::new();
    let (base, over, copy) = (odd("base"), odd("over"), odd("copy"));
    let arg = |text: &str| OsString::from(text);
    lab.qed([arg("create"), arg("-f"), arg("raw"), base.clone(), arg("1M")]).succeeded();
    let create = ["create", "-f", "qed", "-F", "raw", "-b"].map(OsString::from);
    let created = lab.qed(create.into_iter().chain([base.clone(), over.clone()])).succeeded();
    assert!(created.stdout.contains("backing_file=d\\xff \"\\\u{1}.imgbase"), "{}", created.stdout);

    let info = lab.qed([arg("info"), over.clone()]).succeeded().stdout;
    assert!(info.contains("image: d\\xff \"\\\\x01.imgover\n"), "{info}");
    assert!(info.contains("backing file: d\\xff \"\\\\x01.imgbase\n"), "{info}");
    let json = lab.qed([arg("info"), arg("--output=json"), over.clone()]).succeeded().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["backing-filename"], "d\u{fffd} \"\\\u{1}.imgbase");
    let hex: String = base.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(json["format-specific"]["data"]["backing-filename-hex"], hex.as_str());

    let convert = ["convert", "-f", "qed", "-O", "raw"].map(OsString::from);
    lab.qed(convert.into_iter().chain([over.clone(), copy.clone()])).succeeded();
    assert!(lab.path(&copy).exists());
    let compare = ["compare", "-f", "qed", "-F", "raw"].map(OsString::from);
    lab.qed(compare.into_iter().chain([over.clone(), copy])).succeeded();
    let rebase = ["rebase", "-f", "qed", "-u", "-F", "raw", "-b"].map(OsString::from);
    let name = OsStr::from_bytes(b"\xfe\xfd");
    lab.qed(rebase.into_iter().chain([name.to_owned(), over.clone()])).succeeded();
    let bytes = std::fs::read(lab.path(&over)).expect("the image");
    assert!(bytes[64..4096].windows(2).any(|window| window == b"\xfe\xfd"));
}

#[test]
fn a_missing_name_is_shown_with_its_bytes() {
    let ran = Lab::new().qed([OsString::from("info"), odd("")]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("'d\\xff \"\\\\x01.img': No such file"), "{}", ran.stderr);
}

#[test]
fn names_are_plain_paths() {
    let lab = Lab::new();
    lab.qed(["create", "-f", "qed", "file:a:b", "1M"]).succeeded();
    lab.qed(["info", "./a:b"]).succeeded();
    for name in ["nbd://host/x", "a:b"] {
        let ran = lab.qed(["info", name]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("Unknown protocol"), "{}", ran.stderr);
    }
}

/// A chain in one folder, `o.qed` over a QED image of unstated format in another, and raw overlays.
const CHAIN: &str = "
    qemu-img create -q -f qed base.qed 1M && qemu-io -f qed -c 'write -P 1 0 64k' base.qed
    qemu-img create -q -f qed -b base.qed -F qed mid.qed
    qemu-img create -q -f qed -b mid.qed -F qed top.qed
    qemu-img create -q -f qed -u -b gone.qed -F qed orphan.qed 1M
    truncate -s 1M base.raw && qemu-io -f raw -c 'write -P 2 0 64k' base.raw
    mkdir far && cp base.qed base.raw far && ln -s ../base.qed far/link.qed
    qemu-img create -q -f qed -b far/../base.qed -F qed near.qed
    (cd far; qemu-img create -q -f qed -b ../base.qed -F qed o.qed
     qemu-img create -q -f qed -b ../base.raw -F raw raw.qed
     qemu-img create -q -f qed -b link.qed -F qed linked.qed)";

/// Every subcommand that answers about guest data, with `TOP` for an image.
const ASKING: [&str; 11] = [
    "info --backing-chain TOP",
    "map --output=json TOP",
    "map TOP",
    "convert -O raw TOP x",
    "compare TOP base.qed",
    "measure -O qed TOP",
    "dd if=TOP of=x",
    "bench -c 1 TOP",
    "rebase -b base.qed -F qed TOP",
    "resize TOP 2M",
    "commit TOP",
];

/// Calls each of them; what it changes is made anew.
fn ask_all(top: &str, words: &str, mut judge: impl FnMut(&str, crate::lab::Ran)) {
    for call in ASKING {
        let lab = Lab::new();
        lab.shell(CHAIN);
        let call = format!("{} {words}", call.replace("TOP", top));
        judge(&call, lab.qed(call.split_whitespace()));
    }
}

#[test]
fn an_overlay_that_qemu_made_works_without_a_word_where_its_backing_file_is_near() {
    for top in ["top.qed", "near.qed", "far/raw.qed"] {
        ask_all(top, "", |call, ran| {
            // The disks differ; a far file is not written to.
            let fails = call.starts_with("compare far") || call.starts_with("commit far");
            assert_eq!(ran.code, Some(fails.into()), "{call}: {}", ran.stderr);
        });
    }
}

#[test]
fn a_backing_file_that_is_recognised_only_is_not_opened_elsewhere() {
    for top in ["far/o.qed", "far/linked.qed"] {
        ask_all(top, "", |call, ran| {
            let expected = if call.starts_with("compare") { 2 } else { 1 };
            assert_eq!(ran.code, Some(expected), "{call}: {}{}", ran.stdout, ran.stderr);
            let name = if top == "far/linked.qed" { "'far/link.qed'" } else { "'far/../base.qed'" };
            for words in [name, "--backing-format", "--backing-dir", "--trust-magic"] {
                assert!(ran.stderr.contains(words), "{call}: {}", ran.stderr);
            }
            assert_eq!(ran.stdout, "", "{call}");
        });
        for words in ["--trust-magic", "--backing-dir far --backing-dir .", "--backing-format qed"]
        {
            ask_all(top, words, |call, ran| {
                let fails = call.starts_with("commit") && words == "--backing-format qed";
                assert_eq!(ran.code, Some(fails.into()), "{call}: {}", ran.stderr);
            });
        }
    }
}

#[test]
fn commit_writes_elsewhere_only_for_an_image_whose_format_is_stated() {
    let lab = Lab::new();
    lab.shell(
        "mkdir far; head -c 1M /dev/urandom > base; cp base kept; cd far
         qemu-img create -q -f qed -b ../base -F raw o.qed
         qemu-io -f qed -c 'write -P 7 0 64k' o.qed",
    );
    let ran = lab.qed(["commit", "far/o.qed"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("'far/../base' is not written to"), "{}", ran.stderr);
    lab.shell("cmp base kept");
    for words in [["-f", "qed"], ["--backing-dir", "."]] {
        lab.shell("cp kept base; cp far/o.qed far/t.qed");
        lab.qed(["commit", words[0], words[1], "far/t.qed"]).succeeded();
        lab.shell("! cmp -s base kept");
    }
}

#[test]
fn a_chain_is_never_left_out() {
    let lab = Lab::new();
    lab.shell(CHAIN);
    for call in ["info orphan.qed", "check orphan.qed", "dump orphan.qed"] {
        lab.qed(call.split(' ')).succeeded();
    }
    for call in ["map orphan.qed", "map --output=json -f qed orphan.qed", "measure orphan.qed"] {
        let ran = lab.qed(call.split(' '));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{call}");
        assert!(ran.stderr.contains("'gone.qed': No such file"), "{call}: {}", ran.stderr);
    }
    let ran = lab.qed("convert -f qed --backing-format qcow2 -O raw top.qed x".split(' '));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("is not in qcow2 format"), "{}", ran.stderr);
    assert!(!lab.path("x").exists(), "an output was left");
}

#[test]
fn a_file_without_magic_is_written_only_if_it_is_said_to_be_raw() {
    let lab = Lab::new();
    lab.shell(CHAIN);
    lab.shell("qemu-img create -q -f qed -u -b base.raw -F qed o.qed 1M");
    for call in ["resize base.raw 2M", "bench -w -c 1 base.raw", "rebase -u -b x base.raw"] {
        let ran = lab.qed(call.split(' '));
        assert_eq!(ran.code, Some(1), "{call}");
        assert!(ran.stderr.contains("state that it is raw (-f raw)"), "{call}: {}", ran.stderr);
    }
    let ran = lab.qed(["commit", "o.qed"]);
    assert!(ran.stderr.contains("state that it is raw (--backing-format raw)"), "{}", ran.stderr);
    lab.qed(["resize", "-f", "raw", "base.raw", "2M"]).succeeded();
    lab.qed(["commit", "--backing-format", "raw", "o.qed"]).succeeded();
}

#[test]
fn the_format_of_a_backing_file_is_kept_in_the_image() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qcow2 base.qcow2 1M
         qemu-io -f qcow2 -c 'write -P 7 0 64k' base.qcow2",
    );
    lab.qed(["convert", "-f", "qcow2", "-O", "qed", "base.qcow2", "base.qed"]).succeeded();
    for options in ["classic=off", "journal=on"] {
        let create =
            ["create", "-q", "-f", "qed", "-o", options, "-b", "base.qcow2", "-F", "qcow2"];
        lab.qed(create.into_iter().chain(["top.qed"])).succeeded();
        let format = |name: &str| {
            let text = lab.qed(["info", name]).succeeded().stdout;
            let line = text.lines().find(|line| line.starts_with("backing file format: "));
            line.expect("a format").to_owned()
        };
        assert_eq!(format("top.qed"), "backing file format: qcow2", "{options}");
        // Nobody has to say it again.
        lab.qed(["compare", "-f", "qed", "top.qed", "-F", "qcow2", "base.qcow2"]).succeeded();
        let rebase = ["rebase", "-f", "qed", "-b", "base.qed", "-F", "qed", "top.qed"];
        lab.qed(rebase).succeeded();
        assert_eq!(format("top.qed"), "backing file format: qed", "{options}");
        lab.qed(["compare", "-f", "qed", "top.qed", "-F", "qcow2", "base.qcow2"]).succeeded();
        let to =
            ["convert", "-O", "qed", "-f", "qcow2", "-o", options, "-B", "base.qed", "-F", "qed"];
        lab.qed(to.into_iter().chain(["base.qcow2", "copy.qed"])).succeeded();
        assert_eq!(format("copy.qed"), "backing file format: qed", "{options}");
    }
}

#[test]
fn no_file_is_replaced_by_a_copy_of_itself() {
    let lab = Lab::new();
    lab.shell("head -c 1M /dev/urandom > base; cp base kept; ln -s base link; ln base twin");
    lab.qed(["create", "-q", "-f", "qed", "-F", "raw", "-b", "base", "over"]).succeeded();
    let calls: [&[&str]; 5] = [
        &["convert", "-U", "-f", "raw", "-O", "qed", "base", "base"],
        &["convert", "-U", "-f", "raw", "-O", "raw", "base", "link"],
        &["convert", "-U", "-f", "raw", "-O", "raw", "base", "twin"],
        &["convert", "-U", "-f", "qed", "-O", "raw", "over", "base"],
        &["dd", "-U", "-f", "raw", "if=base", "of=base"],
    ];
    for call in calls {
        let ran = lab.qed(call.iter());
        assert_eq!(ran.code, Some(1), "{call:?}");
        assert!(ran.stderr.contains("is read by this call"), "{call:?}: {}", ran.stderr);
        lab.shell("cmp base kept");
    }
}
