//! Runs the scripts that a person runs: the tests, the whole of CI, and others. They hold the steps.

use std::process::Command;

use anyhow::Result;

use crate::{process, repo};

/// Runs `./test` with the words given.
pub(crate) fn run(words: &[String]) -> Result<()> {
    script("./test", words)
}

/// Runs `.ci/run`.
pub(crate) fn ci(words: &[String]) -> Result<()> {
    script(".ci/run", words)
}

/// Runs a script of this checkout with the words given.
pub(crate) fn script(path: &str, words: &[String]) -> Result<()> {
    process::run(Command::new(repo::root().join(path)).args(words).current_dir(repo::root()))
}
