//! Holds implementations against the vectors. Builds the runner and what it runs by default, and
//! hands the words on; what a vector is and what a verdict, the runner knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, repo};

/// The words that say what is run; without any it is this workspace.
const TARGETS: [&str; 3] = ["--library", "--program", "--nbd"];
/// Where the reports of the installed QEMU are kept.
const REPORTS: &str = "conformance/reports";

/// How qemu-nbd is run.
const QEMU_NBD: [&str; 4] = [
    "--nbd",
    "nbd+unix:///?socket={socket}",
    "--serve",
    "qemu-nbd --persistent --read-only --format qed --socket {socket} {path}",
];

/// Runs the vectors against the libraries and `qed`, or whatever the words name; `--bless` writes
/// the reports of the installed QEMU instead.
///
/// Ends this process with the exit code of the runner: 1 where a vector failed, 2 where it could
/// not be run.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let programs = build()?;
    let mut runner = Command::new(programs.join("conformance"));
    match words {
        [bless] if bless == "--bless" => return bless_qemu(&programs),
        words if words.iter().any(|word| TARGETS.contains(&word.as_str())) => {}
        _ => {
            runner.args(["--library", "--program"]).arg(programs.join("qed"));
        }
    }
    let status = runner.args(words).status().context("the runner could not be started")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => std::process::exit(code),
        None => bail!("the runner ended with {status}"),
    }
}

/// Builds the runner and `qed` and returns their folder.
fn build() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    // The whole workspace decides about features, so that nothing is built twice.
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--bin", "conformance"]);
    process::run(cargo.args(["--bin", "qed"]).current_dir(repo::root()))?;
    Ok(repo::target_dir()?.join("debug"))
}

/// Writes what the installed QEMU makes of the vectors, as a program and as a server.
fn bless_qemu(programs: &Path) -> Result<()> {
    let version = process::output(Command::new("qemu-img").arg("--version"))?;
    let version = version_of(&version).context("qemu-img tells no version")?;
    let folder = repo::root().join(REPORTS);
    fs::create_dir_all(&folder).context(REPORTS)?;
    let ways = [("qemu-img", &["--program", "qemu-img"][..]), ("qemu-nbd", &QEMU_NBD)];
    for (name, words) in ways {
        let file = |extension| folder.join(format!("{name}-{version}.{extension}"));
        let mut runner = Command::new(programs.join("conformance"));
        runner.args(words).arg("--json").arg(file("json")).arg("--markdown").arg(file("md"));
        // What fails is for the reader of the report to judge.
        let status = runner.status().context("the runner could not be started")?;
        if !matches!(status.code(), Some(0 | 1)) {
            bail!("the runner ended with {status}");
        }
    }
    Ok(())
}

/// The number in `qemu-img version 10.0.2 (Debian ..)`.
fn version_of(line: &str) -> Option<&str> {
    line.strip_prefix("qemu-img version ")?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_number_alone() {
        assert_eq!(version_of("qemu-img version 10.0.2 (Debian 1:10)\n"), Some("10.0.2"));
        assert_eq!(version_of("qemu-img version 9.2\n"), Some("9.2"));
        assert_eq!(version_of("qed 0.1.0"), None);
    }
}
