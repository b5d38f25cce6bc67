//! Holds the clauses of docs/format.md and the code to each other: `// spec: ID` stands at the code
//! that keeps a rule, `// spec-test: ID` at the test that proves it. A clause has one place in the
//! document, which begins `**ID** (LEVEL; SOURCE): `; one that must be kept has code and a test, or
//! a line with the reason in `xtask/open-clauses.toml`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::problem::Problem;
use crate::tree::Tree;

const DOCUMENT: &str = "docs/format.md";
const EXCEPTIONS: &str = "xtask/open-clauses.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    clause: Vec<Exception>,
}

/// A clause without code or without a test, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    id: String,
    reason: String,
}

/// A clause of the document.
struct Clause {
    line: usize,
    must: bool,
}

/// Compares the document, the code and the list of exceptions.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let (clauses, mut problems) = clauses(tree)?;
    let (mut in_code, mut in_tests) = (BTreeSet::new(), BTreeSet::new());
    for file in tree.rust() {
        for (line, text) in file.lines() {
            let Some((is_test, list)) = citation(text) else { continue };
            for id in ids(list) {
                if !clauses.contains_key(id) {
                    let text = format!("{id} is not a clause of {DOCUMENT}");
                    problems.push(Problem::new(&file.path, line, text));
                }
                if is_test { &mut in_tests } else { &mut in_code }.insert(id);
            }
        }
    }
    let exceptions: Exceptions =
        toml::from_str(&tree.file(EXCEPTIONS)?.text).context(EXCEPTIONS)?;
    let mut excused: BTreeSet<&str> = BTreeSet::new();
    excused.extend(exceptions.clause.iter().filter(|it| !it.reason.is_empty()).map(|it| &*it.id));
    for (id, clause) in clauses.iter().filter(|(_, clause)| clause.must) {
        let is_kept = in_code.contains(id) && in_tests.contains(id);
        if is_kept == excused.remove(id) {
            let text = match is_kept {
                true => format!("{id} has code and a test: its exception can go"),
                false => format!("{id} must be kept, and has no code or no test that cites it"),
            };
            problems.push(Problem::new(DOCUMENT, clause.line, text));
        }
    }
    problems.extend(
        excused.into_iter().map(|id| {
            Problem::new(EXCEPTIONS, 1, format!("{id} is not a clause that must be kept"))
        }),
    );
    Ok(problems)
}

/// The clauses of the document, and the places where it breaks its own form.
fn clauses(tree: &Tree) -> Result<(BTreeMap<&str, Clause>, Vec<Problem>)> {
    let mut clauses = BTreeMap::new();
    let mut problems = Vec::new();
    for (line, text) in tree.file(DOCUMENT)?.lines() {
        let Some((id, level)) = definition(text) else { continue };
        if !["must", "should", "info"].contains(&level) {
            problems.push(Problem::new(DOCUMENT, line, format!("{id} has no level")));
        }
        if clauses.insert(id, Clause { line, must: level == "must" }).is_some() {
            problems.push(Problem::new(DOCUMENT, line, format!("{id} is defined twice")));
        }
    }
    Ok((clauses, problems))
}

/// The clause that a line of the document begins, and its level.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (id, rest) = line.strip_prefix("**")?.split_once("**")?;
    let level =
        rest.strip_prefix(" (").and_then(|rest| rest.split_once(';')).map(|(level, _)| level);
    is_id(id).then_some((id, level.unwrap_or_default()))
}

/// The clauses that a line of code cites, and whether it is a test that does.
fn citation(line: &str) -> Option<(bool, &str)> {
    let (_, comment) = line.split_once("// spec")?;
    match comment.strip_prefix("-test:") {
        Some(list) => Some((true, list)),
        None => Some((false, comment.strip_prefix(':')?)),
    }
}

/// The words of a text that look like a clause id: QED-AREA-NUMBER.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| is_id(word))
}

fn is_id(word: &str) -> bool {
    let Some((area, number)) = word.strip_prefix("QED-").and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    let is_area = !area.is_empty() && area.bytes().all(|byte| byte.is_ascii_uppercase());
    is_area && number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A comment, in two parts so that this file cites nothing.
    fn citing(kind: &str, ids: &str) -> String {
        format!("// {kind}: {ids}\n")
    }

    #[track_caller]
    fn found(document: &str, code: &str, exceptions: &str, expected: &[&str]) {
        let files = [(DOCUMENT, document), ("a/src/b.rs", code), (EXCEPTIONS, exceptions)];
        let found = check(&Tree::of(&files)).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    const ONE: &str = "**QED-HDR-01** (must; base): x, like QED-HDR-02.\n";
    const EXCUSED: &str = "[[clause]]\nid = \"QED-HDR-01\"\nreason = \"later\"\n";

    #[test]
    fn a_citation_of_no_clause_is_told() {
        let info = "**QED-HDR-01** (info; base): x\n";
        found(info, &citing("spec", "QED-HDR-01"), "", &[]);
        found(
            info,
            &format!("x();\n{}", citing("spec-test", "QED-HDR-01, QED-HDR-02")),
            "",
            &["a/src/b.rs:2: QED-HDR-02 is not a clause of docs/format.md"],
        );
    }

    #[test]
    fn a_clause_that_must_be_kept_has_code_and_a_test_or_a_reason() {
        let code = citing("spec", "QED-HDR-01");
        let both = format!("{code}{}", citing("spec-test", "QED-HDR-01"));
        found(ONE, &both, "", &[]);
        found(ONE, &code, EXCUSED, &[]);
        found(
            ONE,
            &code,
            "",
            &[
                "docs/format.md:1: QED-HDR-01 must be kept, and has no code or no test that cites it",
            ],
        );
        found(
            ONE,
            &both,
            EXCUSED,
            &["docs/format.md:1: QED-HDR-01 has code and a test: its exception can go"],
        );
        found(
            "",
            "",
            EXCUSED,
            &["xtask/open-clauses.toml:1: QED-HDR-01 is not a clause that must be kept"],
        );
    }

    #[test]
    fn a_clause_has_one_definition_and_a_level() {
        let twice = "**QED-HDR-01** (info; base): x\n\n**QED-HDR-01** (info; own): y\n";
        found(twice, "", "", &["docs/format.md:3: QED-HDR-01 is defined twice"]);
        found("**QED-HDR-01**: x\n", "", "", &["docs/format.md:1: QED-HDR-01 has no level"]);
    }

    #[test]
    fn an_id_has_an_area_and_two_digits() {
        let text = "QED-HDR-01 QED-X-123. (QED-CHK-07) QED-hdr-01 QED-HDR-1 QED-HDR qed-spec";
        let found: Vec<&str> = ids(text).collect();
        assert_eq!(found, ["QED-HDR-01", "QED-X-123", "QED-CHK-07"]);
    }
}
