//! What may be linked into a program of ours: crates of crates.io under licences that ask for no
//! more than a notice. Looks at every package, however deep it lies.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::problem::Problem;

const ALLOWED: [&str; 8] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
const LOCK_FILE: &str = "Cargo.lock";

/// Checks the packages of `cargo metadata`, ours and all that they need.
pub(super) fn check(metadata: &Value) -> Result<Vec<Problem>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence) {
            let text = format!("{name} has the licence '{licence}', which is not on the list");
            problems.push(Problem::new(LOCK_FILE, 1, text));
        }
        // No source: a package of this workspace.
        if let Some(source) = package["source"].as_str().filter(|source| *source != REGISTRY) {
            let text = format!("{name} comes from {source}, not from crates.io");
            problems.push(Problem::new(LOCK_FILE, 1, text));
        }
    }
    Ok(problems)
}

/// Whether each part that must be kept offers a licence of the list. Brackets are dropped, which
/// refuses more than need be and never less.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ").replace(" or ", " OR ");
    flat.split(" AND ")
        .all(|part| part.split(" OR ").any(|alternative| ALLOWED.contains(&alternative.trim())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_of_an_expression_needs_an_allowed_alternative() {
        for allowed in
            ["MIT", "MIT/Apache-2.0", "X or MIT", "GPL-3.0 OR MIT", "(MIT OR X) AND Unicode-3.0"]
        {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in ["", "GPL-2.0-or-later", "MIT AND GPL-3.0", "(MIT OR ISC) AND MPL-2.0"] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }

    #[test]
    fn a_package_from_elsewhere_is_told() {
        let metadata = json!({ "packages": [
            { "name": "ours", "license": "MIT OR Apache-2.0", "source": null },
            { "name": "known", "license": "MIT", "source": REGISTRY },
            { "name": "forked", "license": "MIT", "source": "git+https://example.org/forked" },
        ]});
        let found = check(&metadata).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].text.starts_with("forked comes from git+"));
    }
}
