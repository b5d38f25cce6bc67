//! Runs the two scripts that a person runs: the tests and the whole of CI. They hold the steps.

use std::process::Command;

use anyhow::Result;

use crate::{process, repo};

/// Runs `./test` with the words given.
pub(crate) fn run(words: &[String]) -> Result<()> {
    process::run(Command::new("./test").args(words).current_dir(repo::root()))
}

/// Runs `.ci/run`.
pub(crate) fn ci(words: &[String]) -> Result<()> {
    process::run(Command::new(".ci/run").args(words).current_dir(repo::root()))
}
