//! Feature bits that nobody has defined or that are not built yet: refused in every subcommand, by
//! number and where there is one by name, and nothing is written. `info` alone shows the header.

use std::fs;
use std::os::unix::fs::FileExt;

use crate::lab::Lab;

/// Bits beyond the classic ones: some without a name, all that have one.
const BITS: &[(u32, Option<&str>)] = &[
    (3, None),
    (4, None),
    (7, None),
    (15, None),
    (16, None),
    (31, None),
    (32, Some("JOURNAL_ACTIVE")),
    (33, Some("SNAPSHOTS")),
    (34, Some("COMPRESSED")),
    (35, Some("ENCRYPTED")),
    (37, None),
    (48, None),
    (62, None),
    (63, None),
];

/// Those that show the header and the bit.
const SHOWN: &[&str] = &["info X", "info -U X", "info --backing-chain X"];

/// Every subcommand that opens an image, in every place where it takes one. `X` is the image.
const CALLS: &[&str] = &[
    "check X",
    "check -f qed -r all X",
    "check -f qed -r leaks X",
    "map X",
    "map -f qed --output=json X",
    "dump X",
    "dump --output=json X",
    "convert -f qed -O raw X out",
    "convert -f raw -n -O qed empty.raw X",
    "convert -f qed -O qed -B X -F qed plain.qed out",
    "convert -f qed --backing-format qed -O raw over.qed out",
    "compare -f qed X plain.qed",
    "compare -F qed plain.qed X",
    "rebase -f qed -u -b plain.qed -F qed X",
    "rebase -f qed -b X -F qed plain.qed",
    "rebase -f qed --backing-format qed -b plain.qed -F qed over.qed",
    "commit -f qed X",
    "commit -f qed --backing-format qed over.qed",
    "resize -f qed X +1M",
    "resize -f qed --backing-format qed over.qed +1M",
    "amend -f qed -o journal=on X",
    "amend -f qed -o classic=off X",
    "dd -f qed if=X of=out",
    "measure -f qed -O raw X",
    "bench -f qed -c 1 X",
    "bench -f qed -w -c 1 X",
    "create -f qed -b X -F qed out",
    "serve --socket s -f qed X",
    "serve --socket s --read-only X",
];

#[test]
fn unknown_feature_bits_are_refused_in_every_subcommand() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qed plain.qed 1M
         qemu-img create -q -f qed -u -b X -F qed over.qed 1M
         truncate -s 512 empty.raw",
    );
    let plain = fs::read(lab.path("plain.qed")).expect("the image");
    for (bit, name) in BITS {
        fs::write(lab.path("X"), &plain).expect("the image");
        let image = fs::OpenOptions::new().write(true).open(lab.path("X")).expect("the image");
        image.write_all_at(&(1_u64 << bit).to_le_bytes(), 16).expect("written");
        let before = fs::read(lab.path("X")).expect("the image");
        let name = name.map_or_else(String::new, |name| format!(" ({name})"));
        let words = format!("unsupported QED feature bit {bit}{name}");
        // A dump shows what it knows to lie there, whether or not it can be used.
        let is_shown = |call: &str| *bit == 32 && call.starts_with("dump");
        for call in CALLS.iter().filter(|call| !is_shown(call)) {
            let ran = lab.qed(call.split(' '));
            let code = if call.starts_with("compare") { 2 } else { 1 };
            assert_eq!(ran.code, Some(code), "bit {bit}: {call}: {}", ran.stdout);
            assert!(ran.stderr.contains(&words), "bit {bit}: {call}: {}", ran.stderr);
            assert!(!lab.path("out").exists(), "bit {bit}: {call}: an output was left");
        }
        for call in SHOWN {
            let shown = lab.qed(call.split(' ')).succeeded().stdout;
            let words = format!("    unsupported feature: bit {bit}{name}\n");
            assert!(shown.contains(&words), "bit {bit}: {call}: {shown}");
        }
        assert_eq!(fs::read(lab.path("X")).expect("the image"), before, "bit {bit}: written to");
    }
    assert_eq!(fs::read(lab.path("plain.qed")).expect("the image"), plain, "written to");
}

#[test]
fn unknown_compatible_and_autoclear_bits_are_no_reason_to_refuse() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed X 1M");
    let image = fs::OpenOptions::new().write(true).open(lab.path("X")).expect("the image");
    image.write_all_at(&[0x80; 16], 24).expect("written");
    for call in ["info X", "check X", "map X", "dump X", "convert -f qed -O raw X out"] {
        lab.qed(call.split(' ')).succeeded();
    }
}
