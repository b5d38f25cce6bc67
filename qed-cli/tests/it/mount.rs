//! `mount`: a disk as a file, with the programs that use files, and QEMU beside it.

mod ending;
mod file;
mod loopback;
mod ordinary_user;

use std::process::Command;

use crate::lab::{Lab, Ran, shell};

/// What the scripts begin with. `start ARGS` begins to serve and sets `$file` and `$server`, `finish`
/// unmounts it and waits for the server, whose exit code it gives.
const PRELUDE: &str = r#"
set -euo pipefail
mkdir m mnt; mkfifo ready
# A mount or a device that a failed script leaves would keep its folder from going away.
trap 'set +e; exec 7<&-; umount -ql mnt 2>&-; [ -z "${device:-}" ] || losetup -d $device
      while umount -ql m 2>&-; do :; done; umount -ql full 2>&-; kill -9 ${server:-} 2>&-' EXIT
start() { "$qed" mount "$@" > ready & server=$!; read -r file < ready; }
finish() { umount "${1:-m}"; wait $server; }
"#;

/// Runs a bash script in a new folder with `m` and `mnt` to mount on. None, and a record of it, where
/// there is no FUSE; in CI there is.
#[track_caller]
fn on_fuse(script: &str) -> Option<Ran> {
    let lab = Lab::new();
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !std::path::Path::new("/dev/fuse").exists() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        if let Some(record) = std::env::var_os("QED_SKIPPED") {
            let mut echo = Command::new("sh");
            let line = format!("{test}: needs root and /dev/fuse");
            echo.args(["-c", "echo \"$0\" >> \"$1\"", &line]).arg(record);
            assert_eq!(Ran::of(&mut echo).code, Some(0));
            return None;
        }
        panic!("this test needs root and /dev/fuse");
    }
    let script = format!("qed={}\n{PRELUDE}\n{script}", env!("CARGO_BIN_EXE_qed"));
    let ran = shell(&lab.path(""), &script, &[]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    Some(ran)
}
