//! One image over several protocols in one process, and what is refused of them.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::control::ask;
use super::{Served, clients};
use crate::lab::{Lab, Ran};

#[test]
fn an_image_is_served_over_nbd_and_to_a_virtual_machine() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "16M"]).succeeded();
    let args = "--socket s --vhost-socket v --control c --serial x --queues 2 -f qed a.qed";
    let served = Served::start(&lab, args, 2);
    assert_eq!(served.uris[1], "v", "{:?}", served.uris);
    let mode = std::fs::metadata(lab.path("v")).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let write = format!("qemu-io -f raw -c 'write -q -P 5 0 1M' -c flush '{}'", served.uri());
    assert_eq!(clients(&lab, &write), "");
    let status = ask(&lab, "c", &json!({"cmd": "status"}));
    let servers = status["servers"].as_array().expect("a list").iter();
    let protocols: Vec<_> = servers.map(|server| server["protocol"].clone()).collect();
    assert_eq!(protocols, ["nbd", "vhost"]);
    served.stop();
    assert!(!lab.path("v").exists() && !lab.path("s").exists(), "the sockets are gone");
    lab.shell("qemu-io -r -f qed -c 'read -P 5 0 1M' a.qed | tee said; ! grep -q failed said");
}

#[test]
fn a_virtual_machine_alone_is_served_until_a_signal() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "16M"]).succeeded();
    let mut vhost = lab.command(["vhost", "--socket", "v", "--control", "c", "-f", "qed", "a.qed"]);
    let served = Served::of(&mut vhost, 1);
    assert_eq!(served.uris, ["v"]);
    let status = ask(&lab, "c", &json!({"cmd": "status"}));
    assert_eq!(status["servers"][0]["protocol"], "vhost");
    let second = lab.qed(["vhost", "--socket", "w", "-f", "qed", "a.qed"]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("lock"), "{second:?}");
    served.stop();
    assert!(!lab.path("v").exists(), "the socket is gone");
}

#[test]
fn options_of_a_protocol_that_is_not_served_are_refused() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "1M"]).succeeded();
    let table = [
        ("serve --vhost-socket v --once -f qed a.qed", "are for NBD"),
        ("serve --mount . --threads 2 -f qed a.qed", "are for NBD"),
        ("serve --socket s --queues 2 -f qed a.qed", "are for --vhost-socket"),
        ("serve --socket s --allow-other -f qed a.qed", "are for --mount"),
        ("serve --vhost-socket v -f qed a.qed b.qed", "are for one image"),
        ("vhost -f qed a.qed", "Expecting --socket"),
        ("vhost --socket v", "Expecting one image file name"),
        ("vhost --socket v --queues 0 -f qed a.qed", "queue count"),
        ("vhost --socket v --queue-size 100 -f qed a.qed", "power of two"),
        ("vhost --socket v --serial 123456789012345678901 -f qed a.qed", "at most 20 bytes"),
    ];
    for (line, rule) in table {
        let ran = lab.qed(line.split(' '));
        assert_eq!(ran.code, Some(1), "{line}");
        assert!(ran.stderr.contains(rule), "{line}: {}", ran.stderr);
    }
    assert!(!lab.path("v").exists() && !lab.path("s").exists());
}

#[test]
fn an_image_that_is_not_served_after_all_is_closed() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "1M"]).succeeded();
    for line in [
        "serve --socket s --vhost-socket missing/v -f qed a.qed",
        "serve --socket s --control missing/c -f qed a.qed",
        "vhost --socket missing/v -f qed a.qed",
    ] {
        let ran = lab.qed(line.split(' '));
        assert!(ran.code == Some(1) && ran.stderr.contains("missing"), "{line}: {ran:?}");
        // One that was left open is not opened where the log of its pending writes is not found.
        let mut resize = lab.command(["resize", "-q", "-f", "qed", "a.qed", "+512"]);
        Ran::of(resize.env("QED_RUNTIME_DIR", lab.path("nowhere"))).succeeded();
    }
}
