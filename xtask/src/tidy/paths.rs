//! The files that docs/extending.md sends a maintainer to are there.

use anyhow::Result;

use crate::problem::Problem;
use crate::tree::Tree;

const PAGE: &str = "docs/extending.md";

/// Looks for every path between backquotes, a file's or a folder's.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let page = tree.file(PAGE)?;
    let is_there = |path: &str| {
        tree.files().any(|file| {
            file.path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let paths = page.lines().flat_map(|(line, text)| {
        text.split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| word.contains('/'))
            .map(move |it| (line, it))
    });
    let missing = paths.filter(|(_, path)| !is_there(path));
    Ok(missing.map(|(line, path)| Problem::new(PAGE, line, format!("{path} is missing"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_told() {
        let page = "`a/src/b.rs` `a/src` `word`\n`a/src/b` `a/c.rs`";
        let found = check(&Tree::of(&[(PAGE, page), ("a/src/b.rs", "")])).unwrap();
        let told: Vec<String> = found.iter().map(Problem::to_string).collect();
        assert_eq!(
            told,
            ["docs/extending.md:2: a/src/b is missing", "docs/extending.md:2: a/c.rs is missing"]
        );
    }
}
