//! Holds the clause ids in the code against docs/format.md: `// spec: ID` at the code that keeps a
//! rule, `// spec-test: ID` at the test that proves it. A clause has one place in the document,
//! which begins `**ID** (`.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Problem;
use super::tree::Tree;

const DOCUMENT: &str = "docs/format.md";

/// Finds clauses that are defined twice and citations of clauses that are not defined.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut defined = BTreeSet::new();
    for (line, text) in tree.file(DOCUMENT)?.lines() {
        if let Some(id) = definition(text)
            && !defined.insert(id)
        {
            problems.push(Problem::new(DOCUMENT, line, format!("{id} is defined twice")));
        }
    }
    for file in tree.rust() {
        for (line, text) in file.lines() {
            for id in cited(text).filter(|id| !defined.contains(id)) {
                let text = format!("{id} is not a clause of {DOCUMENT}");
                problems.push(Problem::new(&file.path, line, text));
            }
        }
    }
    Ok(problems)
}

/// The clause that a line of the document begins.
fn definition(line: &str) -> Option<&str> {
    let (id, _) = line.strip_prefix("**")?.split_once("** (")?;
    is_id(id).then_some(id)
}

/// The clause ids that a line of code cites, in a comment that begins with `spec:` or `spec-test:`.
fn cited(line: &str) -> impl Iterator<Item = &str> {
    let comment = line.split_once("// spec").map(|(_, rest)| rest);
    let list = comment.filter(|rest| rest.starts_with(':') || rest.starts_with("-test:"));
    list.into_iter().flat_map(ids)
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
    fn found(document: &str, code: &str, expected: &[&str]) {
        let tree = Tree::of(&[(DOCUMENT, document), ("a/src/b.rs", code)]);
        let found: Vec<String> = check(&tree).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_citation_of_no_clause_is_told() {
        let document = "**QED-HDR-01** (must; base): x, like QED-HDR-02.\n";
        found(document, &citing("spec", "QED-HDR-01"), &[]);
        found(
            document,
            &citing("spec", "QED-HDR-01, QED-HDR-02"),
            &["a/src/b.rs:1: QED-HDR-02 is not a clause of docs/format.md"],
        );
        found(
            document,
            &format!("x();\n{}", citing("spec-test", "QED-MAP-98")),
            &["a/src/b.rs:2: QED-MAP-98 is not a clause of docs/format.md"],
        );
    }

    #[test]
    fn a_clause_has_one_definition() {
        let twice = "**QED-HDR-01** (must; base): x\n\n**QED-HDR-01** (must; own): y\n";
        found(twice, "", &["docs/format.md:3: QED-HDR-01 is defined twice"]);
    }

    #[test]
    fn an_id_has_an_area_and_two_digits() {
        let text = "QED-HDR-01 QED-X-123. (QED-CHK-07) QED-hdr-01 QED-HDR-1 QED-HDR qed-spec";
        let found: Vec<&str> = ids(text).collect();
        assert_eq!(found, ["QED-HDR-01", "QED-X-123", "QED-CHK-07"]);
    }
}
