//! `info` of images that cannot be opened: what they say is told, and only that.

use std::fs;

use crate::lab::Lab;

/// An encrypted image, one with a data file that would hold up whoever opens it, and two with
/// features that nobody knows.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qcow2 --object secret,id=s,data=x \
             -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 1M
         qemu-img create -q -f qcow2 -o data_file=data.raw data.qcow2 1M; rm data.raw; mkfifo data.raw
         qemu-img create -q -f qcow2 bits.qcow2 1M
         printf '\\200' | dd of=bits.qcow2 bs=1 seek=72 conv=notrunc status=none
         qemu-img create -q -f qed bits.qed 1M; qemu-img create -q -f raw disk.raw 1M
         printf '\\002' | dd of=bits.qed bs=1 seek=20 conv=notrunc status=none",
    );
    lab
}

#[test]
fn what_an_image_says_is_told_whatever_cannot_be_opened() {
    let lab = lab();
    for (name, key, expected) in [
        ("luks.qcow2", "encrypt", "luks"),
        ("data.qcow2", "data-file", "data.raw"),
        ("bits.qcow2", "unsupported-features", "\"bit\": 63"),
        ("bits.qed", "unsupported-features", "SNAPSHOTS"),
    ] {
        let text = lab.qed(["info", "--output=json", name]).succeeded().stdout;
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["virtual-size"], 1 << 20, "{name}");
        assert_eq!(json["encrypted"] == true, name.starts_with("luks"), "{name}");
        assert!(!json["format-specific"]["data"][key].is_null(), "{name}: {text}");
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn every_other_subcommand_goes_on_refusing() {
    let lab = lab();
    for (name, expected) in [
        ("luks.qcow2", "encrypted images are not supported"),
        ("data.qcow2", "an external data file is not supported"),
        ("bits.qcow2", "unsupported qcow2 feature: incompatible bit 63"),
        ("bits.qed", "unsupported QED feature bit 33"),
    ] {
        let format = name.split('.').next_back().expect("a suffix");
        for call in [
            "amend -o classic=off",
            "bench -w",
            "check",
            "commit",
            "compare -F raw disk.raw",
            "convert-in-place",
            "convert -O raw out",
            "dd of=out",
            "map --backing-chain",
            "measure -O raw",
            "rebase -u -b disk.raw -F raw",
            "serve --read-only --socket s",
        ] {
            let mut args: Vec<&str> = call.split(' ').collect();
            args.splice(1..1, ["-f", format]);
            let operand = format!("if={name}");
            // The image comes before the other operand.
            let has_other = call.starts_with("convert -O") || call.starts_with("compare");
            let place = args.len() - usize::from(has_other);
            args.insert(place, if call.starts_with("dd") { &operand } else { name });
            let ran = lab.qed(args);
            assert!(!matches!(ran.code, Some(0)), "{call} {name}: {}", ran.stdout);
            let is_refused = ran.stderr.contains(expected)
                || ran.stderr.contains("in place is not supported")
                || ran.stderr.contains("writing to a qcow2 image");
            assert!(is_refused, "{call} {name}: {}", ran.stderr);
        }
        assert!(!lab.path("out").exists(), "{name}");
    }
}

#[test]
fn a_luks_header_that_cannot_be_read_is_left_out() {
    let lab = lab();
    let good = fs::read(lab.path("luks.qcow2")).expect("made above");
    let whole = lab.qed(["info", "luks.qcow2"]).succeeded().stdout;
    assert!(whole.contains("key offset: 4096"), "{whole}");
    let extension = good.windows(4).position(|bytes| bytes == [0x05, 0x37, 0xbe, 0x77]);
    let place = extension.expect("the extension that says where the header lies") + 8;
    let header = u64::from_be_bytes(good[place..place + 8].try_into().expect("eight bytes"));
    let header = usize::try_from(header).expect("a small file");
    let last = (good.len() as u64 - 100).to_be_bytes();
    for (at, bytes) in [
        (place, &u64::MAX.to_be_bytes()[..]),
        (place, &(1u64 << 40).to_be_bytes()),
        (place, &last),
        (place + 8, &0u64.to_be_bytes()),
        (header, b"SKUL"),
        (header + 6, &[0, 2]),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(lab.path("luks.qcow2"), bad).expect("room in /tmp");
        let text = lab.qed(["info", "luks.qcow2"]).succeeded().stdout;
        assert!(text.contains("    encrypt:\n        format: luks\n    corrupt"), "{text}");
    }
}

#[test]
fn snapshots_as_json_are_those_of_qemu() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qcow2 a 4M; qemu-img snapshot -c one a; qemu-img snapshot -c '\"2' a
         qemu-img info --output=json a > wanted",
    );
    let wanted = fs::read(lab.path("wanted")).expect("QEMU's answer");
    let wanted: serde_json::Value = serde_json::from_slice(&wanted).expect("JSON");
    let found = lab.qed(["snapshot", "--output=json", "a"]).succeeded().stdout;
    let found: serde_json::Value = serde_json::from_str(&found).expect(&found);
    assert_eq!(found.as_array().map(Vec::len), Some(2));
    assert_eq!(found, wanted["snapshots"]);
}
