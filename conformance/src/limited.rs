//! Running a program that may hang, flood or crash: under limits of time, processor, memory and
//! output. Knows nothing of images.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::answer::DriveError;

/// What a program may use for one answer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Seconds until it counts as hanging.
    pub seconds: u32,
    /// Seconds of the processor.
    pub cpu_seconds: u32,
    /// Bytes of memory that can be written.
    pub memory_bytes: u64,
    /// Bytes of each file that it writes, what it prints included.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { seconds: 60, cpu_seconds: 5, memory_bytes: 1 << 30, file_bytes: 32 << 20 }
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code, or why there is none.
    pub(crate) ended: Result<i32, String>,
    pub(crate) stdout: Vec<u8>,
    /// The first line of its errors, without the folder that the image lies in.
    pub(crate) said: String,
}

/// Bytes of an error text that are shown.
const SAID_MAX: usize = 200;

/// Runs a program in the folder `scratch`, where what it prints is kept meanwhile.
pub(crate) fn run<W: AsRef<OsStr>>(
    program: &Path,
    words: impl IntoIterator<Item = W>,
    scratch: &Path,
    limits: Limits,
) -> Result<Ran, DriveError> {
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| scratch.join(name));
    let mut command = Command::new("timeout");
    command.arg("--signal=KILL").arg(limits.seconds.to_string());
    command.args(guard(limits)).arg(program).args(words);
    command.current_dir(scratch).stdin(Stdio::null());
    command.stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
    let status = command.status().map_err(|error| missing("timeout", "coreutils", &error))?;
    let said = String::from_utf8_lossy(&fs::read(stderr)?).into_owned();
    if status.code() == Some(127) && said.starts_with("timeout: ") {
        return Err(missing("prlimit", "util-linux", &said.trim()));
    }
    Ok(Ran {
        ended: ended(status, limits),
        stdout: fs::read(stdout)?,
        said: first_line(&said, scratch),
    })
}

/// The words in front of a program that limit it; the process stays the same one.
pub(crate) fn guard(limits: Limits) -> [String; 5] {
    [
        "prlimit".to_owned(),
        "--core=0".to_owned(),
        format!("--cpu={}", limits.cpu_seconds),
        format!("--data={}", limits.memory_bytes),
        format!("--fsize={}", limits.file_bytes),
    ]
}

/// The error of a tool of our own that is not installed.
pub(crate) fn missing(tool: &str, package: &str, error: &dyn std::fmt::Display) -> DriveError {
    let why = format!("{error}: install the Debian package {package}");
    DriveError::Start { program: tool.to_owned(), why }
}

/// A line of error text for a report: nothing of this run, nothing that a terminal obeys.
pub(crate) fn first_line(text: &str, scratch: &Path) -> String {
    let folder = scratch.parent().unwrap_or(scratch).display().to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = line.trim().replace(&format!("{folder}/"), "");
    line.chars().filter(|char| !char.is_control()).take(SAID_MAX).collect()
}

/// The code that a program chose itself, or what ended it.
fn ended(status: ExitStatus, limits: Limits) -> Result<i32, String> {
    // `timeout` and shells report a signal as 128 and its number.
    let signal = status.signal().or_else(|| status.code().and_then(|code| code.checked_sub(128)));
    match (status.code(), signal) {
        (Some(code), None | Some(..=0)) => Ok(code),
        (_, Some(9)) => Err(format!(
            "ran for more than {} s, {} s of the processor",
            limits.seconds, limits.cpu_seconds
        )),
        (_, Some(25)) => Err(format!("wrote more than {} bytes", limits.file_bytes)),
        (_, signal) => Err(format!("ended by signal {}", signal.unwrap_or_default())),
    }
}
