//! The installed QEMU tools, which tests hold against this workspace.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use crate::operation::{Operation, content};

/// What a program answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; none if it died of a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// The answer of a program that must have succeeded.
    ///
    /// # Panics
    /// With what it said if it did not.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }
}

/// Runs `qemu-img` with these words.
///
/// # Panics
/// If it is not installed.
#[track_caller]
pub fn qemu_img<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Answer {
    run(Command::new("qemu-img").args(words))
}

/// As [`qemu_img`], on an image that may make it hang or take all memory: it is killed after ten
/// seconds, and gets no more than 1 GiB.
///
/// # Panics
/// If it is not installed.
#[track_caller]
pub fn qemu_img_limited<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Answer {
    let limits = ["--signal=KILL", "10", "prlimit", "--core=0", "--data=1073741824", "qemu-img"];
    let answer = run(Command::new("timeout").args(limits).args(words));
    // What `timeout` and `prlimit` end with if the program cannot be run.
    let is_missing = matches!(answer.code, Some(126 | 127));
    assert!(!is_missing, "{}: install the Debian package qemu-utils", answer.stderr);
    answer
}

/// Runs `qemu-io` with these commands on one image, opened with these words.
///
/// It goes on after a failed command and then ends with 1.
///
/// # Panics
/// If it is not installed.
#[track_caller]
pub fn qemu_io(open: &[&str], image: &Path, commands: &[String]) -> Answer {
    let commands = commands.iter().flat_map(|command| ["-c", command.as_str()]);
    run(Command::new("qemu-io").args(open).args(commands).arg(image))
}

/// The command of `qemu-io` that does an operation; the data of a write is put into `source`.
///
/// # Errors
/// `source` could not be written.
pub fn qemu_io_command(operation: &Operation, source: &Path) -> std::io::Result<String> {
    Ok(match operation {
        Operation::Write { range, fill } => {
            std::fs::write(source, content(*fill, range.clone()))?;
            let source = source.display();
            format!("write -q -s {source} {} {}", range.start, range.end - range.start)
        }
        Operation::WriteZeroes { range } => {
            format!("write -q -z {} {}", range.start, range.end - range.start)
        }
        Operation::Unmap { range } => {
            format!("write -q -z -u {} {}", range.start, range.end - range.start)
        }
        Operation::Read { range } => format!("read -q {} {}", range.start, range.end - range.start),
        Operation::Flush => "flush".to_owned(),
        Operation::Resize { size } => format!("truncate {size}"),
    })
}

#[track_caller]
fn run(command: &mut Command) -> Answer {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| {
        let program = command.get_program().display();
        panic!("{program} cannot be run ({error}): install the Debian package qemu-utils")
    });
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Answer { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}
