//! The clauses joined with what keeps them: code, tests, vectors, or the reason why there is none.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::citations::{self, Kind, Place};
use super::document::{self, Clause, DOCUMENT, Level};
use super::vectors::{self, Vector};
use crate::problem::Problem;
use crate::tree::Tree;

const EXCEPTIONS: &str = "xtask/open-clauses.toml";

/// The whole specification and how it is kept, in the order of the document.
pub(super) struct Register {
    pub(super) entries: Vec<Entry>,
    /// How many vectors there are; one may prove several clauses.
    pub(super) vectors: usize,
}

/// One clause and what keeps it.
pub(super) struct Entry {
    pub(super) clause: Clause,
    pub(super) code: Vec<Place>,
    pub(super) tests: Vec<Place>,
    /// Names of vectors by their family.
    pub(super) vectors: BTreeMap<String, Vec<String>>,
    /// Why there is no code, or no test.
    pub(super) exception: Option<String>,
}

impl Entry {
    /// Whether code keeps it and a test or a vector proves it.
    pub(super) fn is_kept(&self) -> bool {
        !self.code.is_empty() && self.is_proved()
    }

    pub(super) fn is_proved(&self) -> bool {
        !(self.tests.is_empty() && self.vectors.is_empty())
    }
}

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

/// Joins document, code, tests, vectors and exceptions, and tells where they do not fit.
pub(super) fn build(tree: &Tree) -> Result<(Register, Vec<Problem>)> {
    let (clauses, mut problems) = document::parse(&tree.file(DOCUMENT)?.text);
    let entries = clauses.into_iter().map(|clause| Entry {
        clause,
        code: Vec::new(),
        tests: Vec::new(),
        vectors: BTreeMap::new(),
        exception: None,
    });
    let vectors = vectors::find(tree)?;
    let mut register = Register { entries: entries.collect(), vectors: vectors.len() };
    problems.extend(register.cite(tree)?);
    problems.extend(vectors.iter().flat_map(|vector| register.prove(tree, vector)));
    problems.extend(register.excuse(tree)?);
    problems.extend(register.entries.iter().filter_map(judge));
    Ok((register, problems))
}

impl Register {
    fn entry(&mut self, id: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.clause.id == id)
    }

    /// Takes the citations of code and tests.
    fn cite(&mut self, tree: &Tree) -> Result<Vec<Problem>> {
        let (citations, mut problems) = citations::find(tree)?;
        for citation in citations {
            let place = citation.place;
            match (self.entry(&citation.id), citation.kind) {
                (Some(entry), Kind::Code) => entry.code.push(place),
                (Some(entry), Kind::Test) => entry.tests.push(place),
                (None, _) => problems.push(unknown(&place.path, place.line, &citation.id)),
            }
        }
        Ok(problems)
    }

    /// Takes the clauses of one vector.
    fn prove(&mut self, tree: &Tree, vector: &Vector) -> Vec<Problem> {
        let mut problems = Vec::new();
        for id in &vector.clauses {
            match self.entry(id) {
                Some(entry) => {
                    let family = entry.vectors.entry(vector.family().to_owned());
                    family.or_default().push(vector.name.clone());
                }
                None => {
                    let line = tree.file(&vector.path).ok().and_then(|file| {
                        file.lines().find(|(_, text)| text.contains(id)).map(|(line, _)| line)
                    });
                    problems.push(unknown(&vector.path, line.unwrap_or(1), id));
                }
            }
        }
        problems
    }

    /// Takes the exceptions.
    fn excuse(&mut self, tree: &Tree) -> Result<Vec<Problem>> {
        let list: Exceptions = toml::from_str(&tree.file(EXCEPTIONS)?.text).context(EXCEPTIONS)?;
        let mut problems = Vec::new();
        for Exception { id, reason } in list.clause {
            match self.entry(&id) {
                Some(entry) if entry.clause.level == Level::Must => {
                    entry.exception = Some(reason).filter(|reason| !reason.is_empty());
                }
                _ => {
                    let text = format!("{id} is not a clause that must be kept");
                    problems.push(Problem::new(EXCEPTIONS, 1, text));
                }
            }
        }
        Ok(problems)
    }
}

fn unknown(path: &str, line: usize, id: &str) -> Problem {
    Problem::new(path, line, format!("{id} is not a clause of {DOCUMENT}"))
}

/// A clause that must be kept has code and a test or vector, or else a reason.
fn judge(entry: &Entry) -> Option<Problem> {
    let Clause { id, level, line, .. } = &entry.clause;
    let missing = match (entry.code.is_empty(), entry.is_proved()) {
        (true, false) => "neither code nor a test or vector",
        (true, true) => "no code",
        (false, false) => "no test and no vector",
        (false, true) => "",
    };
    let text = match (missing.is_empty(), entry.exception.is_some()) {
        (true, true) => format!("{id} has code and a test or vector: its exception can go"),
        (false, false) if *level == Level::Must => {
            format!("{id} must be kept, and {missing} cites it")
        }
        _ => return None,
    };
    Some(Problem::new(DOCUMENT, *line, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUST: &str = "**QED-HDR-01** (must; base): x, like QED-HDR-02.\n";
    const INFO: &str = "**QED-HDR-01** (info; base): x.\n";
    const CODE: &str = "// spec: QED-HDR-01\nfn a() {}\n";
    const TEST: &str = "// spec-test: QED-HDR-01\n#[test]\nfn a() {}\n";
    const VECTOR: &str = "[[vector]]\nname = \"a\"\nclauses = [\"QED-HDR-01\"]\n";
    const REASON: &str = "[[clause]]\nid = \"QED-HDR-01\"\nreason = \"later\"\n";

    /// Builds the register of these files, the exceptions empty where they are not given.
    #[track_caller]
    fn found(files: &[(&str, &str)], told: &[&str]) {
        let mut files = files.to_vec();
        if files.iter().all(|(path, _)| *path != EXCEPTIONS) {
            files.push((EXCEPTIONS, ""));
        }
        let (_, problems) = build(&Tree::of(&files)).unwrap();
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found, told, "{files:?}");
    }

    #[test]
    fn a_clause_that_must_be_kept_has_code_and_a_test_or_vector_or_a_reason() {
        let (document, code, test) =
            ((DOCUMENT, MUST), ("a/src/b.rs", CODE), ("a/tests/b.rs", TEST));
        let (vector, reason) = (("conformance/vectors/hand/a.toml", VECTOR), (EXCEPTIONS, REASON));
        let open = |missing: &str| {
            format!("docs/format.md:1: QED-HDR-01 must be kept, and {missing} cites it")
        };
        found(&[document, code, test], &[]);
        found(&[document, code, vector], &[]);
        found(&[document, code, reason], &[]);
        found(&[document, reason], &[]);
        found(&[document], &[&open("neither code nor a test or vector")]);
        found(&[document, code], &[&open("no test and no vector")]);
        found(&[document, test, vector], &[&open("no code")]);
        found(
            &[document, code, vector, reason],
            &["docs/format.md:1: QED-HDR-01 has code and a test or vector: its exception can go"],
        );
        found(&[(DOCUMENT, INFO)], &[]);
    }

    #[test]
    fn what_is_no_clause_is_told_wherever_it_is_cited() {
        let other = |text: &str| text.replace("HDR-01", "HDR-09");
        let (code, test, vector, reason) = (other(CODE), other(TEST), other(VECTOR), other(REASON));
        let files = [
            (DOCUMENT, INFO),
            ("a/src/b.rs", &*code),
            ("a/tests/b.rs", &test),
            ("conformance/vectors/made/a.toml", &vector),
            (EXCEPTIONS, &reason),
        ];
        found(
            &files,
            &[
                "a/src/b.rs:1: QED-HDR-09 is not a clause of docs/format.md",
                "a/tests/b.rs:1: QED-HDR-09 is not a clause of docs/format.md",
                "conformance/vectors/made/a.toml:3: QED-HDR-09 is not a clause of docs/format.md",
                "xtask/open-clauses.toml:1: QED-HDR-09 is not a clause that must be kept",
            ],
        );
    }
}
