//! Which of our crates may use which, and which outside crates only some may use. The arrows are
//! those of ARCHITECTURE.md; a new one is a decision, made here and there.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::problem::Problem;

/// A crate of the workspace and the ones of ours that it may use, in its tests too.
const ARROWS: [(&str, &[&str]); 15] = [
    ("qed-spec", &[]),
    ("qed-io", &["qed-spec"]),
    ("qed-layout", &["qed-io", "qed-spec"]),
    ("qed-journal", &["qed-io", "qed-spec"]),
    ("qed-pending", &["qed-io", "qed-spec"]),
    ("qed-core", &["qed-io", "qed-journal", "qed-layout", "qed-pending", "qed-spec"]),
    ("qed-engine", &["qed-core", "qed-io", "qed-spec"]),
    ("qed-check", &["qed-io", "qed-layout", "qed-spec"]),
    ("qed-convert", &["qed-core", "qed-io", "qed-layout", "qed-spec"]),
    ("qed-export", &["qed-core", "qed-engine", "qed-io", "qed-spec"]),
    ("qed", &["qed-check", "qed-convert", "qed-core", "qed-io", "qed-pending", "qed-spec"]),
    (
        "qed-cli",
        &[
            "qed",
            "qed-check",
            "qed-convert",
            "qed-core",
            "qed-engine",
            "qed-export",
            "qed-io",
            "qed-layout",
            "qed-spec",
        ],
    ),
    (
        "qed-fuzz",
        &[
            "qed-check",
            "qed-convert",
            "qed-core",
            "qed-export",
            "qed-io",
            "qed-journal",
            "qed-pending",
            "qed-layout",
            "qed-spec",
        ],
    ),
    (
        "conformance",
        &[
            "qed-check",
            "qed-convert",
            "qed-core",
            "qed-fuzz",
            "qed-io",
            "qed-journal",
            "qed-layout",
            "qed-spec",
        ],
    ),
    ("xtask", &[]),
];

/// Outside crates that stand for a boundary, and the crates that may name them.
const ONLY: [(&str, &[&str]); 9] = [
    ("anyhow", &["qed-cli", "xtask"]),
    ("clap", &["qed-cli"]),
    ("io-uring", &["qed-io"]),
    ("mio", &["qed-export"]),
    ("nix", &["qed-io"]),
    ("rustix", &["conformance", "qed-cli", "qed-engine", "qed-export", "qed-io", "qed-pending"]),
    ("rayon", &["qed-check", "qed-convert"]),
    ("rustls", &["qed-export"]),
    ("nom", &["qed-convert", "qed-spec"]),
];

/// Compares what `cargo metadata` says with the graph above.
pub(super) fn check(metadata: &Value) -> Result<Vec<Problem>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has no name")?;
        let path = format!("{name}/Cargo.toml");
        let Some((_, may_use)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            problems.push(Problem::new(path, 1, format!("the crate graph does not know {name}")));
            continue;
        };
        for used in dependencies(package)? {
            if let Some(text) = refusal(name, used, may_use) {
                problems.push(Problem::new(path.clone(), 1, text));
            }
        }
    }
    Ok(problems)
}

/// The names of a package's dependencies of every kind.
fn dependencies(package: &Value) -> Result<impl Iterator<Item = &str>> {
    let list = package["dependencies"].as_array().context("a package has no dependencies")?;
    Ok(list.iter().filter_map(|dependency| dependency["name"].as_str()))
}

fn refusal(name: &str, used: &str, may_use: &[&str]) -> Option<String> {
    let is_ours = ARROWS.iter().any(|(from, _)| *from == used);
    // A crate's own tests may ask for it again, with its test features.
    if is_ours && used != name && !may_use.contains(&used) {
        return Some(format!("{name} must not use {used}: the crate graph has no such arrow"));
    }
    let (_, allowed) = ONLY.iter().find(|(outside, _)| *outside == used)?;
    let refused = !allowed.contains(&name);
    refused.then(|| format!("{name} must not use {used}: only {} may", allowed.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn refused(name: &str, used: &str, text: &str) {
        let metadata =
            json!({ "packages": [{ "name": name, "dependencies": [{ "name": used }] }] });
        let found = check(&metadata).unwrap();
        assert!(found.iter().any(|problem| problem.text.contains(text)), "{found:?}");
    }

    #[test]
    fn an_arrow_that_is_not_in_the_graph_is_refused() {
        refused("qed-check", "qed-core", "qed-check must not use qed-core");
        refused("xtask", "qed-spec", "xtask must not use qed-spec");
        refused("qed-core", "nix", "only qed-io may");
        refused("qed-new", "qed-io", "does not know qed-new");
    }

    #[test]
    fn an_arrow_of_the_graph_is_not() {
        let metadata = json!({ "packages": [{
            "name": "qed-core", "dependencies": [{ "name": "qed-spec" }, { "name": "thiserror" }],
        }]});
        assert_eq!(check(&metadata).unwrap(), []);
    }
}
