//! Packs every crate that is published and builds each from its pack alone.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process, repo};

/// Runs `cargo package --workspace` without the crates that are never published.
///
/// A pack is built against the packs of the crates below it, which cargo unpacks into its home and
/// takes for unchanging from then on, as their versions do not change from commit to commit. So
/// what an earlier run unpacked and built goes first.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let metadata = repo::metadata()?;
    let target = repo::target_dir()?.join("packed");
    remove(&target)?;
    for unpacked in unpacked(&cargo_home()?.join("registry/src"), &metadata)? {
        remove(&unpacked)?;
    }
    let mut cargo = process::cargo();
    cargo.args(["package", "--workspace", "--locked", "--target-dir"]).arg(&target);
    cargo.args(words).current_dir(repo::root());
    for name in unpublished(&metadata)? {
        cargo.args(["--exclude", &name]);
    }
    process::run(&mut cargo)
}

/// Where cargo keeps what it fetched.
fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

/// The folders below `sources` that hold a pack of one of our own packages.
fn unpacked(sources: &Path, metadata: &Value) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !sources.is_dir() {
        return Ok(found);
    }
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    for registry in fs::read_dir(sources)? {
        let registry = registry?.path();
        for package in packages {
            let (Some(name), Some(version)) =
                (package["name"].as_str(), package["version"].as_str())
            else {
                continue;
            };
            let folder = registry.join(format!("{name}-{version}"));
            if folder.is_dir() {
                found.push(folder);
            }
        }
    }
    Ok(found)
}

/// Removes a folder that may not be there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The packages with `publish = false`.
fn unpublished(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let never = packages.iter().filter(|it| it["publish"].as_array().is_some_and(Vec::is_empty));
    Ok(never.filter_map(|package| Some(package["name"].as_str()?.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unpacked_package_of_ours_is_found_in_any_registry() {
        let sources = tempfile::tempdir().unwrap();
        for folder in ["-1/ours-0.1.0", "-2/ours-0.2.0", "index-3/theirs-0.1.0"] {
            fs::create_dir_all(sources.path().join(folder)).unwrap();
        }
        let metadata = json!({ "packages": [{ "name": "ours", "version": "0.1.0" }] });
        let found = unpacked(sources.path(), &metadata).unwrap();
        assert_eq!(found, [sources.path().join("-1/ours-0.1.0")]);
        assert!(unpacked(&sources.path().join("none"), &metadata).unwrap().is_empty());
    }

    #[test]
    fn only_crates_that_are_never_published_are_left_out() {
        let metadata = json!({ "packages": [
            { "name": "library", "publish": null },
            { "name": "task", "publish": [] },
            { "name": "elsewhere", "publish": ["other-registry"] },
        ]});
        assert_eq!(unpublished(&metadata).unwrap(), ["task"]);
    }
}
