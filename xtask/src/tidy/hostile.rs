//! Holds the list of hostile cases against SECURITY.md and against the tests: nothing is listed
//! that no test builds, and the document shows the list as it is.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use crate::problem::Problem;
use crate::security::{self, Cases, DOCUMENT, LIST};
use crate::tree::Tree;

/// Checks the list, the document and the tests.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let list = &tree.file(LIST)?.text;
    let document = &tree.file(DOCUMENT)?.text;
    let cases: Cases = toml::from_str(list).context(LIST)?;
    let mut problems = Vec::new();
    if security::with_list(document, list)? != *document {
        let text = "the hostile cases are not those of the list: cargo xtask security";
        problems.push(Problem::new(DOCUMENT, 1, text));
    }
    let mut names = BTreeSet::new();
    for case in &cases.case {
        if !names.insert(&case.name) {
            problems.push(Problem::new(LIST, 1, format!("{} is listed twice", case.name)));
        }
        if !is_tested(tree, &case.name) {
            problems.push(Problem::new(LIST, 1, format!("no test builds {}", case.name)));
        }
    }
    Ok(problems)
}

/// Whether a Rust file of the conformance crate has the name as a string.
fn is_tested(tree: &Tree, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    tree.rust().any(|file| file.path.starts_with("conformance/") && file.text.contains(&quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_without_a_test_and_a_stale_document_are_told() {
        let case = |name: &str| {
            format!("[[case]]\nname = \"{name}\"\narea = \"a\"\nwhat = \"b\"\ndefault = \"c\"\n")
        };
        let list = format!("{}{}", case("built"), case("forgotten"));
        let markers = "<!-- begin: hostile cases, written by `cargo xtask security` -->\n\
                       <!-- end: hostile cases -->\n";
        let test = "//! A.\nconst A: &str = \"built\";\n";
        let stale = [(LIST, list.as_str()), (DOCUMENT, markers), ("conformance/tests/a.rs", test)];
        let found: Vec<String> =
            check(&Tree::of(&stale)).unwrap().into_iter().map(|problem| problem.text).collect();
        assert_eq!(
            found,
            [
                "the hostile cases are not those of the list: cargo xtask security",
                "no test builds forgotten",
            ]
        );
    }
}
