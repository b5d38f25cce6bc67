//! Checks that the mutants of qed-fuzz/mutants.toml, which are changes of the source, still fit the
//! source. Makes none of them.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::problem::Problem;
use crate::scratch::Change;
use crate::tree::{File, Tree};

/// The list, and where it is kept.
#[derive(Deserialize)]
struct Mutants {
    mutant: Vec<Mutant>,
}

const PATH: &str = "qed-fuzz/mutants.toml";

#[derive(Deserialize)]
struct Mutant {
    change: Vec<Change>,
}

/// Checks that each change can be made.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let list = tree.file(PATH)?;
    let Mutants { mutant } = toml::from_str(&list.text).context(PATH)?;
    let problem = |change: &Change| {
        let made = tree.file(&change.file).and_then(|file| change.made_in(&file.text));
        Some(Problem::new(PATH, line_of(list, change), made.err()?.to_string()))
    };
    Ok(mutant.iter().flat_map(|mutant| &mutant.change).filter_map(problem).collect())
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
        let mutants = format!(
            "[[mutant]]\n[[mutant.change]]\n{}[[mutant.change]]\n{}[[mutant.change]]\n{}",
            change("x.rs", "gone"),
            change("x.rs", "twice"),
            change("y.rs", "once")
        );
        let files = [(PATH, mutants.as_str()), ("x.rs", "once twice twice")];
        let found = check(&Tree::of(&files)).unwrap();
        let told: Vec<String> = found.iter().map(Problem::to_string).collect();
        assert_eq!(
            told,
            [
                "qed-fuzz/mutants.toml:4: x.rs: 0 times `gone`",
                "qed-fuzz/mutants.toml:8: x.rs: 2 times `twice`",
                "qed-fuzz/mutants.toml:12: y.rs is missing",
            ]
        );
    }
}
