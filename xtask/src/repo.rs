//! Where things lie in this checkout. Knows paths, not what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// Folders at the top of the checkout that hold no source of ours.
const FOREIGN_FOLDERS: [&str; 2] = ["target", "tmp"];

/// The top of the checkout.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("xtask lies in a folder of the workspace")
}

/// What `cargo metadata` says of the workspace's own packages.
///
/// # Errors
/// Cargo failed.
pub(crate) fn metadata() -> Result<Value> {
    metadata_with(&["--no-deps"])
}

/// What `cargo metadata` says of every package that a build on Linux needs.
///
/// # Errors
/// Cargo failed; it does when a package was never fetched.
pub(crate) fn metadata_of_all() -> Result<Value> {
    metadata_with(&["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
}

fn metadata_with(words: &[&str]) -> Result<Value> {
    let mut cargo = process::cargo();
    cargo.args(["metadata", "--offline", "--format-version", "1"]).args(words).current_dir(root());
    serde_json::from_str(&process::output(&mut cargo)?).context("cargo metadata printed no JSON")
}

/// The folder that cargo builds into.
///
/// # Errors
/// Cargo failed, or printed no target folder.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata()?;
    let dir =
        metadata["target_directory"].as_str().context("cargo metadata has no target folder")?;
    Ok(PathBuf::from(dir))
}

/// Builds `qed` with optimisation and returns the path of the program.
///
/// # Errors
/// It does not build.
pub(crate) fn build_qed() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "qed-cli"]).current_dir(root());
    process::run(&mut cargo)?;
    Ok(target_dir()?.join("release/qed"))
}

/// Every file of the checkout whose name has one of the extensions, in order, hidden folders and
/// build output left out. Paths start at [`root`].
///
/// # Errors
/// A folder could not be read.
pub(crate) fn files(extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                let foreign = folder == root() && FOREIGN_FOLDERS.contains(&&*name);
                if !name.starts_with('.') && !foreign {
                    folders.push(entry.path());
                }
            } else if has_extension(&entry.path(), extensions) {
                found.push(entry.path().strip_prefix(root())?.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|ext| extensions.iter().any(|wanted| ext == *wanted))
}
