//! Survivors that no test can find or none should, each with the reason:
//! `xtask/mutants-explained.toml`. A reason that excuses nothing any more is an error.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::outcome::Mutant;
use crate::repo;

const LIST: &str = "xtask/mutants-explained.toml";

/// The list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explained {
    #[serde(default)]
    line: Vec<Line>,
}

/// A line of source of which some changes are not found.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// From the top of the checkout.
    file: String,
    /// The line itself, without the space around it, so that it may move.
    text: String,
    /// As cargo-mutants names them, without the place.
    changes: Vec<String>,
    reason: String,
}

impl Explained {
    /// Reads the list.
    ///
    /// # Errors
    /// It is not there, not well formed, or has a line without a reason.
    pub(super) fn read() -> Result<Self> {
        Self::parse(&fs::read_to_string(repo::root().join(LIST)).context(LIST)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text).context(LIST)?;
        for line in &list.line {
            ensure!(!line.reason.is_empty(), "{LIST}: no reason for {}", line.text);
        }
        Ok(list)
    }

    /// The survivors of a crate without a reason, and the reasons without a survivor. `source`
    /// gives the line of a file.
    pub(super) fn problems(
        &self,
        name: &str,
        survivors: &[Mutant],
        source: impl Fn(&str, usize) -> Option<String>,
    ) -> Vec<String> {
        let mut unused: Vec<(&Line, &String)> = Vec::new();
        for line in self.line.iter().filter(|line| line.file.split('/').next() == Some(name)) {
            unused.extend(line.changes.iter().map(|change| (line, change)));
        }
        let list = unused.clone();
        let mut problems = Vec::new();
        for mutant in survivors {
            let text = source(&mutant.file, mutant.line).unwrap_or_default();
            let excuses = |(line, change): &(&Line, &String)| {
                line.file == mutant.file && line.text == text && **change == mutant.change
            };
            if !list.iter().any(excuses) {
                problems.push(format!("{mutant} survives: {text}"));
            }
            unused.retain(|it| !excuses(it));
        }
        let stale = |(line, change): (&Line, &String)| {
            format!("{LIST}: nothing survives that is {change} in {}: {}", line.file, line.text)
        };
        problems.extend(unused.into_iter().map(stale));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"
        [[line]]
        file = "a/src/b.rs"
        text = "x + y"
        changes = ["replace + with - in f", "replace + with * in f"]
        reason = "either is right"
    "#;

    fn mutant(line: usize, change: &str) -> Mutant {
        Mutant { file: "a/src/b.rs".into(), line, change: change.into() }
    }

    /// A file whose line 7 is the explained one.
    fn source(_: &str, line: usize) -> Option<String> {
        Some(if line == 7 { "x + y" } else { "z" }.to_owned())
    }

    #[test]
    fn a_survivor_needs_a_reason_and_a_reason_a_survivor() {
        let list = Explained::parse(ONE).unwrap();
        let (minus, times) =
            (mutant(7, "replace + with - in f"), mutant(7, "replace + with * in f"));
        assert_eq!(list.problems("a", &[minus, times], source), [""; 0]);
        let moved = mutant(8, "replace + with - in f");
        let found = list.problems("a", &[mutant(7, "replace + with * in f"), moved], source);
        let expected = [
            "a/src/b.rs:8: replace + with - in f survives: z",
            "xtask/mutants-explained.toml: nothing survives that is replace + with - in f in a/src/b.rs: x + y",
        ];
        assert_eq!(found, expected);
        assert_eq!(list.problems("b", &[], source), [""; 0], "of another crate");
    }

    #[test]
    fn a_reason_is_needed() {
        assert!(Explained::parse(&ONE.replace("either is right", "")).is_err());
    }

    #[test]
    fn every_line_that_is_explained_is_there() {
        let list = Explained::read().unwrap();
        for line in &list.line {
            let source = fs::read_to_string(repo::root().join(&line.file)).unwrap();
            let is_there = source.lines().any(|text| text.trim() == line.text);
            assert!(is_there, "{}: {}", line.file, line.text);
        }
    }
}
