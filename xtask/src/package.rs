//! Packs every crate that is published and builds each from its pack alone.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process, repo};

/// Runs `cargo package --workspace` without the crates that are never published.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["package", "--workspace", "--locked"]).args(words).current_dir(repo::root());
    for name in unpublished(&repo::metadata()?)? {
        cargo.args(["--exclude", &name]);
    }
    process::run(&mut cargo)
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
    fn only_crates_that_are_never_published_are_left_out() {
        let metadata = json!({ "packages": [
            { "name": "library", "publish": null },
            { "name": "task", "publish": [] },
            { "name": "elsewhere", "publish": ["other-registry"] },
        ]});
        assert_eq!(unpublished(&metadata).unwrap(), ["task"]);
    }
}
