//! Counts instructions with valgrind: fetches the runner that the benches' library wants, in its
//! very version, and starts the bench program. Knows no bench by name but the one in qed-core.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, repo, tools};

const LIBRARY: &str = "gungraun";
const RUNNER: &str = "gungraun-runner";

/// Runs the benches; the words are given to them.
pub(crate) fn run(words: &[String]) -> Result<()> {
    process::output(Command::new("valgrind").arg("--version"))
        .context("valgrind is missing: Debian package valgrind")?;
    let runner = tools::install(RUNNER, &library_version()?)?;
    let mut cargo = process::cargo();
    cargo.args(["bench", "--locked", "--package", "qed-core", "--bench", "instructions", "--"]);
    process::run(cargo.args(words).env("GUNGRAUN_RUNNER", runner).current_dir(repo::root()))
}

fn library_version() -> Result<String> {
    let metadata = repo::metadata_of_all()?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let library = packages.iter().find(|package| package["name"] == LIBRARY);
    let version = library.and_then(|package| package["version"].as_str());
    Ok(version.context("the workspace does not use gungraun")?.to_owned())
}
