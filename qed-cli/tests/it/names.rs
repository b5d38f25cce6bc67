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
    for name in ["nbd://host/x", "json:{}", "a:b"] {
        let ran = lab.qed(["info", name]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("Unknown protocol"), "{}", ran.stderr);
    }
}

#[test]
fn backing_files_open_only_when_asked_and_stated() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qed base.qed 1M && qemu-io -f qed -c 'write -P 1 0 64k' base.qed
         qemu-img create -q -f qed -b base.qed -F qed mid.qed
         qemu-img create -q -f qed -b mid.qed -F qed top.qed
         qemu-img create -q -f qed -u -b gone.qed -F qed orphan.qed 1M
         truncate -s 1M a.raw && qemu-img create -q -f qed -b a.raw -F raw raw.qed",
    );
    for call in ["info orphan.qed", "check orphan.qed", "map orphan.qed", "dump orphan.qed"] {
        lab.qed(call.split(' ')).succeeded();
    }
    let refused = [
        ("convert -f qed -O raw top.qed x", "is not stated"),
        ("convert -f qed --backing-format qed -O raw top.qed x", "is not stated"),
        ("convert -O raw raw.qed x", "was taken for qed by its first bytes"),
        ("convert -f qed --trust-magic -O raw top.qed x", "was taken for qed by its first bytes"),
        ("convert -f qed --backing-format qcow2 -O raw top.qed x", "is not in qcow2 format"),
        ("convert -f qed -O raw orphan.qed x", "is not stated"),
    ];
    for (call, words) in refused {
        let ran = lab.qed(call.split(' '));
        assert_eq!(ran.code, Some(1), "{call}");
        assert!(ran.stderr.contains(words), "{call}: {}", ran.stderr);
        assert!(!lab.path("x").exists(), "{call}: an output was left");
    }
    let chain = "-f qed --backing-format qed --backing-format qed";
    lab.qed(format!("convert {chain} -O raw top.qed x").split(' ')).succeeded();
    lab.shell("qemu-img compare -q -f qed -F raw base.qed x");
    lab.qed("convert -f qed --trust-magic -O raw mid.qed y".split(' ')).succeeded();
    let map = lab.qed(format!("map {chain} top.qed").split(' ')).succeeded().stdout;
    assert!(map.ends_with("0               0x10000         0x50000         base.qed\n"), "{map}");
    let json = lab.qed("map --output=json top.qed".split(' ')).succeeded();
    assert!(json.stdout.contains("\"present\": false, \"zero\": false"), "{}", json.stdout);
    assert!(json.stderr.contains("'mid.qed' is not mapped"), "{}", json.stderr);
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
