//! The checks that a tool brings ready made: rustfmt, clippy, rustdoc, and shellcheck for scripts.

use std::process::Command;

use anyhow::Result;

use crate::{process, repo};

/// The scripts whose names do not say that they are scripts.
const SCRIPTS: [&str; 4] = ["demo", "test", ".ci/run", "scripts/record"];

/// Runs every linter; the first that finds something stops the task.
pub(crate) fn run(_words: &[String]) -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    document()?;
    process::run(
        Command::new("shellcheck")
            .arg("--external-sources")
            .args(SCRIPTS)
            .args(repo::files(&["sh"])?)
            .current_dir(repo::root()),
    )
}

fn cargo(words: &[&str]) -> Result<()> {
    process::run(process::cargo().args(words).current_dir(repo::root()))
}

fn document() -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["doc", "--workspace", "--no-deps", "--locked"]);
    process::run(cargo.env("RUSTDOCFLAGS", "-D warnings").current_dir(repo::root()))
}
