//! How a server ends: in order by a signal, whatever its clients do.

use super::{Served, clients, python};
use crate::lab::Lab;

#[test]
fn a_signal_flushes_and_closes_the_image() {
    for name in ["INT", "TERM"] {
        let lab = Lab::new();
        lab.shell("qemu-img create -q -f qed a.qed 64M");
        let mut served = Served::start(&lab, "--socket s -f qed a.qed", 1);
        // Written and not flushed; one client stays connected and is silent.
        python(
            &lab,
            served.uri(),
            &format!(
                "import os, signal\nh.connect_uri(uri)\nh.pwrite(b'kept', 1 << 20)\n\
                 os.kill({}, signal.SIG{name})\n\
                 try:\n  while True: h.poll(-1); assert not h.aio_is_dead()\n\
                 except (nbd.Error, AssertionError): pass",
                served.id()
            ),
        );
        let ran = served.wait();
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{name}");
        assert!(!lab.path("s").exists(), "the socket is removed");
        assert_eq!(lab.qed(["check", "-f", "qed", "a.qed"]).succeeded().stderr, "");
        lab.shell("qemu-io -r -f qed -c 'read -P 0x6b 1M 1' a.qed");
    }
}

#[test]
fn two_signals_at_once_end_it_in_order_and_a_later_one_at_once() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let mut served = Served::start(&lab, "--socket s -f qed a.qed", 1);
    python(
        &lab,
        served.uri(),
        &format!(
            "import os\nh.connect_uri(uri)\nh.pwrite(b'kept', 1 << 20)\n\
             os.kill({id}, 15)\nos.kill({id}, 2)",
            id = served.id()
        ),
    );
    assert_eq!(served.wait().code, Some(0));
    lab.shell("qemu-io -r -f qed -c 'read -P 0x6b 1M 1' a.qed");

    // A client that takes no replies, and more time than it is given.
    let mut served = Served::start(&lab, "--socket s --drain 600 -f qed a.qed", 1);
    let script = "import os, signal, time\nh.connect_uri(uri)\n\
        for n in range(8): h.aio_pread(nbd.Buffer(32 << 20), 0)\n";
    let id = served.id();
    let kill = format!("os.kill({id}, 15)\ntime.sleep(2)\nos.kill({id}, 15)\n");
    python(&lab, served.uri(), &format!("{script}{kill}time.sleep(1)"));
    assert_eq!(served.wait().code, Some(143));
}

#[test]
fn a_client_that_is_in_the_handshake_does_not_hold_it_up() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let served = Served::start(&lab, "--socket s -f qed a.qed", 1);
    let silent = std::os::unix::net::UnixStream::connect(lab.path("s")).expect("connected");
    served.stop();
    drop(silent);
}

#[test]
fn what_cannot_be_served_is_said() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qed a.qed 64M; qemu-img create -q -f qcow2 a.qcow2 64M
         truncate -s 1M a.raw",
    );
    let table = [
        ("serve", "Expecting at least one image"),
        ("serve -f qed a.qed", "Expecting --socket, --listen"),
        ("serve --socket s a.raw", "state that it is raw (-f raw)"),
        ("serve --socket s -f qcow2 a.qcow2", "qcow2"),
        ("serve --socket s -f qed nope.qed", "No such file"),
        ("serve --socket s -f qed -U a.qed", "--read-only"),
        ("serve --socket a.qcow2 -f qed a.qed", "is not a socket"),
        ("serve --socket no/s -f qed a.qed", "No such file"),
        ("serve --listen 0.0.0.0:0 -f qed a.qed", "--unencrypted"),
        ("serve --listen nonsense -f qed a.qed", "nonsense"),
        ("serve --socket s --name a -f qed a.qed a.qed", "--name once for each"),
        ("serve --socket s --name a --name a --read-only a.qed a.qcow2", "two exports"),
        ("serve --socket s --tls-cert a -f qed a.qed", "--tls-key"),
        ("serve --socket s --tls-cert a --tls-key b -f qed a.qed", "a"),
        ("serve --socket s --log loud -f qed a.qed", "log level"),
        ("serve --socket s --drain x -f qed a.qed", "drain time"),
        ("serve --socket s --max-connections 0 -f qed a.qed", "connection count"),
    ];
    for (call, words) in table {
        let ran = lab.qed(call.split(' '));
        assert_eq!(ran.code, Some(1), "{call}: {ran:?}");
        assert!(ran.stderr.contains(words), "{call}: {}", ran.stderr);
        assert!(!lab.path("s").exists(), "{call}: a socket was left");
    }
    assert_eq!(lab.qed(["check", "-f", "qed", "a.qed"]).succeeded().stderr, "");
}

#[test]
fn what_was_written_through_is_there_after_a_crash() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let mut served = Served::start(&lab, "--socket s -t writethrough -f qed a.qed", 1);
    python(&lab, served.uri(), "h.connect_uri(uri)\nh.pwrite(b'kept', 1 << 20)");
    served.signal("KILL");
    served.wait();
    lab.shell("qemu-io -r -f qed -c 'read -P 0x6b 1M 1' a.qed");
}

#[test]
fn a_damaged_cluster_that_is_read_over_and_over_is_told_once() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qed a.qed 64M && qemu-io -f qed -c 'write 0 64k' a.qed >/dev/null
         # The first entry of the first L2 table names 1 TiB.
         printf '\\0\\0\\0\\0\\0\\1\\0\\0' | dd of=a.qed bs=1 seek=393216 conv=notrunc status=none",
    );
    let mut served = Served::start(&lab, "--socket s --read-only -f qed a.qed", 1);
    let script = "h.connect_uri(uri)
for n in range(100):
    try: h.pread(512, 0)
    except nbd.Error as error: assert error.errno == 'EIO'
    else: assert False";
    python(&lab, served.uri(), script);
    served.signal("TERM");
    let ran = served.wait();
    assert_eq!((ran.code, ran.stderr.matches("corrupt image").count()), (Some(0), 1), "{ran:?}");
}

#[test]
fn the_counters_tell_what_was_done() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let served = Served::start(&lab, "--socket s --metrics ./m -f qed a.qed", 1);
    let script = "-c 'write 0 64k' -c 'read 0 4k' -c 'discard 0 64k'";
    clients(&lab, &format!("qemu-io -f raw {script} '{}'", served.uri()));
    let read = "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('m')\n\
        s.sendall(b'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n\
        page = s.makefile().read()\n\
        assert page.startswith('HTTP/1.0 200 OK') and page.endswith('# EOF\\n'), page\n\
        for line in ['qed_nbd_requests_total{kind=\"write\"} 1', 'qed_nbd_written_bytes_total 65536',\n\
            'qed_nbd_connections_total 1', 'qed_nbd_refused_total 0',\n\
            'qed_nbd_trimmed_bytes_total 65536', 'qed_image_end_bytes{export=\"\"} ']:\n\
        \u{20} assert line in page, page\n\
        assert 'qed_image_capacity_bytes{' not in page, page";
    python(&lab, served.uri(), read);
    served.stop();
}
