//! A folder to work in, the programs that work in it, and whether this machine can run guests.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use tempfile::TempDir;

/// Far longer than anything takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that goes away with the test. It lies in memory: no guest loses more than a process.
pub(crate) struct Lab(TempDir);

impl Lab {
    /// With a new image, `disk.qed`, of these options and bytes; none where there can be no guests and the test may be skipped.
    pub(crate) fn new(options: &str, size: u64) -> Option<Self> {
        if let Some(reason) = no_guests() {
            assert!(is_skipped(&reason), "{reason}");
            return None;
        }
        let lab = Self(tempfile::tempdir_in("/dev/shm").expect("a tmpfs on every Debian"));
        lab.qed(&["create", "-q", "-f", "qed", "-o", options, "disk.qed", &size.to_string()]);
        Some(lab)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Our program, to be started by the caller.
    pub(crate) fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&*QED);
        // What it keeps beside its images for as long as this machine runs lies in the folder too.
        command.args(words).current_dir(self.0.path()).env("QED_RUNTIME_DIR", self.0.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs our program, which has to succeed; what it printed.
    #[track_caller]
    pub(crate) fn qed(&self, words: &[&str]) -> String {
        let output = self.command(words.iter().copied()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "qed {words:?}: {printed}{said}");
        printed.into_owned()
    }

    /// The image is sound, and this is its disk.
    #[track_caller]
    pub(crate) fn checked_disk(&self) -> File {
        self.qed(&["check", "-f", "qed", "disk.qed"]);
        self.qed(&["convert", "-f", "qed", "-O", "raw", "disk.qed", "disk.raw"]);
        File::open(self.path("disk.raw")).unwrap()
    }
}

/// A number that the environment may have.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Runs a program with a path behind its words; it has to succeed. What it printed.
#[track_caller]
pub(crate) fn run<'a>(
    program: &str,
    package: &str,
    words: impl IntoIterator<Item = &'a str>,
    path: impl AsRef<OsStr>,
) -> String {
    let output = Command::new(program).args(words).arg(path).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}): install the Debian package {package}")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Where `scripts/guest-kernel.sh` puts the kernel and its modules.
pub(crate) fn kernel_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest")
}

/// Why there can be no guests here.
fn no_guests() -> Option<String> {
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    };
    let tools = [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")];
    if let Some((program, package)) = tools.iter().find(|(program, _)| !found(program)) {
        return Some(format!("{program} is missing: install the Debian package {package}"));
    }
    let kernel = kernel_folder().join("vmlinuz");
    (!kernel.exists()).then(|| "there is no kernel for guests: scripts/guest-kernel.sh".to_owned())
}

/// Records that the running test is skipped in the file that `QED_SKIPPED` names. Without such a
/// file nothing may be skipped.
fn is_skipped(reason: &str) -> bool {
    let Some(record) = std::env::var_os("QED_SKIPPED") else { return false };
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    let mut record = File::options().append(true).open(record).unwrap();
    record.write_all(line.as_bytes()).unwrap();
    true
}

/// The program; cargo names it to the tests of its own package only, and `./test` to these.
static QED: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(program) = std::env::var_os("QED_PROGRAM") {
        return program.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // The whole workspace decides about features, so that nothing is built twice.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--workspace", "--bin", "qed"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "qed cannot be built");
    target.join("debug/qed")
});
