//! Building the fuzz programs with cargo-fuzz, of this checkout or of a copy of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, repo, tools};

const VERSION: &str = "0.13.2";

/// Compiling takes most of the time here: link-time optimisation is not worth it.
const PROFILE: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "2")];

/// The fuzz programs of one tree.
#[derive(Debug)]
pub(super) struct Build {
    cargo_fuzz: PathBuf,
    tree: PathBuf,
    target_dir: PathBuf,
    /// The machine that is built for, which is part of the path of the programs.
    triple: String,
    /// Whether what a build leaves makes the next one faster, at the cost of this one.
    incremental: bool,
}

impl Build {
    /// Those of this checkout.
    pub(super) fn of_checkout() -> Result<Self> {
        Self::new(repo::root(), &repo::target_dir()?, false)
    }

    /// Those of a tree that changes a little from build to build.
    pub(super) fn of(tree: &Path, target_dir: &Path) -> Result<Self> {
        Self::new(tree, target_dir, true)
    }

    fn new(tree: &Path, target_dir: &Path, incremental: bool) -> Result<Self> {
        process::output(Command::new("g++").arg("--version"))
            .context("g++ is missing: Debian package g++")?;
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let said = process::output(Command::new(rustc).arg("-vV"))?;
        let triple = said.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(Self {
            cargo_fuzz: tools::install("cargo-fuzz", VERSION)?,
            tree: tree.to_path_buf(),
            target_dir: target_dir.to_path_buf(),
            triple: triple.context("rustc -vV names no host")?.to_owned(),
            incremental,
        })
    }

    /// Builds the programs of these names. One after the other: cargo-fuzz builds one program or all
    /// of the package, also those that are no fuzz programs and do not link as such.
    pub(super) fn all(&self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| self.one(name))
    }

    /// Builds one program.
    pub(super) fn one(&self, name: &str) -> Result<()> {
        process::run(self.command().arg(name))
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
            .args(["--codegen-units", if self.incremental { "256" } else { "16" }])
            // Inputs are choices, not values that code compares: tracing comparisons costs a third.
            .arg("--no-trace-compares")
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .env("CARGO_INCREMENTAL", u8::from(self.incremental).to_string())
            .envs(PROFILE)
            .current_dir(&self.tree);
        command
    }
}
