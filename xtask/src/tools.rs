//! Programs of crates.io that tasks run: each is installed once, in the version that the task was
//! written for. Knows none of them.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, repo};

/// The program `name` of the crate of that name, in `target/tools`. Cargo does nothing where it is
/// there in this version already.
///
/// # Errors
/// It cannot be fetched or does not build.
pub(crate) fn install(name: &str, version: &str) -> Result<PathBuf> {
    let folder = repo::target_dir()?.join("tools");
    let mut cargo = process::cargo();
    cargo.args(["install", "--quiet", "--locked", name, "--version", version, "--root"]);
    process::run(cargo.arg(&folder).current_dir(repo::root()))?;
    Ok(folder.join("bin").join(name))
}
