//! Images in use: refused as QEMU refuses them, and read with `-U`.

use qed_io::{FileOptions, FileStorage, ImageLock, Storage};

use crate::lab::Lab;

#[test]
fn an_image_in_use_is_refused_and_unlocked_reading_is_not() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 1M && qemu-img create -q -f qed b.qed 1M");
    let guest = FileStorage::open(lab.path("a.qed"), FileOptions::READ_WRITE).expect("opened");
    guest.lock(ImageLock::WRITE).expect("free");
    let words = "lock\nIs another process using the image [a.qed]?\n";
    for call in ["info", "check", "map", "dump", "measure", "bench -c 1"] {
        let ran = lab.qed(format!("{call} a.qed").split(' '));
        assert_eq!(ran.code, Some(1), "{call}");
        assert!(ran.stderr.contains("Failed to get"), "{call}: {}", ran.stderr);
        assert!(ran.stderr.ends_with(words), "{call}: {}", ran.stderr);
        lab.qed(format!("{call} -U a.qed").split(' ')).succeeded();
    }
    for (call, code) in [
        ("resize -f qed a.qed +1M", 1),
        ("amend -f qed -o journal=on a.qed", 1),
        ("rebase -f qed -u -b b.qed -F qed a.qed", 1),
        ("check -f qed -r all a.qed", 1),
        ("create -f qed a.qed 1M", 1),
        ("convert -f qed -O qed b.qed a.qed", 1),
        ("convert -n -f qed -O qed b.qed a.qed", 1),
        ("dd -f qed -O qed if=b.qed of=a.qed", 1),
        ("convert -f qed -O raw a.qed x", 1),
        ("compare -f qed -F qed b.qed a.qed", 2),
    ] {
        let ran = lab.qed(call.split(' '));
        assert_eq!(ran.code, Some(code), "{call}");
        assert!(ran.stderr.contains("using the image [a.qed]?"), "{call}: {}", ran.stderr);
    }
    lab.qed("convert -U -f qed -O raw a.qed x".split(' ')).succeeded();
    lab.qed("compare -U -f qed -F qed b.qed a.qed".split(' ')).succeeded();
    drop(guest);
    lab.qed("resize -f qed a.qed +1M".split(' ')).succeeded();
}

#[test]
fn of_two_conversions_to_one_new_name_one_wins() {
    let lab = Lab::new();
    lab.shell("yes first | head -c 4M > a; yes second | head -c 4M > b");
    for round in 0..20 {
        let output = format!("{round}.qed");
        let convert = |input: &str| {
            lab.command(["convert", "-f", "raw", "-O", "qed", input, &output]).spawn()
        };
        let started = [convert("a"), convert("b")].map(|child| child.expect("the program starts"));
        let won = started.map(|mut child| child.wait().expect("a child").success());
        let holds = ["a", "b"].map(|input| {
            let same = lab.qed(["compare", "-q", "-f", "raw", "-F", "qed", input, &output]);
            same.code == Some(0)
        });
        // Both may win, one after the other; whoever is told so has its image there.
        assert!(holds == won || won == [true; 2] && holds != [false; 2], "{won:?} {holds:?}");
        assert_ne!(won, [false; 2], "round {round}");
    }
}
