//! How files begin and are laid out: a head in each, no `mod.rs`, no unsafe code outside its home,
//! no operating system where there must be none.

use crate::problem::Problem;
use crate::tree::{File, Tree};

/// The crates that may have `unsafe` code, so whose root does not forbid it.
const UNSAFE_HOMES: [&str; 2] = ["qed-io", "qed-export"];

/// Crates that hold no operating-system call, and the paths of `std` that would be one.
const PURE_CRATES: [&str; 5] =
    ["qed-spec/src/", "qed-layout/src/", "qed-journal/src/", "qed-core/src/", "qed-check/src/"];
const SYSTEM_PATHS: [&str; 4] = ["std::fs", "std::os", "std::net", "std::process"];

/// Checks every Rust file.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    tree.rust().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |line, text: &str| problems.push(Problem::new(&file.path, line, text));
    if !file.text.starts_with("//! ") {
        problem(1, "a file opens with //! and what it owns");
    }
    if file.path.ends_with("/mod.rs") {
        problem(1, "a module lies in foo.rs and foo/, never in mod.rs");
    }
    if is_crate_root(&file.path) && !file.text.contains("#![forbid(unsafe_code)]") {
        problem(1, "the root of a crate forbids unsafe code");
    }
    for (line, text) in file.lines() {
        let text = text.trim_start();
        if text.starts_with("pub use ") && text.ends_with("::*;") {
            problem(line, "what a crate exports is named, not globbed");
        }
        if is_pure(&file.path) && !text.starts_with("//") {
            for path in SYSTEM_PATHS.iter().filter(|path| text.contains(**path)) {
                problem(line, &format!("{path} has no place in a crate without system calls"));
            }
        }
    }
    problems
}

fn is_crate_root(path: &str) -> bool {
    let Some((folder, rest)) = path.split_once('/') else { return false };
    matches!(rest, "src/lib.rs" | "src/main.rs") && !UNSAFE_HOMES.contains(&folder)
}

fn is_pure(path: &str) -> bool {
    PURE_CRATES.iter().any(|folder| path.starts_with(folder)) && !path.ends_with("tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_one(path: &str, text: &str, expected: &[&str]) {
        let found = check(&Tree::of(&[(path, text)]));
        let found: Vec<&str> = found.iter().map(|problem| problem.text.as_str()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_rule_of_layout_is_told() {
        let forbid = "//! A.\n#![forbid(unsafe_code)]\n";
        check_one("a/src/lib.rs", forbid, &[]);
        check_one("a/src/lib.rs", "//! A.\n", &["the root of a crate forbids unsafe code"]);
        check_one("qed-io/src/lib.rs", "//! A.\n", &[]);
        check_one("a/src/b.rs", "use c;\n", &["a file opens with //! and what it owns"]);
        check_one(
            "a/src/b/mod.rs",
            "//! A.\n",
            &["a module lies in foo.rs and foo/, never in mod.rs"],
        );
        check_one(
            "a/src/b.rs",
            "//! A.\npub use c::*;\n",
            &["what a crate exports is named, not globbed"],
        );
    }

    #[test]
    fn system_paths_are_told_in_pure_crates_but_not_in_their_examples() {
        let text = "//! Uses std::fs in words.\n/// std::fs::File\nuse std::fs::File;\n";
        let told = "std::fs has no place in a crate without system calls";
        check_one("qed-core/src/a.rs", text, &[told]);
        check_one("qed-io/src/a.rs", text, &[]);
    }
}
