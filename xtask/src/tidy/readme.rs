//! Holds the README's example of the library against the one in the documentation of the crate `qed`,
//! which is compiled and run as a test.

use anyhow::Result;

use crate::problem::Problem;
use crate::tree::Tree;

const README: &str = "README.md";
const CRATE: &str = "qed/src/lib.rs";

/// Compares the first Rust example of each.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let shown = block(tree.file(README)?.text.lines(), "```rust");
    let comments = tree.file(CRATE)?.text.lines().filter_map(|line| line.strip_prefix("//!"));
    let run = block(comments.map(|line| line.strip_prefix(' ').unwrap_or(line)), "```");
    let same = !shown.is_empty() && shown == run;
    let text = format!("the example is not the one that {CRATE} tests");
    Ok(if same { Vec::new() } else { vec![Problem::new(README, 1, text)] })
}

/// The lines of the first block that opens with `fence`, without those that rustdoc hides.
fn block<'a>(lines: impl Iterator<Item = &'a str>, fence: &str) -> Vec<&'a str> {
    let inside = lines.skip_while(|line| *line != fence).skip(1);
    inside.take_while(|line| *line != "```").filter(|line| !line.starts_with("# ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_lines_of_an_example_do_not_count() {
        let code = "//! Words.\n//!\n//! ```\n//! a();\n//!\n//! b();\n//! # Ok(())\n//! ```\n";
        let same = "# R\n\n```sh\nx\n```\n\n```rust\na();\n\nb();\n```\n";
        let found = |readme: &str| check(&Tree::of(&[(README, readme), (CRATE, code)])).unwrap();
        assert_eq!(found(same), []);
        assert_eq!(found("```rust\na();\n```\n").len(), 1);
        assert_eq!(found("no example\n").len(), 1);
    }
}
