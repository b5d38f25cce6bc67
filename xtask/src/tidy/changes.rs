//! Holds the mistakes that are kept as changes of the source, mutants and planted bugs, against the
//! source as it is: whoever moves a line takes them along. Makes none of them.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::problem::Problem;
use crate::scratch::Change;
use crate::tree::{File, Tree};

/// What the lists have that this check asks for.
#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    bug: Vec<Change>,
    #[serde(default)]
    mutant: Vec<Mutant>,
}

#[derive(Deserialize)]
struct Mutant {
    change: Vec<Change>,
}

/// Checks that each change can be made.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for list in tree.files().filter(|file| is_list(&file.path)) {
        let Lists { bug, mutant } =
            toml::from_str(&list.text).with_context(|| list.path.clone())?;
        for change in bug.iter().chain(mutant.iter().flat_map(|mutant| &mutant.change)) {
            let made = tree.file(&change.file).and_then(|file| change.made_in(&file.text));
            if let Err(error) = made {
                problems.push(Problem::new(&list.path, line_of(list, change), error.to_string()));
            }
        }
    }
    Ok(problems)
}

fn is_list(path: &str) -> bool {
    path == "qed-fuzz/mutants.toml"
        || (path.starts_with("qed-fuzz/planted/") && path.ends_with(".toml"))
}

/// The line that names the text which is searched for, or the first.
fn line_of(list: &File, change: &Change) -> usize {
    let first = change.search.lines().next().unwrap_or_default();
    list.lines().find(|(_, line)| line.contains(first)).map_or(1, |(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_text_that_is_not_there_is_told_where_it_is_kept() {
        let change = |file: &str, search: &str| {
            format!("file = \"{file}\"\nsearch = \"{search}\"\nreplace = \"b\"\n")
        };
        let bugs =
            format!("[[bug]]\n{}[[bug]]\n{}", change("x.rs", "once"), change("x.rs", "gone"));
        let mutants = format!(
            "[[mutant]]\n[[mutant.change]]\n{}[[mutant.change]]\n{}",
            change("x.rs", "twice"),
            change("y.rs", "once")
        );
        let files = [
            ("qed-fuzz/planted/a.toml", bugs.as_str()),
            ("qed-fuzz/mutants.toml", mutants.as_str()),
            ("x.rs", "once twice twice"),
        ];
        let found = check(&Tree::of(&files)).unwrap();
        let told: Vec<String> = found.iter().map(Problem::to_string).collect();
        assert_eq!(
            told,
            [
                "qed-fuzz/planted/a.toml:7: x.rs: 0 times `gone`",
                "qed-fuzz/mutants.toml:4: x.rs: 2 times `twice`",
                "qed-fuzz/mutants.toml:8: y.rs is missing",
            ]
        );
    }
}
