//! What `check` and `info` say of space that nothing names, in files and on a block device.

use serde_json::Value;

use crate::lab::Lab;

/// Two MiB that a shrink keeps, with three before and between them that it does not, and one behind.
const SHRUNK: &str = "qemu-io -f qed -c 'write -P 1 60M 1M' -c 'write -P 2 0 1M' -c 'write -P 3 50M 2M' \
     -c 'write -P 4 2M 1M' -c 'write -P 5 40M 1M' disk.qed";

const MIB: u64 = 1 << 20;

/// A lab with a disk of 32 MiB that had 64.
fn lab(create: &str) -> Lab {
    let lab = Lab::new();
    let qed = env!("CARGO_BIN_EXE_qed");
    lab.shell(&format!("{create}; {SHRUNK}; {qed} resize -q -f qed --shrink disk.qed 32M"));
    lab
}

fn json(lab: &Lab, words: &str) -> Value {
    let ran = lab.qed(words.split(' '));
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{words}: {ran:?}"))
}

/// What `info` tells only of QED.
fn specific(lab: &Lab, name: &str) -> Value {
    json(lab, &format!("info --output=json {name}"))["format-specific"]["data"].take()
}

fn blocks(lab: &Lab) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(lab.path("disk.qed")).expect("the image").blocks() * 512
}

// spec-test: QED-CHK-02
#[test]
fn what_a_shrink_leaves_is_free_space_and_no_error() {
    for create in ["create -q -f qed disk.qed 64M", "create -q -f qed -o journal=on disk.qed 64M"] {
        let lab = lab(&format!("{} {create}", env!("CARGO_BIN_EXE_qed")));
        let ran = lab.qed(["check", "disk.qed"]).succeeded();
        let line = "Clusters of free space, which the next writer uses: 48\n";
        assert!(ran.stdout.contains(line), "{}", ran.stdout);
        let report = json(&lab, "check --output=json disk.qed");
        assert_eq!((&report["free-clusters"], &report["leaks"]), (&48.into(), &Value::Null));

        let len = std::fs::metadata(lab.path("disk.qed")).expect("the image").len();
        let data = specific(&lab, "disk.qed");
        assert_eq!((&data["free-space"], &data["leaked-space"]), (&(3 * MIB).into(), &Value::Null));
        assert_eq!(data["high-water-mark"], len);
        let text = lab.qed(["info", "disk.qed"]).succeeded().stdout;
        assert!(text.contains("    free space: 3 MiB (3145728 bytes)\n"), "{text}");
        assert!(text.contains(&format!(" ({len} bytes)\n")), "{text}");

        let before = std::fs::read(lab.path("disk.qed")).expect("the image");
        lab.qed(["check", "-q", "-f", "qed", "-r", "leaks", "disk.qed"]).succeeded();
        assert!(std::fs::read(lab.path("disk.qed")).expect("it") == before, "nothing to repair");
    }
}

// spec-test: QED-CHK-06
#[test]
fn leaks_of_a_classic_image_take_no_space_after_a_repair() {
    let lab = lab("qemu-img create -q -f qed disk.qed 64M");
    let data = specific(&lab, "disk.qed");
    assert_eq!((&data["leaked-space"], &data["free-space"]), (&(3 * MIB).into(), &Value::Null));
    let text = lab.qed(["info", "disk.qed"]).succeeded().stdout;
    assert!(text.contains("    leaked space: 3 MiB (3145728 bytes)\n"), "{text}");

    let before = blocks(&lab);
    let repair = ["check", "-f", "qed", "-r", "leaks", "disk.qed"];
    let ran = lab.qed(repair);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let said = "punched: 3145728 bytes of leaks, which take no space any more\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    // The file system may need a block to say where the holes are.
    assert!(before - blocks(&lab) >= 3 * MIB - (64 << 10), "{before}");
    // QEMU counts the same, and nothing is left to be done.
    lab.shell("qemu-img check -q disk.qed; test $? = 3");
    let ran = lab.qed(repair);
    assert!(ran.code == Some(3) && !ran.stderr.contains("punched"), "{ran:?}");
}

#[test]
fn a_device_shows_what_was_handed_out_and_its_capacity() {
    let lab = lab(&format!("{} create -q -f qed disk.qed 64M", env!("CARGO_BIN_EXE_qed")));
    lab.shell(&format!(
        "if [ $(id -u) != 0 ] && [ -n \"$QED_SKIPPED\" ]; then
             echo a_device_shows_its_capacity: needs root and loop devices >> $QED_SKIPPED
             exit
         fi
         head -c 16M /dev/urandom > device; stat -c %s disk.qed > len
         dd if=disk.qed of=device conv=notrunc status=none
         device=$(losetup --find --show device); qed={}
         $qed info --output=json $device > info; $qed check --output=json $device > check
         echo $? > code; losetup --detach $device",
        env!("CARGO_BIN_EXE_qed")
    ));
    let Ok(info) = std::fs::read_to_string(lab.path("info")) else { return };
    let read = |name: &str| std::fs::read_to_string(lab.path(name)).expect("written");
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let data = &info["format-specific"]["data"];
    assert_eq!(
        (&data["free-space"], &data["device-capacity"]),
        (&(3 * MIB).into(), &(16 * MIB).into())
    );
    assert_eq!(data["high-water-mark"].to_string(), read("len").trim());
    let check: Value = serde_json::from_str(&read("check")).expect("JSON");
    assert_eq!((&check["free-clusters"], read("code").trim()), (&48.into(), "0"));
}
