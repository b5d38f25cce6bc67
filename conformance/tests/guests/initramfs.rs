//! What a guest has beside its kernel: busybox, the modules for virtio, some programs of this machine
//! with their libraries, and a script that is the job of this guest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::{kernel_folder, run};

/// The first process; programs of this machine lie in `/programs`. Makes what every job needs, does the job and ends the guest. Modules that need
/// others are loaded when these are.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for round in 1 2 3 4 5; do
    for module in /modules/*; do insmod $module 2>/dev/null && rm $module; done
done
say() { echo \"$*\" >/dev/vport0p1; }
(set -e; . /job) || say failed
poweroff -f
";

/// Packs the files of a guest into `packed`. Programs are paths on this machine.
pub(crate) fn pack(packed: &Path, programs: &[&Path], job: &str) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = root.path();
    for folder in ["bin", "dev", "disk", "modules", "proc", "programs", "sys"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|it| Path::new(it).exists());
    fs::copy(busybox.expect("busybox-static"), root.join("bin/busybox")).unwrap();
    for entry in fs::read_dir(kernel_folder()).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|end| end == "ko") {
            fs::copy(entry.path(), root.join("modules").join(entry.file_name())).unwrap();
        }
    }
    for program in programs {
        add_program(root, program);
    }
    for (name, text) in [("init", INIT), ("job", job)] {
        fs::write(root.join(name), text).unwrap();
    }
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let archive = fs::File::create(packed).unwrap();
    let mut cpio = Command::new("sh");
    cpio.args(["-c", "find . | busybox cpio -o -H newc"]).current_dir(root);
    let packed = cpio.stdout(archive).stderr(Stdio::null()).status().unwrap();
    assert!(packed.success(), "busybox cpio");
}

/// Adds a program without what only a debugger reads, and the libraries that it is linked with.
fn add_program(root: &Path, program: &Path) {
    let to = root.join("programs").join(program.file_name().unwrap());
    let to = to.to_str().unwrap();
    run("strip", "binutils", ["--strip-all", "-o", to], program);
    // A line is `NAME => PATH (ADDRESS)`, or the loader's `PATH (ADDRESS)`.
    let lines = run("ldd", "libc-bin", [], program);
    for library in lines.split_whitespace().filter_map(|word| word.strip_prefix('/')) {
        let to = root.join(library);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(Path::new("/").join(library), to).unwrap();
    }
}
