//! Holds docs/dependencies.md against the manifests: each outside crate that we name has a row with
//! the reason it was let in, and no row is left behind, nor a line of the workspace's manifest.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::problem::Problem;
use crate::tree::Tree;

const DOCUMENT: &str = "docs/dependencies.md";
const MANIFEST: &str = "Cargo.toml";

/// Compares the rows of the document with what the packages depend on.
pub(super) fn check(tree: &Tree, metadata: &Value) -> Result<Vec<Problem>> {
    let document = tree.file(DOCUMENT)?;
    let used = outside_crates(metadata)?;
    let mut listed = BTreeSet::new();
    let mut problems = Vec::new();
    for (line, text) in document.lines() {
        let Some(name) = row_name(text) else { continue };
        listed.insert(name.to_owned());
        if !used.contains(name) {
            problems.push(Problem::new(DOCUMENT, line, format!("no crate of ours uses {name}")));
        }
    }
    for name in used.difference(&listed) {
        let text = format!("{name} has no row with the reason it was let in");
        problems.push(Problem::new(DOCUMENT, 1, text));
    }
    for name in workspace_dependencies(&tree.file(MANIFEST)?.text)? {
        let is_ours = name == "qed" || name.starts_with("qed-");
        if !is_ours && !used.contains(&name) {
            problems.push(Problem::new(MANIFEST, 1, format!("no crate of ours uses {name}")));
        }
    }
    Ok(problems)
}

/// The names under `[workspace.dependencies]`.
fn workspace_dependencies(manifest: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = toml::from_str(manifest).context(MANIFEST)?;
    let list = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let list = list.and_then(toml::Value::as_table).context("no [workspace.dependencies]")?;
    Ok(list.keys().cloned().collect())
}

/// Crates from a registry that any package of ours names.
fn outside_crates(metadata: &Value) -> Result<BTreeSet<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let dependencies = packages.iter().filter_map(|it| it["dependencies"].as_array()).flatten();
    let outside = dependencies.filter(|dependency| dependency["path"].is_null());
    Ok(outside.filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned())).collect())
}

/// The crate that a row of the table is about: "| `name` | ...".
fn row_name(text: &str) -> Option<&str> {
    text.strip_prefix("| `")?.split_once('`').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_row_and_a_stale_one_are_told() {
        let document = "| crate | why |\n| `old` | gone |\n| `kept` | x |\n";
        let manifest = "[workspace.dependencies]\nkept = \"1\"\nunused = \"1\"\n";
        let tree = Tree::of(&[(DOCUMENT, document), (MANIFEST, manifest)]);
        let metadata = json!({ "packages": [{ "dependencies": [
            { "name": "kept" }, { "name": "new" }, { "name": "ours", "path": "/ours" },
        ]}]});
        let found: Vec<String> =
            check(&tree, &metadata).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/dependencies.md:2: no crate of ours uses old",
                "docs/dependencies.md:1: new has no row with the reason it was let in",
                "Cargo.toml:1: no crate of ours uses unused",
            ]
        );
    }
}
