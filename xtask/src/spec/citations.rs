//! Where the Rust files cite clauses: `// spec: ID` at the code that keeps one, `// spec-test: ID`
//! at the test that proves it, each on a line of its own.

use anyhow::Result;

use super::document::ids;
use super::items::Items;
use crate::problem::Problem;
use crate::tree::{RustFile, Tree};

const IN_CODE: &str = "// spec:";
const IN_TESTS: &str = "// spec-test:";

/// One id of one citation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Citation {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Code,
    Test,
}

/// Where something is cited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) line: usize,
    /// The function or type at which the citation stands.
    pub(super) item: String,
}

/// Every citation of the tree, and those that stand where they mean nothing.
pub(super) fn find(tree: &Tree) -> Result<(Vec<Citation>, Vec<Problem>)> {
    let (mut citations, mut problems) = (Vec::new(), Vec::new());
    for rust in tree.parsed() {
        let rust = rust?;
        let items = Items::of(&rust.syntax);
        for (line, text) in rust.file.lines() {
            let Some((kind, list)) = citation(text) else { continue };
            match place(&rust, &items, line, kind) {
                Ok(place) => citations.extend(ids(list).map(|id| Citation {
                    id: id.to_owned(),
                    kind,
                    place: place.clone(),
                })),
                Err(why) => problems.push(Problem::new(&rust.file.path, line, why)),
            }
            if ids(list).next().is_none() {
                problems.push(Problem::new(&rust.file.path, line, "cites no clause"));
            }
        }
    }
    Ok((citations, problems))
}

/// What the line cites, if it does.
fn citation(line: &str) -> Option<(Kind, &str)> {
    let line = line.trim_start();
    let in_code = line.strip_prefix(IN_CODE).map(|list| (Kind::Code, list));
    in_code.or_else(|| line.strip_prefix(IN_TESTS).map(|list| (Kind::Test, list)))
}

/// The place of a citation, or why there is nothing to cite for.
fn place(
    rust: &RustFile<'_>,
    items: &Items,
    line: usize,
    kind: Kind,
) -> Result<Place, &'static str> {
    let item = items.at(line).ok_or("the citation stands at nothing")?;
    match kind {
        Kind::Test if !item.is_test => Err("what stands here is no test: `spec` cites for code"),
        Kind::Code if item.is_test || is_test_code(&rust.file.path) => {
            Err("what stands here is no code that ships: `spec-test` cites for tests")
        }
        _ => Ok(Place { path: rust.file.path.clone(), line, item: item.name.clone() }),
    }
}

fn is_test_code(path: &str) -> bool {
    path.contains("/tests/") || path.contains("/benches/") || path.ends_with("/tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found(path: &str, code: &str, expected: &[(Kind, &str, &str, usize)], told: &[&str]) {
        let (citations, problems) = find(&Tree::of(&[(path, code)])).unwrap();
        let found: Vec<(Kind, &str, &str, usize)> = citations
            .iter()
            .map(|it| (it.kind, it.id.as_str(), it.place.item.as_str(), it.place.line))
            .collect();
        assert_eq!(found, expected, "{path}\n{code}");
        let problems: Vec<String> = problems.into_iter().map(|problem| problem.text).collect();
        assert_eq!(problems, told, "{path}\n{code}");
    }

    #[test]
    fn citations_are_found_at_code_and_at_tests() {
        let code =
            "// spec: QED-HDR-01, QED-X-999\nfn a() {}\nfn b() {\n    // spec: QED-HDR-02\n}\n";
        let cited = [
            (Kind::Code, "QED-HDR-01", "a", 1),
            (Kind::Code, "QED-X-999", "a", 1),
            (Kind::Code, "QED-HDR-02", "b", 4),
        ];
        found("a/src/b.rs", code, &cited, &[]);
        let test =
            "// spec-test: QED-HDR-01\n#[test]\nfn c() {\n    a(\"// spec: QED-HDR-02\");\n}\n";
        found("a/tests/it/b.rs", test, &[(Kind::Test, "QED-HDR-01", "c", 1)], &[]);
    }

    #[test]
    fn a_citation_that_means_nothing_is_told() {
        let code = "// spec: QED-HDR-01\nfn a() {}\n";
        let test = "// spec-test: QED-HDR-01\nfn a() {}\n";
        let no_code = "what stands here is no code that ships: `spec-test` cites for tests";
        found("a/tests/it/b.rs", code, &[], &[no_code]);
        found("a/src/b/tests.rs", code, &[], &[no_code]);
        let no_test = "what stands here is no test: `spec` cites for code";
        found("a/tests/it/b.rs", test, &[], &[no_test]);
        found("a/src/b.rs", "// spec: QED-HDR-01\n", &[], &["the citation stands at nothing"]);
        found("a/src/b.rs", "// spec: HDR-01\nfn a() {}\n", &[], &["cites no clause"]);
    }
}
