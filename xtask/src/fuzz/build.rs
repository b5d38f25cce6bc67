//! Building the fuzz programs with cargo-fuzz.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, repo, tools};

const VERSION: &str = "0.13.2";

/// Compiling takes most of the time here: link-time optimisation is not worth it.
const PROFILE: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "2")];

/// The fuzz programs of this checkout.
#[derive(Debug)]
pub(super) struct Build {
    cargo_fuzz: PathBuf,
    target_dir: PathBuf,
    /// The machine that is built for, which is part of the path of the programs.
    triple: String,
}

impl Build {
    /// Finds what a build needs.
    pub(super) fn new() -> Result<Self> {
        process::output(Command::new("g++").arg("--version"))
            .context("g++ is missing: Debian package g++")?;
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let said = process::output(Command::new(rustc).arg("-vV"))?;
        let triple = said.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(Self {
            cargo_fuzz: tools::install("cargo-fuzz", VERSION)?,
            target_dir: repo::target_dir()?,
            triple: triple.context("rustc -vV names no host")?.to_owned(),
        })
    }

    /// Builds the programs of these names. One after the other: cargo-fuzz builds one program or all
    /// of the package, also those that are no fuzz programs and do not link as such.
    pub(super) fn all(&self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| process::run(self.command().arg(name)))
    }

    /// The path of a program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.target_dir.join(&self.triple).join("release").join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.cargo_fuzz);
        command
            .args(["fuzz", "build", "--fuzz-dir", "qed-fuzz", "--features", "fuzzing"])
            // The crates have no unsafe code to look after but that of qed-io's memory maps, and
            // stable rustc has no sanitizer.
            .args(["--sanitizer", "none", "--debug-assertions"])
            .args(["--codegen-units", "16"])
            // Inputs are choices, not values that code compares: tracing comparisons costs a third.
            .arg("--no-trace-compares")
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .env("CARGO_INCREMENTAL", "0")
            .envs(PROFILE)
            .current_dir(repo::root());
        command
    }
}
