//! Building and running the program that judges.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};

use crate::{process, repo};

/// One state in so many is opened by QEMU, too.
const ONE_BY_QEMU_IN: &str = "4096";

/// Many crates are compiled for a mutant, and it runs for seconds: little optimisation is
/// worth it.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"),
];

/// What is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judge {
    pub(super) states: u64,
    /// The first one.
    pub(super) seed: u64,
    pub(super) mode: String,
}

/// The program of one tree.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// That of this checkout.
    pub(super) fn of_checkout() -> Result<Self> {
        let target = repo::target_dir()?;
        process::run(build(&target).current_dir(repo::root()))?;
        Ok(Self { path: target.join("release/crash") })
    }

    /// That of a copy. What the compiler warns of in broken code is nobody's business.
    pub(super) fn of_copy(tree: &Path, target: &Path) -> Result<Self> {
        let mut cargo = build(target);
        process::output(cargo.arg("--quiet").envs(PROFILE).current_dir(tree))?;
        Ok(Self { path: target.join("release/crash") })
    }

    /// Judges; prints what it found, and leaves the image of a failure in `folder`.
    pub(super) fn judge(&self, judge: &Judge, folder: &Path) -> Result<()> {
        process::run(self.command(judge, ONE_BY_QEMU_IN).arg(folder))
    }

    /// Lets each request of so many workloads fail.
    pub(super) fn errors(&self, workloads: &str) -> Result<()> {
        process::run(Command::new(&self.path).args(["errors", workloads]))
    }

    /// As [`Program::judge`] without QEMU; what it printed is returned.
    pub(super) fn output(&self, judge: &Judge, folder: &Path) -> Result<Output> {
        let mut command = self.command(judge, "0");
        let output = command.arg(folder).output();
        output.with_context(|| process::line(&command))
    }

    fn command(&self, judge: &Judge, qemu: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.args([&judge.states.to_string(), &judge.seed.to_string(), &judge.mode, qemu]);
        command
    }
}

fn build(target: &Path) -> Command {
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "qed-fuzz", "--bin", "crash"]);
    cargo.env("CARGO_TARGET_DIR", target);
    cargo
}
