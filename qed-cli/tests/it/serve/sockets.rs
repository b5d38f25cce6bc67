//! Sockets: their rights, those that a dead server left, and those that systemd hands over.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use super::{PYTHON, Served, clients};
use crate::lab::Lab;

/// What systemd does: listens, then runs a program that has the socket as descriptor 3.
const HAND_OVER: &str = "
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind('s')
s.listen()
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ['LISTEN_FDS'] = '1'
os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn a_socket_is_for_its_owner_and_a_stale_one_is_replaced() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 64M; qemu-img create -q -f qed b.qed 64M");
    let served = Served::start(&lab, "--socket s -f qed a.qed", 1);
    let mode = fs::metadata(lab.path("s")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = lab.qed(["serve", "--socket", "s", "-f", "qed", "b.qed"]);
    assert!(second.stderr.contains("another server listens on 's'"), "{second:?}");
    served.signal("KILL");
    drop(served);
    assert!(lab.path("s").exists(), "nobody was there to remove it");
    let served = Served::start(&lab, "--socket s -f qed b.qed", 1);
    clients(&lab, &format!("nbdinfo --size '{}'", served.uri()));
    served.stop();
    let left: Vec<_> = fs::read_dir(lab.path("")).expect("the folder").collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_server_out_of_descriptors_says_so_once_and_goes_on() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let mut limited = Command::new("sh");
    let script = "ulimit -n 32 && exec \"$0\" serve --socket s -f qed a.qed";
    limited.args(["-c", script, env!("CARGO_BIN_EXE_qed")]).current_dir(lab.path(""));
    let mut served = Served::of(&mut limited, 1);
    let many: Vec<_> =
        (0..40).map(|_| UnixStream::connect(lab.path("s")).expect("connected")).collect();
    std::thread::sleep(Duration::from_secs(1));
    drop(many);
    clients(&lab, &format!("nbdinfo --size '{}'", served.uri()));
    served.signal("TERM");
    let ran = served.wait();
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stderr.matches("Too many open files").count(), 1, "{}", ran.stderr);
}

#[test]
fn a_socket_from_systemd_is_used_and_kept() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 64M");
    let mut python = Command::new(PYTHON);
    python.args(["-c", HAND_OVER, env!("CARGO_BIN_EXE_qed"), "serve", "-f", "qed", "a.qed"]);
    let mut served = Served::of(python.current_dir(lab.path("")), 0);
    let size =
        clients(&lab, "while [ ! -S s ]; do :; done; nbdinfo --size 'nbd+unix:///?socket=s'");
    assert_eq!(size.trim(), (64 << 20).to_string());
    served.signal("TERM");
    let ran = served.wait();
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    assert!(lab.path("s").exists(), "it belongs to systemd");
}
