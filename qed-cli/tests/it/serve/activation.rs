//! Servers that a client starts for itself: on a socket that it hands over, or on one of its own. They
//! leave its standard output alone, and end when nobody needs them any more.

use super::{PYTHON, Served, clients, python, run_clients};
use crate::lab::{Lab, Ran};

const QED: &str = env!("CARGO_BIN_EXE_qed");

/// Runs a command in a session of its own, and waits until it and all that it started have ended.
const WAIT_FOR_ALL: &str = "
import os, select, subprocess, sys
r, w = os.pipe()
starter = subprocess.Popen(sys.argv[1:], stdout=w, start_new_session=True)
os.close(w)
starter.wait()
while select.select([r], [], [], 60)[0]:
    if not os.read(r, 4096): sys.exit(0)
os.killpg(starter.pid, 9)
sys.exit('the server goes on alone')
";

#[track_caller]
fn ends_with_its_starter(lab: &Lab, starter: &[&str]) {
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let mut command = std::process::Command::new(PYTHON);
    command.args(["-c", WAIT_FOR_ALL]).args(starter).current_dir(lab.path(""));
    Ran::of(&mut command).succeeded();
    assert_eq!(lab.qed(["check", "-f", "qed", "a.qed"]).succeeded().stderr, "");
    assert!(!lab.path("s").exists(), "the socket is removed");
}

#[test]
fn what_a_client_prints_is_its_own() {
    let lab = Lab::new();
    lab.shell("head -c 1M /dev/urandom >a.raw; qemu-img convert -f raw -O qed a.raw a.qed");
    let serve = format!("{QED} serve -r -f qed a.qed");
    clients(&lab, &format!("nbdcopy -- [ {serve} ] - >b.raw; cmp a.raw b.raw"));
    assert_eq!(clients(&lab, &format!("nbdinfo --size -- [ {serve} ]")), "1048576\n");
    let said = clients(&lab, &format!("nbdinfo --json -- [ {serve} ]"));
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON and nothing else");
    assert_eq!(said["exports"][0]["export-size"].as_u64(), Some(1 << 20));
}

#[test]
fn a_server_ends_when_the_client_that_handed_it_a_socket_was_killed() {
    let lab = Lab::new();
    let client = "import nbd, os, sys\nh = nbd.NBD()\n\
        h.connect_systemd_socket_activation([sys.argv[1], 'serve', '-f', 'qed', 'a.qed'])\n\
        h.pwrite(b'kept', 1 << 20)\nos.kill(os.getpid(), 9)";
    ends_with_its_starter(&lab, &[PYTHON, "-c", client, QED]);
    lab.shell("qemu-io -r -f qed -c 'read -P 0x6b 1M 1' a.qed");
}

#[test]
fn a_server_may_end_with_the_program_that_started_it() {
    let serve = format!("{QED} serve --exit-with-parent --log info --socket s -f qed a.qed 2>log");
    let scripts = [
        format!("{serve} & while kill -0 $! && [ ! -S s ]; do :; done; kill -9 $$"),
        // Before the server began.
        format!("(while kill -0 $$ 2>/dev/null; do :; done; exec {serve}) &"),
    ];
    for script in scripts {
        let lab = Lab::new();
        ends_with_its_starter(&lab, &["bash", "-c", &script]);
        let log = std::fs::read_to_string(lab.path("log")).expect("a log");
        assert!(log.contains("the program that started this one has ended"), "{log}");
    }
}

#[test]
fn a_server_for_one_use_ends_with_its_last_client() {
    let lab = Lab::new();
    lab.shell("head -c 1M /dev/urandom >a.raw; qemu-img convert -f raw -O qed a.raw a.qed");
    let mut served = Served::start(&lab, "--socket s --once -f qed a.qed", 1);
    let uri = served.uri().to_owned();
    // Who wants no disk is no reason.
    clients(&lab, &format!("nbdinfo --list '{uri}'"));
    python(
        &lab,
        &uri,
        "other = nbd.NBD()\nfor one in [h, other]: one.connect_uri(uri)\n\
         h.shutdown()\nh = nbd.NBD()\nh.connect_uri(uri)\nother.shutdown()\n\
         h.pwrite(b'kept', 0)\nh.shutdown()",
    );
    let ran = served.wait();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_ne!(run_clients(&lab, &format!("nbdinfo --size '{uri}'")).code, Some(0));
    lab.shell("qemu-io -r -f qed -c 'read -P 0x6b 0 1' a.qed");

    // As many connections as the client likes.
    let mut served = Served::start(&lab, "--socket s --once -f qed a.qed", 1);
    clients(&lab, &format!("nbdcopy --connections=4 --requests=1 a.raw '{}'", served.uri()));
    assert_eq!(served.wait().code, Some(0));
    assert_eq!(lab.qed(["check", "-f", "qed", "a.qed"]).succeeded().stderr, "");
    lab.shell("qemu-img compare -q -f raw -F qed a.raw a.qed");
}
