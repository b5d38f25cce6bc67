//! What a server does with the space of its images, and what it tells of it.

use serde_json::Value;

use super::{Served, clients, python};
use crate::devices::on_device;
use crate::lab::Lab;

fn event(served: &mut Served) -> Value {
    let line = served.line();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn a_signal_compacts_images_beside_their_clients() {
    let lab = Lab::new();
    lab.shell("yes abcdefghijklmno | head -c 128M > full.raw");
    lab.qed(["convert", "-f", "raw", "-O", "qed", "full.raw", "a.qed"]).succeeded();
    let mut served = Served::start(&lab, "--socket s --metrics ./m -f qed a.qed", 1);
    // Every second cluster of the first half, and all of the second but its end.
    let script = "
h.connect_uri(uri)
C = 65536
for c in range(0, 1024, 2): h.trim(C, c * C)
h.trim(1000 * C, 1024 * C)
h.flush()";
    python(&lab, served.uri(), script);
    served.signal("USR2");
    // Meanwhile, in what moves and elsewhere.
    let load = format!(
        "fio --name=w --ioengine=nbd --uri='{}' --rw=randwrite --bs=4k --iodepth=8 --offset=64M \
         --size=62M --io_size=8M --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=64",
        served.uri()
    );
    assert!(clients(&lab, &load).contains("err= 0"));
    let said = event(&mut served);
    assert_eq!((&said["event"], &said["export"]), (&"compacted".into(), &"".into()), "{said}");
    assert!(said["end"].as_u64() < said["end-before"].as_u64(), "{said}");
    assert!(said["moved"].as_u64() > Some(0), "{said}");

    // Nobody writes now, and trims let go of all but what is checked.
    python(&lab, served.uri(), "h.connect_uri(uri)\nh.trim(62 << 20, 64 << 20)\nh.flush()");
    served.signal("USR2");
    let said = event(&mut served);
    assert_eq!(said["held-back"], serde_json::json!({ "busy": 0, "tables": 0 }), "{said}");
    let end = said["end"].as_u64().expect("a number");
    assert!(end < 36 << 20, "{said}");
    python(
        &lab,
        served.uri(),
        "
import socket
h.connect_uri(uri)
full = open('full.raw', 'rb').read()
C = 65536
for c in range(2048):
    want = bytes(C) if c < 1024 and c % 2 == 0 or 1024 <= c < 2016 else full[c * C:c * C + C]
    if c < 1024 or c >= 2024: assert h.pread(C, c * C) == want, c
with socket.socket(socket.AF_UNIX) as s:
    s.connect('m')
    s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')
    page = s.makefile().read()
assert 'qed_image_compaction_moved_bytes{export=\"\"} ' in page, page",
    );
    served.stop();
    lab.qed(["check", "-q", "-f", "qed", "a.qed"]).succeeded();
    assert_eq!(std::fs::metadata(lab.path("a.qed")).expect("the image").len(), end);
}

#[test]
fn the_option_for_devices_is_refused_elsewhere() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "64M"]).succeeded();
    lab.shell("truncate -s 1M a.raw");
    for (call, why) in [
        ("-f qed a.qed", "'a.qed' is no QED image on a block device"),
        ("-f raw a.raw", "'a.raw' is no QED image on a block device"),
        ("--read-only -f qed a.qed", "for images that are written"),
    ] {
        let words = format!("serve --socket s --extend-below 1M {call}");
        let ran = lab.qed(words.split(' '));
        assert_eq!(ran.code, Some(1), "{call}");
        assert!(ran.stderr.contains(why), "{call}: {}", ran.stderr);
    }
    let ran = lab.qed(["serve", "--socket", "s", "--extend-below", "x", "-f", "qed", "a.qed"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
}

#[test]
fn a_cluster_that_two_entries_name_is_neither_punched_nor_used_again() {
    let lab = Lab::new();
    // Two entries that are 32 MiB apart, so that no slice of a table has both, name one cluster.
    lab.shell(
        "qemu-img create -q -f qed a.qed 64M
         qemu-io -f qed -c 'write -q -P 5 0 64k' -c 'write -q -P 6 32M 64k' a.qed
         dd if=a.qed of=a.qed bs=8 skip=49152 seek=49664 count=1 conv=notrunc status=none",
    );
    let mut served = Served::start(&lab, "--socket s --discard pass-down -f qed a.qed", 1);
    let io = |script: &str| clients(&lab, &format!("qemu-io -f raw {script} '{}'", served.uri()));
    io("-c 'discard -q 0 64k' -c 'flush'");
    let said = served.error_line();
    assert!(said.contains("no space is used again before the image is checked"), "{said}");
    assert!(said.contains("0x50000"), "it says where: {said}");
    let io = |script: &str| clients(&lab, &format!("qemu-io -f raw {script} '{}'", served.uri()));
    let said = io("-c 'write -q -P 7 1M 8M' -c 'flush' -c 'read -q -P 7 1M 8M' \
                   -c 'read -q -P 0 0 64k'");
    assert_eq!(said, "");
    served.signal("USR2");
    let said = event(&mut served);
    assert_eq!(said["event"], "compaction-failed", "{said}");
    let said = served.error_line();
    assert!(said.contains("not compacted"), "{said}");
    served.stop();
    // The other name has its data still.
    lab.shell("qemu-io -f qed -c 'read -P 5 32M 64k' a.qed | tee said; ! grep -q failed said");
}

#[test]
fn that_a_device_gets_full_is_told_once_until_it_was_grown() {
    // An answer to the signal comes behind another look at the room.
    let script = "say create -q -f qed $device 64M
        exec 3< <(exec $qed serve --socket s --extend-below 4M -f qed $device)
        server=$!; read -r uri <&3
        write() { qemu-io -f raw -c \"write -q $1 $2\" -c flush \"$uri\"; }
        told() { read -rt 60 line <&3 && echo \"${line%%,\\\"end*}\"; }
        write 0 4M; told
        write 4M 1M; kill -USR2 $server; told
        truncate -s 16M disk; losetup --set-capacity $device; kill -USR2 $server; told
        write 5M 8M; told
        kill $server; wait $server; echo exit $?";
    let test = "that_a_device_gets_full_is_told_once_until_it_was_grown";
    let Some(said) = on_device(test, script) else { return };
    let low = "{\"event\":\"space-low\",\"export\":\"\"\n";
    let looked = "{\"event\":\"compacted\",\"export\":\"\"\n";
    assert_eq!(said, format!("exit 0\n{low}{looked}{looked}{low}exit 0\n"));
}
