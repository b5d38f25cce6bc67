//! The list of hostile cases in SECURITY.md, made from the file that drives their tests.
//!
//! `conformance/hostile.toml` is the one list: the tests build an image for each case in it and fail
//! on a case they do not know, and the table between the markers is rendered from it.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::repo;

/// The list of cases, and the document that shows it.
pub(crate) const LIST: &str = "conformance/hostile.toml";
pub(crate) const DOCUMENT: &str = "SECURITY.md";

const BEGIN: &str = "<!-- begin: hostile cases, written by `cargo xtask security` -->\n";
const END: &str = "<!-- end: hostile cases -->\n";

/// The file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cases {
    #[serde(default)]
    pub(crate) case: Vec<Case>,
}

/// One hostile image, chain or request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What its test calls it: lower case words joined with `-`, never used for another case.
    pub(crate) name: String,
    /// The part that meets it: header, tables, backing, qcow2 and so on; cases of one area are
    /// listed together.
    pub(crate) area: String,
    /// What is hostile about it, one sentence without a full stop.
    pub(crate) what: String,
    /// What the program does by default, one sentence without a full stop.
    pub(crate) default: String,
}

/// Writes the list into SECURITY.md.
pub(crate) fn run(_words: &[String]) -> Result<()> {
    let list = fs::read_to_string(repo::root().join(LIST)).context(LIST)?;
    let path = repo::root().join(DOCUMENT);
    let document = fs::read_to_string(&path).context(DOCUMENT)?;
    fs::write(path, with_list(&document, &list)?).context(DOCUMENT)
}

/// The document with the list between its markers.
///
/// # Errors
/// A marker is missing, or the list is not what it should be.
pub(crate) fn with_list(document: &str, list: &str) -> Result<String> {
    let cases: Cases = toml::from_str(list).context(LIST)?;
    let (before, rest) = document.split_once(BEGIN).context("SECURITY.md has no begin marker")?;
    let (_, after) = rest.split_once(END).context("SECURITY.md has no end marker")?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", render(&cases.case)))
}

fn render(cases: &[Case]) -> String {
    let mut table = format!("{} cases, each with a test.\n\n", cases.len());
    table.push_str(
        "| area | case | what is hostile | what happens by default |\n|---|---|---|---|\n",
    );
    for Case { name, area, what, default } in cases {
        let row = [area, name, what, default].map(|cell| cell.trim().replace('|', "\\|"));
        let [area, name, what, default] = row;
        writeln!(table, "| {area} | `{name}` | {what} | {default} |").expect("a string takes all");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str = r#"
        [[case]]
        name = "l1-past-the-end"
        area = "tables"
        what = "an L1 entry | past the end"
        default = "refused"
    "#;

    #[test]
    fn the_table_replaces_what_stood_between_the_markers() {
        let document = format!("head\n{BEGIN}old\n{END}tail\n");
        let once = with_list(&document, CASE).unwrap();
        assert!(once.starts_with("head\n") && once.ends_with("tail\n") && !once.contains("old"));
        assert!(
            once.contains(
                "| tables | `l1-past-the-end` | an L1 entry \\| past the end | refused |"
            )
        );
        assert_eq!(with_list(&once, CASE).unwrap(), once);
    }

    #[test]
    fn a_missing_marker_or_field_is_an_error() {
        assert!(with_list("head\n", CASE).is_err());
        let document = format!("{BEGIN}{END}");
        assert!(with_list(&document, "[[case]]\nname = \"a\"\n").is_err());
    }
}
