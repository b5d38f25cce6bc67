//! Programs that others wrote read and write through the server, and find what they wrote.

use super::{Served, clients, python};
use crate::lab::Lab;

/// A QED image of 64 MiB over a backing file of 1 MiB, and a server of it.
fn overlay(lab: &Lab) -> Served {
    lab.shell(
        "yes base | head -c 1M > base.raw
         qemu-img create -q -f qed -b base.raw -F raw a.qed 64M",
    );
    Served::start(lab, "--socket s -f qed a.qed", 1)
}

/// Ends the server and has both checkers look at the image.
#[track_caller]
fn end_clean(lab: &Lab, served: Served) {
    served.stop();
    lab.qed(["check", "-f", "qed", "a.qed"]).succeeded();
    lab.shell("qemu-img check -q -f qed a.qed");
}

/// As [`end_clean`], for clients that gave up space: to both checkers it is a leak where nothing in the
/// image says that a writer will use it again.
#[track_caller]
fn end_sound(lab: &Lab, served: Served) {
    served.stop();
    let code = lab.qed(["check", "-q", "-f", "qed", "a.qed"]).code;
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
    lab.shell("qemu-img check -q -f qed a.qed || [ $? = 3 ]");
}

#[test]
fn nbdinfo_is_told_what_the_server_can_do() {
    let lab = Lab::new();
    let served = overlay(&lab);
    let said = clients(&lab, &format!("nbdinfo --json '{}'", served.uri()));
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let export = &said["exports"][0];
    assert_eq!(said["structured"], true);
    for what in [
        "can_cache",
        "can_df",
        "can_fast_zero",
        "can_flush",
        "can_fua",
        "can_multi_conn",
        "can_trim",
        "can_zero",
    ] {
        assert_eq!(export[what], true, "{what}");
    }
    assert_eq!(
        (&export["is_read_only"], &export["export-size"]),
        (&false.into(), &(64 << 20).into())
    );
    let sizes = ["block_size_minimum", "block_size_preferred", "block_size_maximum"];
    assert_eq!(sizes.map(|size| export[size].as_u64()), [1, 65_536, 32 << 20].map(Some));
    let depth = clients(&lab, &format!("nbdinfo --map=qemu:allocation-depth '{}'", served.uri()));
    let lines: Vec<String> =
        depth.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["0 1048576 2 backing depth 2", "1048576 66060288 0 absent"]);
    end_clean(&lab, served);
}

#[test]
fn a_preallocated_image_is_told_of_as_qemu_nbd_tells() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qcow2 -o preallocation=metadata p.qcow2 1G
         qemu-io -c 'write -q -P 5 300M 3M' p.qcow2",
    );
    let served = Served::start(&lab, "--socket s -r -f qcow2 p.qcow2", 1);
    let ours = clients(&lab, &format!("nbdinfo --map '{}'", served.uri()));
    served.stop();
    let qemu = clients(
        &lab,
        "qemu-nbd -r -f qcow2 --fork -k \"$PWD/q\" p.qcow2 &&
         nbdinfo --map \"nbd+unix:///?socket=$PWD/q\"",
    );
    assert_eq!(ours, qemu);
    assert!(ours.contains("zero"), "{ours}");
}

#[test]
fn the_largest_clusters_do_not_make_a_client_forget_what_it_may_send() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "-o", "cluster_size=64M", "a.qed", "1G"]).succeeded();
    let served = Served::start(&lab, "--socket s -f qed a.qed", 1);
    let said = clients(&lab, &format!("nbdinfo --json '{}'", served.uri()));
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let sizes = ["block_size_minimum", "block_size_preferred", "block_size_maximum"];
    let sizes = sizes.map(|size| said["exports"][0][size].as_u64());
    assert_eq!(sizes, [1, 32 << 20, 32 << 20].map(Some));
    served.stop();
}

#[test]
fn nbdcopy_and_qemu_img_copy_in_and_out() {
    let lab = Lab::new();
    let served = overlay(&lab);
    let uri = served.uri();
    clients(
        &lab,
        &format!(
            "nbdcopy '{uri}' before.raw && cmp -n 1048576 before.raw base.raw
             (cat base.raw; head -c 20M /dev/urandom; head -c 43M /dev/zero) > disk.raw
             nbdcopy disk.raw '{uri}' && nbdcopy '{uri}' after.raw && cmp disk.raw after.raw
             qemu-img compare -q -f raw -F raw disk.raw '{uri}'
             qemu-img convert -n -f raw -O raw before.raw '{uri}'
             qemu-img convert -f raw -O qcow2 '{uri}' out.qcow2
             qemu-img compare -q -f raw -F qcow2 before.raw out.qcow2"
        ),
    );
    end_sound(&lab, served);
    lab.shell("qemu-img compare -q -f raw -F qed before.raw a.qed");
}

#[test]
fn qemu_io_finds_its_patterns() {
    let lab = Lab::new();
    let served = overlay(&lab);
    let script = "-c 'read -P 0 2M 1M' -c 'write -P 1 70k 200k' -c 'write -f -P 2 10M 4k' \
        -c 'write -z 64k 64k' -c 'write -z -u 8M 8M' -c 'write -z -u -n 0 64k' -c 'discard 20M 1M' \
        -c 'flush' -c 'aio_write -P 3 30M 1M' -c 'aio_write -P 4 40M 1M' -c 'aio_flush' \
        -c 'read -P 3 30M 1M' -c 'read -P 4 40M 1M' -c 'read -P 1 128k 100k' -c 'read -P 0 0 128k' \
        -c 'read -P 0 10M 4k'";
    let said = clients(&lab, &format!("qemu-io -f raw {script} '{}'", served.uri()));
    assert!(!said.contains("verification failed") && !said.contains("failed:"), "{said}");
    end_sound(&lab, served);
}

#[test]
fn what_is_trimmed_is_used_again_or_kept() {
    for (mode, reuses, gives_back) in
        [("reuse", true, false), ("unmap", true, true), ("ignore", false, false)]
    {
        let lab = Lab::new();
        lab.qed(["create", "-q", "-f", "qed", "a.qed", "64M"]).succeeded();
        let args = format!("--socket s --metrics ./m --discard {mode} -f qed a.qed");
        let served = Served::start(&lab, &args, 1);
        let script = format!(
            r#"
import os, re, socket
reuses, gives_back = {}
def free():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("m")
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        found = re.search(r'qed_image_free_bytes\{{export=""\}} (\d+)', s.makefile().read())
        return int(found.group(1)) if found else 0
h.connect_uri(uri)
M = 1 << 20
h.pwrite(b"a" * 8 * M, 0)
# A part of a cluster at either end stays, and of a range of zeros.
h.trim(6 * M + 4, M - 2, nbd.CMD_FLAG_FUA)
h.zero(131073, 7 * M + 65535)
assert h.pread(M, 0) + h.pread(65534, 7 * M) == b"a" * (M + 65534)
assert h.pread(7 * M - M, M) == (b"\0" if reuses else b"a") * 6 * M
assert h.pread(131073, 7 * M + 65535) == b"\0" * 131073
assert h.pread(8 * M - 196608 - 7 * M, 7 * M + 196608) == b"a" * (M - 196608)
# A write that would lengthen the file has the image look for free space.
h.pwrite(b"b", 40 * M)
h.flush()
while reuses and free() < 6 * M: pass
while gives_back and os.stat("a.qed").st_blocks * 512 > 4 * M: pass
for at in range(10, 34, 6):
    h.pwrite(b"c" * 6 * M, at * M)
    assert h.pread(6 * M, at * M) == b"c" * 6 * M and h.pread(M, 0) == b"a" * M
    h.trim(6 * M, at * M)
    h.flush()
    while gives_back and os.stat("a.qed").st_blocks * 512 > 4 * M: pass
"#,
            match (reuses, gives_back) {
                (true, true) => "True, True",
                (true, false) => "True, False",
                (false, _) => "False, False",
            }
        );
        python(&lab, served.uri(), &script);
        end_sound(&lab, served);
        let len = std::fs::metadata(lab.path("a.qed")).expect("the image").len() >> 20;
        // Five times 6 MiB are written behind the first 2, and used again once at least.
        assert_eq!(len < 26, reuses, "{mode}: {len} MiB");
    }
}

#[test]
fn each_request_and_each_refusal_as_libnbd_sees_them() {
    let lab = Lab::new();
    let served = overlay(&lab);
    python(
        &lab,
        served.uri(),
        r#"
h.add_meta_context("base:allocation")
h.add_meta_context("qemu:allocation-depth")
h.set_strict_mode(0)
h.connect_uri(uri)
size = h.get_size()
assert h.get_structured_replies_negotiated() and h.can_multi_conn()

def fails(number, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errnum == number, (error, number)
    else:
        raise Exception("%s%s was served" % (call, args))

h.pwrite(b"a" * 70000, 5 << 20, nbd.CMD_FLAG_FUA)
assert h.pread(70002, (5 << 20) - 1) == b"\0" + b"a" * 70000 + b"\0"
h.zero(65536, 5 << 20, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.zero(1 << 20, 6 << 20, nbd.CMD_FLAG_FAST_ZERO)
h.zero(1 << 20, 8 << 20, nbd.CMD_FLAG_NO_HOLE)
fails(errno.EOPNOTSUPP, h.zero, 100, 100, nbd.CMD_FLAG_FAST_ZERO)
fails(errno.EOPNOTSUPP, h.zero, 65536, 8 << 20, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
h.trim(size - (16 << 20), 16 << 20)
h.cache(1 << 20, 0)
h.flush()
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.ENOSPC, h.pwrite, b"x" * 512, size - 511)
fails(errno.EINVAL, h.trim, 1, size)
fails(errno.EINVAL, h.block_status, 1, size, lambda *a: 0)
h.set_pread_initialize(False)
fails(errno.EINVAL, h.pread, (32 << 20) + 1, 0)
assert len(h.pread(32 << 20, 0)) == 32 << 20

status = {}
def extents(context, offset, entries, error):
    status[context] = list(zip(entries[::2], entries[1::2]))
h.block_status(10 << 20, 0, extents)
M = 1 << 20
assert status["qemu:allocation-depth"] == [
    (M, 2), (4 * M, 0), (131072, 1), (3 * M - 131072, 0), (M, 1), (M, 0)], status
# Whether allocated zeros are told as such is the file system's: it may not know them.
kinds = []
for length, flags in status["base:allocation"]:
    assert flags in (0, nbd.STATE_ZERO, nbd.STATE_HOLE | nbd.STATE_ZERO), status
    hole = flags & nbd.STATE_HOLE
    if kinds and kinds[-1][1] == hole: length += kinds.pop()[0]
    kinds.append((length, hole))
assert kinds == [(M, 0), (4 * M, 1), (131072, 0), (3 * M - 131072, 1), (M, 0), (M, 1)], status
h.shutdown()
"#,
    );
    end_sound(&lab, served);
}

#[test]
fn two_connections_write_into_the_same_new_clusters() {
    let lab = Lab::new();
    let served = overlay(&lab);
    python(
        &lab,
        served.uri(),
        r#"
two = [h, nbd.NBD()]
for one in two: one.connect_uri(uri)
# Every second 4 KiB of each cluster by either connection, 16 requests of each at a time.
for start in range(0, 1024, 32):
    waiting = []
    for index in range(start, start + 32):
        one = two[index % 2]
        data = nbd.Buffer.from_bytearray(bytearray([index % 251 + 1]) * 4096)
        waiting.append((one, one.aio_pwrite(data, index * 4096)))
    for one, cookie in waiting:
        while not one.aio_command_completed(cookie): one.poll(-1)
# A flush of one makes the writes of both durable, and either reads all.
two[0].flush()
for one in two:
    disk = one.pread(4 << 20, 0)
    for index in range(1024):
        assert disk[index * 4096:][:4096] == bytes([index % 251 + 1]) * 4096, index
    one.shutdown()
"#,
    );
    // What was flushed is there without the server's help.
    served.signal("KILL");
    drop(served);
    let recovered = lab.qed(["check", "-f", "qed", "-r", "all", "a.qed"]);
    assert!(recovered.code == Some(0) || recovered.code == Some(3), "{recovered:?}");
    lab.shell("qemu-img convert -f qed -O raw a.qed a.raw");
    let disk = std::fs::read(lab.path("a.raw")).expect("the disk");
    for (index, sector) in disk[..4 << 20].chunks(4096).enumerate() {
        assert!(sector.iter().all(|byte| usize::from(*byte) == index % 251 + 1), "{index}");
    }
}

#[test]
fn fio_verifies_under_concurrent_load() {
    let lab = Lab::new();
    let served = overlay(&lab);
    // Two jobs, each with its own half and its own connection, many requests in flight.
    let said = clients(
        &lab,
        &format!(
            "fio --name=w --ioengine=nbd --uri='{}' --rw=randwrite --bsrange=512-64k --iodepth=32 \
             --size=24M --offset_increment=32M --numjobs=2 --verify=crc32c --verify_fatal=1 \
             --do_verify=1 --randrepeat=1 --fsync=64 --group_reporting",
            served.uri()
        ),
    );
    assert!(said.contains("err= 0"), "{said}");
    end_clean(&lab, served);
}

#[test]
fn what_a_client_writes_in_order_lies_in_order_and_leaks_nothing() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 256M");
    let served = Served::start(&lab, "--socket s -f qed a.qed", 1);
    // More in flight than threads serve them, so that requests overtake each other.
    clients(
        &lab,
        &format!(
            "fio --name=w --ioengine=nbd --uri='{}' --rw=write --bs=64k --iodepth=32 --size=256M",
            served.uri()
        ),
    );
    end_clean(&lab, served);
    let map = lab.qed(["map", "--output=json", "-f", "qed", "a.qed"]).succeeded().stdout;
    let map: serde_json::Value = serde_json::from_str(&map).expect("JSON");
    let extents = map.as_array().expect("a list").len();
    // A few requests pass before it is known that several come at a time.
    assert!(extents < 4096 / 4, "{extents} pieces of 4096 clusters");
}

#[test]
fn several_images_have_their_names_and_formats() {
    let lab = Lab::new();
    lab.shell(
        "head -c 1M /dev/urandom > x.raw; qemu-img convert -f raw -O qcow2 x.raw y.qcow2
         qemu-img convert -f raw -O qed x.raw z.qed",
    );
    let served = Served::start(&lab, "--socket s --read-only x.raw y.qcow2 z.qed", 3);
    assert!(served.uris[1].contains("/y.qcow2?socket="), "{:?}", served.uris);
    for uri in &served.uris {
        // A raw disk that is recognised by nothing is raw only if that is said; here it is.
        clients(&lab, &format!("nbdcopy '{uri}' - | cmp - x.raw"));
    }
    let listed = clients(&lab, &format!("nbdinfo --list '{}'", served.uri()));
    for name in ["x.raw", "y.qcow2", "z.qed"] {
        assert!(listed.contains(&format!("export=\"{name}\":")), "{listed}");
    }
    python(
        &lab,
        &served.uris[2],
        "h.set_strict_mode(0)\nh.connect_uri(uri)\nassert h.is_read_only()\n\
         try:\n  h.pwrite(b'x', 0)\nexcept nbd.Error as e:\n  assert e.errnum == errno.EPERM\n\
         else:\n  raise Exception('written')",
    );
    served.stop();

    let named = "--socket s --name one --name two -f raw x.raw base";
    lab.shell("truncate -s 1M base");
    let served = Served::start(&lab, named, 2);
    clients(&lab, &format!("nbdcopy x.raw '{}'", served.uris[1]));
    served.stop();
    lab.shell("cmp x.raw base");
}
