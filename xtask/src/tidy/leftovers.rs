//! Text that was meant for a moment: debug prints, notes to come back, tests that are turned off,
//! paths of one machine.

use crate::problem::Problem;
use crate::tree::Tree;

/// What is looked for, split so that this file does not hold it, and what to say.
const LEFTOVERS: [([&str; 2], &str); 9] = [
    (["TO", "DO"], "a note to come back: do it, or say in the documents what is missing"),
    (["FIX", "ME"], "a note to come back: do it, or say in the documents what is missing"),
    (["XX", "X:"], "a note to come back: do it, or say in the documents what is missing"),
    (["dbg", "!("], "a debug print"),
    (["todo", "!("], "a stub"),
    (["unimple", "mented!("], "a stub"),
    (["#[ig", "nore"], "a test that is turned off"),
    (["/ho", "me/"], "a path of one machine"),
    (["/ro", "ot/"], "a path of one machine"),
];

/// Looks through every text file.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.files() {
        for (line, text) in file.lines() {
            for (parts, why) in &LEFTOVERS {
                let word = parts.concat();
                if text.contains(&word) {
                    problems.push(Problem::new(&file.path, line, format!("{word}: {why}")));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leftover_is_found_where_it_is() {
        for (parts, _) in &LEFTOVERS {
            let text = format!("//! A.\nlet a = {};\n", parts.concat());
            let found = check(&Tree::of(&[("a/src/b.rs", &text)]));
            assert_eq!(found.len(), 1, "{parts:?}");
            assert_eq!((found[0].path.as_str(), found[0].line), ("a/src/b.rs", 2));
        }
    }
}
