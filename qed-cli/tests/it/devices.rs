//! Block devices: what works on one as with `qemu-img`, and what says that it does not.

use crate::lab::Lab;

/// Runs `script` with a loop device of 8 MiB, `$device`, and random bytes in it; `say CALL` runs our
/// program and prints what it says and its exit code. None, and a record of it, without root.
fn on_device(test: &str, script: &str) -> Option<String> {
    let lab = Lab::new();
    lab.shell(&format!(
        "if [ $(id -u) != 0 ] && [ -n \"$QED_SKIPPED\" ]; then
             echo {test}: needs root and loop devices >> $QED_SKIPPED
             exit
         fi
         head -c 8M /dev/urandom > disk; cp disk before
         qemu-img create -q -f raw source 1M
         qemu-io -f raw -c 'write -P 5 0 1M' source > made
         device=$(losetup --find --show disk)
         say() {{ {} \"$@\" 2>&1; echo \"exit $?\"; }}
         {{ {script}
         }} > said; sync $device; losetup --detach $device",
        env!("CARGO_BIN_EXE_qed")
    ));
    std::fs::read_to_string(lab.path("said")).ok()
}

#[test]
fn a_raw_image_is_created_on_a_device_that_is_large_enough() {
    let said = on_device(
        "a_raw_image_is_created_on_a_device_that_is_large_enough",
        "say create -q -f raw $device 2M; cmp -n 512 $device /dev/zero && cmp -i 512 $device before
         say create -q -f raw $device 8M
         cp before disk; say create -q -f raw $device 8193K; cmp $device before && echo same",
    );
    let Some(said) = said else { return };
    let refused = "Cannot grow device files: the device has 8388608 bytes\nexit 1\nsame\n";
    assert!(said.starts_with("exit 0\nexit 0\nqed: /dev/"), "{said}");
    assert!(said.ends_with(refused), "{said}");
}

#[test]
fn what_does_not_work_on_a_device_is_said_and_changes_nothing() {
    for (call, expected) in [
        ("create -q -f qed $device 2M", "a new qed image on a block device is not supported yet"),
        (
            "convert -f raw -O qed source $device",
            "a new qed image on a block device is not supported yet",
        ),
        (
            "dd -f raw -O qed if=source of=$device",
            "a new qed image on a block device is not supported yet",
        ),
        ("resize -f raw $device 9M", "Cannot resize device files"),
        ("resize -f raw --shrink $device 2M", "Cannot resize device files"),
    ] {
        let script = format!("say {call}; cmp $device before && echo same");
        let test = "what_does_not_work_on_a_device_is_said_and_changes_nothing";
        let Some(said) = on_device(test, &script) else { return };
        assert!(said.ends_with(&format!("{expected}\nexit 1\nsame\n")), "{call}: {said}");
        assert!(!said.contains("incomplete"), "{call}: {said}");
    }
}

#[test]
fn a_disk_is_written_to_a_device_and_read_from_it() {
    let said = on_device(
        "a_disk_is_written_to_a_device_and_read_from_it",
        "say convert -f raw -O raw source $device; cmp -n 1048576 source $device
         say convert -f raw -O qed $device out.qed; say compare -q -f qed -F raw out.qed $device
         say resize -q -f raw $device 8M",
    );
    let Some(said) = said else { return };
    assert_eq!(said, "exit 0\n".repeat(4));
}
