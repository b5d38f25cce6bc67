//! Block devices: what works on one as with `qemu-img`, and what says that it does not.

use crate::lab::Lab;

/// Runs `script` with a loop device of 8 MiB, `$device`, and random bytes in it; `say CALL` runs our
/// program and prints what it says and its exit code. None, and a record of it, without root.
pub(crate) fn on_device(test: &str, script: &str) -> Option<String> {
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
         qed={}; say() {{ $qed \"$@\" 2>&1; echo \"exit $?\"; }}
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
        (
            "create -q -f qed -o cluster_size=1M,table_size=16 $device 2M",
            "the device is too small: it has 8388608 bytes, and the metadata alone needs 17825792",
        ),
        (
            "convert -f raw -O qed -o cluster_size=1M,table_size=16 source $device",
            "the device is too small: it has 8388608 bytes, and the metadata alone needs 17825792",
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

/// A server on the image, `io COMMAND..` for `qemu-io` on its disk and on a raw file, and `both`.
const SERVING: &str = "
    mkfifo out; qemu-img create -q -f raw model 16M
    serve() {
        $qed serve -f qed --socket s $device > out & server=$!
        exec 3< out; read uri <&3
    }
    io() { qemu-io -f raw 'nbd+unix:///?socket=s' -c \"$1\" 2>&1 | sed -e /ops/d -e /wrote/d; }
    both() { io \"$1\" && qemu-io -f raw model -c \"$1\" | sed -e /ops/d -e /wrote/d; }
    same() { $1 convert -f qed -O raw $device got && cmp got model && echo same; }
";

// spec-test: QED-DEV-01, QED-DEV-02, QED-DEV-03
#[test]
fn a_device_is_filled_grown_under_its_writer_filled_on_and_loses_nothing_when_that_is_killed() {
    // QEMU reads no image whose journal waits to be replayed.
    for (options, reader) in
        [("cluster_size=64K", "qemu-img"), ("journal=on", "$qed"), ("classic=on", "qemu-img")]
    {
        let said = on_device(
            "a_device_is_filled_grown_under_its_writer_filled_on_and_loses_nothing_when_that_is_killed",
            &format!(
                "{SERVING}
                 say create -q -f qed -o {options} $device 16M
                 serve
                 for at in 0 1 2 3 4 5; do both \"write -P $((at + 1)) ${{at}}M 1M\"; done
                 both 'write -P 9 200K 3K'
                 io 'write -P 7 6M 2M'
                 both 'write -P 8 6M 256K'
                 both 'write -P 10 100K 100K'; both flush
                 truncate -s 14M disk; losetup --set-capacity $device
                 both 'write -P 11 8M 3M'; both 'write -z 1M 100K'; both 'write -P 12 6M 2M'
                 both flush
                 kill -9 $server; wait $server 2> /dev/null; exec 3<&-
                 say check -q $device; same {reader}
                 serve; both 'write -P 13 12M 1M'; kill $server; wait $server; exec 3<&-
                 say check -q $device; same qemu-img"
            ),
        );
        let Some(said) = said else { return };
        let want = "exit 0\nwrite failed: No space left on device\n\
                    exit 0\nsame\nexit 0\nsame\n";
        assert_eq!(said, want, "{options}");
    }
}

#[test]
fn a_new_qed_image_on_a_device_shows_nothing_of_what_was_there() {
    let said = on_device(
        "a_new_qed_image_on_a_device_shows_nothing_of_what_was_there",
        "qemu-io -f raw -c 'write -P 6 2M 100K' -c 'write -P 7 3145216 512' source > made
         qemu-img resize -q -f raw source 3145728
         say convert -f raw -O qed source $device
         qemu-img compare -f raw -F qed source $device; say check -q $device
         say convert -n -f raw -O qed source $device
         say dd -f raw -O qed if=source of=$device
         qemu-img compare -f raw -F qed source $device; say check -q $device
         say resize -q $device 6M; qemu-img resize -q -f raw source 6M
         qemu-img compare -f raw -F qed source $device
         say resize -q --shrink $device 2M; say resize -q $device 6M
         qemu-img resize -q -f raw --shrink source 2M; qemu-img resize -q -f raw source 6M
         qemu-img compare -f raw -F qed source $device; say check -q $device",
    );
    let Some(said) = said else { return };
    assert!(!said.contains("mismatch") && !said.contains("exit 1"), "{said}");
    assert_eq!(said.matches("Images are identical.\n").count(), 4, "{said}");
}

#[test]
fn what_is_measured_is_the_size_of_a_volume() {
    for options in ["classic=on", "cluster_size=4K,table_size=2", "journal=on"] {
        let said = on_device(
            "what_is_measured_is_the_size_of_a_volume",
            &format!(
                "qemu-io -f raw -c 'write -P 6 300K 64K' source > made
                 sizes=$($qed measure --output json -f raw -O qed -o {options} source)
                 size() {{ echo \"$sizes\" | sed -n 's/.*\"'$1'\": \\([0-9]*\\).*/\\1/p'; }}
                 volume() {{ truncate -s $1 volume; v=$(losetup --find --show volume); }}
                 volume $(size required); say convert -f raw -O qed -o {options} source $v
                 qemu-img compare -f raw -F qed source $v; losetup --detach $v
                 volume $(($(size required) - 4096))
                 $qed convert -f raw -O qed -o {options} source $v 2> err || echo too small
                 losetup --detach $v
                 volume $(size fully-allocated)
                 say create -q -f qed -o {options} $v 1M; say convert -n -S 0 -f raw -O qed source $v
                 qemu-img compare -f raw -F qed source $v; losetup --detach $v"
            ),
        );
        let Some(said) = said else { return };
        let same = "Images are identical.\n";
        let want = format!("exit 0\n{same}too small\nexit 0\nexit 0\n{same}");
        assert_eq!(said, want, "{options}");
    }
}
