//! Holds docs/format.md to its own shape, and this crate to the clauses that it alone can keep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Areas whose every "must" this crate implements and tests.
const OWN_AREAS: [&str; 5] = ["HDR", "FEAT", "TBL", "MAP", "SB"];

/// Clauses of those areas that are about what a program writes when, which bytes cannot show.
const ELSEWHERE: [&str; 10] = [
    "QED-FEAT-03",
    "QED-FEAT-08",
    "QED-FEAT-10",
    "QED-HDR-09",
    "QED-MAP-04",
    "QED-SB-12",
    "QED-TBL-06",
    "QED-TBL-07",
    "QED-TBL-08",
    "QED-TBL-10",
];

#[derive(Debug)]
struct Clause {
    level: String,
    source: String,
    text: String,
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every clause of the document; a paragraph that begins like one must be one.
fn clauses() -> BTreeMap<String, Clause> {
    let mut clauses = BTreeMap::new();
    for paragraph in document().split("\n\n").filter(|text| text.starts_with("**QED-")) {
        let paragraph = paragraph.trim_end().replace('\n', " ");
        let parts = paragraph.strip_prefix("**").and_then(|rest| {
            let (id, rest) = rest.split_once("** (")?;
            let (bracket, text) = rest.split_once("): ")?;
            let (level, source) = bracket.split_once("; ")?;
            Some((id, level, source, text))
        });
        let (id, level, source, text) =
            parts.unwrap_or_else(|| panic!("not the shape of a clause: {paragraph}"));
        let clause = Clause { level: level.into(), source: source.into(), text: text.into() };
        assert!(clauses.insert(id.to_owned(), clause).is_none(), "{id} comes twice");
    }
    clauses
}

/// The ids in comments with this mark in the Rust files of a folder.
fn cited(folder: &str, mark: &str) -> BTreeSet<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut ids = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the crate") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).expect("a source file");
            for list in text.lines().filter_map(|line| line.trim_start().strip_prefix(mark)) {
                ids.extend(list.split(',').map(|id| id.trim().to_owned()));
            }
        }
    }
    ids
}

#[test]
fn every_clause_has_an_area_a_level_a_source_and_a_text() {
    let clauses = clauses();
    assert!(clauses.len() > 100, "{} clauses", clauses.len());
    for (id, clause) in clauses {
        let (area, number) = id["QED-".len()..].split_once('-').unwrap_or_else(|| panic!("{id}"));
        assert!(area.bytes().all(|byte| byte.is_ascii_uppercase()), "{id}");
        assert!(number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        assert!(["must", "should", "info"].contains(&clause.level.as_str()), "{id}");
        assert!(["base", "qemu", "own"].contains(&clause.source.as_str()), "{id}");
        assert!(clause.text.ends_with('.'), "{id}: {}", clause.text);
    }
}

#[test]
fn every_must_of_our_areas_has_code_and_a_test() {
    let (code, tests) = (cited("src", "// spec: "), cited("tests", "// spec-test: "));
    let mut missing = Vec::new();
    let clauses = clauses();
    for id in ELSEWHERE {
        assert!(clauses.contains_key(id), "{id} is not a clause");
    }
    for (id, _) in clauses.into_iter().filter(|(_, clause)| clause.level == "must") {
        let ours = OWN_AREAS.iter().any(|area| id.starts_with(&format!("QED-{area}-")));
        if ours && !ELSEWHERE.contains(&id.as_str()) && !(code.contains(&id) && tests.contains(&id))
        {
            missing.push(id);
        }
    }
    assert!(missing.is_empty(), "without code or test: {missing:?}");
}
