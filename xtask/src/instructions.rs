//! Counts instructions with valgrind: fetches the runner that the benches' library wants, in its
//! very version, and starts the bench program. Knows no bench by name but the one in qed-core.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, repo};

const LIBRARY: &str = "gungraun";
const RUNNER: &str = "gungraun-runner";

/// Runs the benches; the words are given to them.
pub(crate) fn run(words: &[String]) -> Result<()> {
    process::output(Command::new("valgrind").arg("--version"))
        .context("valgrind is missing: Debian package valgrind")?;
    let runner = runner(&repo::target_dir()?.join("tools"))?;
    let mut cargo = process::cargo();
    cargo.args(["bench", "--locked", "--package", "qed-core", "--bench", "instructions", "--"]);
    process::run(cargo.args(words).env("GUNGRAUN_RUNNER", runner).current_dir(repo::root()))
}

/// The runner in `folder`, installed unless it is there in the version of the library.
fn runner(folder: &Path) -> Result<PathBuf> {
    let version = library_version()?;
    let runner = folder.join("bin").join(RUNNER);
    let found = process::output(Command::new(&runner).arg("--version")).unwrap_or_default();
    if found.split_whitespace().last() != Some(&version) {
        let mut cargo = process::cargo();
        cargo.args(["install", "--locked", "--force", RUNNER, "--version", &version, "--root"]);
        process::run(cargo.arg(folder))?;
    }
    Ok(runner)
}

fn library_version() -> Result<String> {
    let metadata = repo::metadata_of_all()?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let library = packages.iter().find(|package| package["name"] == LIBRARY);
    let version = library.and_then(|package| package["version"].as_str());
    Ok(version.context("the workspace does not use gungraun")?.to_owned())
}
