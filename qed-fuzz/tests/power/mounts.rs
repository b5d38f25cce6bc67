//! Loop devices and mounted file systems, taken down in the right order whatever happens.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A block device made of a file, with the file system on it mounted.
pub(crate) struct Mounted {
    device: PathBuf,
    folder: PathBuf,
}

impl Mounted {
    /// Makes a file system on the file, then mounts it.
    pub(crate) fn make(file: &Path, folder: &Path) -> Self {
        let this = Self::attach(file, folder);
        // Without lazy initialisation nothing is written that nobody waits for.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run("mke2fs", "e2fsprogs", ["-q", "-t", "ext4", "-E", options, text(&this.device)]);
        this.mount();
        this
    }

    /// Mounts the file system that is there.
    pub(crate) fn of(file: &Path, folder: &Path) -> Self {
        let this = Self::attach(file, folder);
        this.mount();
        this
    }

    fn attach(file: &Path, folder: &Path) -> Self {
        let said = run("losetup", "mount", ["--find", "--show", text(file)]);
        Self { device: said.trim().into(), folder: folder.to_path_buf() }
    }

    fn mount(&self) {
        run("mount", "mount", ["-t", "ext4", text(&self.device), text(&self.folder)]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What is not mounted because making it failed need not be taken down.
        let _ = Command::new("umount").arg(&self.folder).output();
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).output();
    }
}

/// Records that the running test is skipped in the file that `QED_SKIPPED` names. Without such a
/// file nothing may be skipped.
pub(crate) fn is_skipped(reason: &str) -> bool {
    let Some(record) = std::env::var_os("QED_SKIPPED") else { return false };
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    let mut record = File::options().append(true).open(record).unwrap();
    record.write_all(line.as_bytes()).unwrap();
    true
}

#[track_caller]
fn run<'a>(program: &str, package: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let output = Command::new(program).args(words.into_iter().map(OsStr::new)).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}): install the Debian package {package}")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}, which needs root: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
