//! The `qed` program under limits.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use qed_fuzz::Answer;

use crate::support::QED;

/// Processor time, in seconds; the kernel ends the program when it is used up.
const CPU_SECONDS: u32 = 1;
/// Bytes of memory that can be written, stacks of threads included.
const MEMORY_BYTES: u64 = 64 << 20;
/// Seconds after which it counts as hanging, on a machine that does much else.
const HANGS_AFTER_SECONDS: &str = "30";

/// A command line and what the program answered.
pub(super) struct Ran {
    pub(super) told: Answer,
    pub(super) line: String,
}

/// Runs `qed` in `folder`; the words `IMAGE` and `FORMAT` of the line stand for those of the case.
pub(super) fn run(line: &str, format: &str, image: &Path, folder: &Path) -> Ran {
    let word = |word: &str| match word {
        "IMAGE" => image.as_os_str().to_owned(),
        "FORMAT" => format.into(),
        other => OsString::from(other),
    };
    let mut command = Command::new("timeout");
    command
        .args(["--signal=KILL", HANGS_AFTER_SECONDS, "prlimit", "--core=0"])
        .arg(format!("--cpu={CPU_SECONDS}"))
        .arg(format!("--data={MEMORY_BYTES}"))
        .arg(QED.as_path())
        .args(line.split(' ').map(word))
        .current_dir(folder);
    let output = command.output().unwrap_or_else(|error| {
        panic!("timeout cannot be run ({error}): install the Debian packages coreutils, util-linux")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    Ran { told: Answer { code: output.status.code(), stdout, stderr }, line: line.to_owned() }
}
