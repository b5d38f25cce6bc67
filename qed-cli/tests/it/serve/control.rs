//! The control socket of the program, beside real clients.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::{Served, clients, python};
use crate::lab::Lab;

/// Asks a service, and reads its answer.
#[track_caller]
pub(super) fn ask(lab: &Lab, socket: &str, request: &Value) -> Value {
    let mut stream = UnixStream::connect(lab.path(socket)).expect("it listens");
    stream.write_all(format!("{request}\n").as_bytes()).expect("sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn a_served_image_is_checked_resized_and_flushed_beside_its_clients() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "64M"]).succeeded();
    let mut served = Served::start(&lab, "--socket s --control c -f qed a.qed", 1);
    let io = |script: &str| clients(&lab, &format!("qemu-io -f raw {script} '{}'", served.uri()));
    io("-c 'write -q -P 5 0 1M' -c 'discard -q 0 512k' -c 'flush'");
    let checked = ask(&lab, "c", &json!({"cmd": "check"}));
    assert_eq!((&checked["ok"], &checked["findings"]), (&json!(true), &json!([])), "{checked}");
    assert!(checked["space"]["free"].as_u64() >= Some(512 << 10), "{checked}");
    let grown = ask(&lab, "c", &json!({"cmd": "resize", "size": 128 << 20}));
    assert_eq!(grown, json!({"ok": true, "size": 128 << 20}));
    // Who connects now has the larger disk.
    python(&lab, served.uri(), "h.connect_uri(uri)\nassert h.get_size() == 128 << 20");
    let io = |script: &str| clients(&lab, &format!("qemu-io -f raw {script} '{}'", served.uri()));
    assert_eq!(io("-c 'write -q -P 6 127M 1M' -c 'read -q -P 5 512k 512k'"), "");
    assert_eq!(ask(&lab, "c", &json!({"cmd": "flush"})), json!({"ok": true}));
    let status = ask(&lab, "c", &json!({"cmd": "status"}));
    assert_eq!(status["servers"][0]["protocol"], "nbd");
    assert!(status["servers"][0]["requests"].as_u64() >= Some(5), "{status}");
    assert_eq!(status["exports"][0]["size"], 128 << 20);
    // What was flushed is there after a crash.
    served.signal("KILL");
    served.wait();
    lab.shell("qemu-io -r -f qed -c 'read -P 6 127M 1M' a.qed | tee said; ! grep -q failed said");
}

#[test]
fn a_check_tells_what_is_wrong_and_the_image_is_served_on() {
    let lab = Lab::new();
    // Two entries that are 32 MiB apart, so that no slice of a table has both, name one cluster.
    lab.shell(
        "qemu-img create -q -f qed a.qed 64M
         qemu-io -f qed -c 'write -q -P 5 0 64k' -c 'write -q -P 6 32M 64k' a.qed
         dd if=a.qed of=a.qed bs=8 skip=49152 seek=49664 count=1 conv=notrunc status=none",
    );
    let mut served = Served::start(&lab, "--socket s --control c -f qed a.qed", 1);
    for _ in 0..2 {
        let checked = ask(&lab, "c", &json!({"cmd": "check"}));
        assert_eq!(checked["ok"], true, "{checked}");
        let findings = checked["findings"].as_array().expect("a list");
        assert_eq!(findings.len(), 1, "{checked}");
        assert!(findings[0].as_str().is_some_and(|text| text.contains("0x50000")), "{checked}");
    }
    let io = |script: &str| clients(&lab, &format!("qemu-io -f raw {script} '{}'", served.uri()));
    assert_eq!(io("-c 'write -q -P 7 1M 1M' -c 'flush' -c 'read -q -P 7 1M 1M'"), "");
    // Whether it was logged as well depends on the second in which it ends.
    served.signal("TERM");
    assert_eq!(served.wait().code, Some(0));
}

#[test]
fn a_service_ends_when_it_is_asked_to() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "1M"]).succeeded();
    let mut served = Served::start(&lab, "--socket s --control c -f qed a.qed", 1);
    assert_eq!(ask(&lab, "c", &json!({"cmd": "quit"})), json!({"ok": true}));
    served.wait().succeeded();
    assert!(!lab.path("s").exists() && !lab.path("c").exists(), "the sockets are gone");
    let inactive = lab.qed(["serve", "--socket", "s", "--control", ".", "-f", "qed", "a.qed"]);
    assert!(inactive.stderr.contains("'.' exists and is not a socket"), "{inactive:?}");
}
