//! A folder to work in, and the programs that work in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder that goes away with the test.
#[derive(Debug)]
pub(crate) struct Lab {
    folder: TempDir,
    /// Has what a server keeps in memory, which one that is killed leaves behind.
    memory: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self { folder, memory: TempDir::new_in("/dev/shm").expect("a folder in memory") }
    }

    /// Where servers keep what outlives them.
    pub(crate) fn memory(&self) -> &Path {
        self.memory.path()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Our program, in the folder.
    pub(crate) fn qed(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        Ran::of(self.command(args).stdin(Stdio::null()))
    }

    /// Our program, to be started by the caller.
    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qed"));
        command.args(args).current_dir(self.folder.path());
        command.env("QED_RUNTIME_DIR", self.memory());
        command
    }

    /// A shell command with QEMU's tools, which has to succeed.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str) {
        let ran = shell(self.folder.path(), script, &[]);
        assert_eq!(ran.code, Some(0), "{script}: {}{}", ran.stdout, ran.stderr);
    }
}

/// What a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// None if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Bytes that are not UTF-8 as `\xNN`.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from_output(command.output().expect("the program starts"))
    }

    pub(crate) fn from_output(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// Runs a shell script in `folder`; `path` comes before the folders that hold programs.
pub(crate) fn shell(folder: &Path, script: &str, path: &[&Path]) -> Ran {
    for (tool, package) in [("qemu-img", "qemu-utils"), ("qemu-io", "qemu-utils")] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(tool).exists());
        assert!(found, "{tool} is missing: install the Debian package {package}");
    }
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = path.iter().map(|path| path.to_path_buf()).chain(std::env::split_paths(&rest));
    let path = std::env::join_paths(folders).expect("no colon in the folders");
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(folder).env("PATH", path).env("TZ", "UTC");
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    Ran::of(&mut command)
}
