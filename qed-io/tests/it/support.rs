//! Places to put files, loop devices, and `qemu-io` processes that hold an image.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use qed_io::{Existing, FileOptions, FileStorage, ImageLock, NewFileOptions, Storage};
use tempfile::TempDir;

/// A folder on the disk that the build uses.
pub(crate) fn on_disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A folder on a memory file system, which has neither sectors nor `ZERO_RANGE`.
pub(crate) fn on_tmpfs() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs on every Debian")
}

pub(crate) const BUFFERED: NewFileOptions =
    NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
pub(crate) const DIRECT: NewFileOptions = NewFileOptions { direct: true, ..BUFFERED };

/// All bytes of a storage.
pub(crate) fn contents(storage: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(storage.len().unwrap()).unwrap()];
    storage.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// A block device over a file of its own; gone when dropped.
pub(crate) struct LoopDevice {
    node: PathBuf,
    file: PathBuf,
    _folder: TempDir,
}

impl LoopDevice {
    /// `sector` is the logical block size, in bytes. `None` where that takes rights that are not
    /// there and whoever runs the tests keeps count of what is skipped.
    #[track_caller]
    pub(crate) fn attach(len: u64, sector: u32) -> Option<Self> {
        let folder = on_disk();
        let file = folder.path().join("device");
        File::create(&file).unwrap().set_len(len).unwrap();
        let sector = format!("--sector-size={sector}");
        let args = [OsStr::new("--find"), "--show".as_ref(), sector.as_ref(), file.as_ref()];
        let output = run("losetup", "mount", args);
        if !output.status.success() && is_skipped("needs root and loop devices") {
            return None;
        }
        assert!(
            output.status.success(),
            "this test needs root and loop devices, and counts as failed without: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let node = String::from_utf8(output.stdout).unwrap().trim_end().into();
        Some(Self { node, file, _folder: folder })
    }

    pub(crate) fn node(&self) -> &Path {
        &self.node
    }

    /// Makes the device longer, as `lvextend` does a volume that is in use.
    pub(crate) fn grow(&self, len: u64) {
        File::options().write(true).open(&self.file).unwrap().set_len(len).unwrap();
        let output = run("losetup", "mount", ["--set-capacity".as_ref(), self.node.as_os_str()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Bytes of the space that the file below takes.
    pub(crate) fn allocated(&self) -> u64 {
        self.file.metadata().unwrap().blocks() * 512
    }

    pub(crate) fn open(&self, direct: bool) -> FileStorage {
        FileStorage::open(&self.node, FileOptions { direct, ..FileOptions::READ_WRITE }).unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run("losetup", "mount", [OsStr::new("--detach"), self.node.as_ref()]);
    }
}

/// Makes a QED image of 16 MiB.
pub(crate) fn qed_image(path: &Path) {
    let args = ["create", "-q", "-f", "qed"].map(OsStr::new);
    let output =
        run("qemu-img", "qemu-utils", args.into_iter().chain([path.as_ref(), "16M".as_ref()]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A `qemu-io` that has an image open.
pub(crate) struct QemuIo {
    child: Child,
}

impl QemuIo {
    /// Opens `path`; what `qemu-io` says on standard error if it cannot.
    pub(crate) fn open(args: &[&str], path: &Path) -> Result<Self, String> {
        let mut child = Command::new("qemu-io")
            .args(args)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}", missing("qemu-io", "qemu-utils", &error)));
        // It answers a command only when the image is open, and reads none when it is not.
        let _ = child.stdin.as_mut().unwrap().write_all(b"length\n");
        let mut answer = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        if answer.contains("MiB") {
            return Ok(Self { child });
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        Err(said)
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        // The end of its input ends it, and only its end releases the locks.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
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

#[track_caller]
fn run<'a>(program: &str, package: &str, args: impl IntoIterator<Item = &'a OsStr>) -> Output {
    let output = Command::new(program).args(args).output();
    output.unwrap_or_else(|error| panic!("{}", missing(program, package, &error)))
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> String {
    format!("{program} cannot be run ({error}): install the Debian package {package}")
}
