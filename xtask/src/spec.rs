//! The register of clauses: what docs/format.md asks, and the code, tests and vectors that keep it.
//! Owns what is read and where the forms of the register are written.

mod citations;
mod data;
mod document;
mod html;
mod items;
mod register;
mod render;
mod vectors;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::problem::Problem;
use crate::repo;
use crate::tree::Tree;
use register::Register;

/// The clauses as data, which the conformance runner reads. The page is never committed.
const DATA: &str = "conformance/clauses.toml";

/// Writes the clauses as data and the register as a page, then fails if something is wrong with it;
/// with `--check` the data is only compared.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let only_check = match words {
        [] => false,
        [word] if word == "--check" => true,
        _ => bail!("cargo xtask spec [--check]"),
    };
    let tree = Tree::read()?;
    let (register, mut problems) = register::build(&tree)?;
    if only_check {
        problems.extend(stale(&tree, &register));
    } else {
        write(&repo::root().join(DATA), &data::render(&register))?;
    }
    let page = repo::target_dir()?.join("spec/index.html");
    write(&page, &html::render(&register))?;
    println!("{}: {} clauses", page.display(), register.entries.len());
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => bail!("{count} problems with the clauses"),
    }
}

/// What is wrong with the clauses, and whether the data is stale.
pub(crate) fn problems(tree: &Tree) -> Result<Vec<Problem>> {
    let (register, mut problems) = register::build(tree)?;
    problems.extend(stale(tree, &register));
    Ok(problems)
}

fn stale(tree: &Tree, register: &Register) -> Option<Problem> {
    let is_fresh = tree.file(DATA).is_ok_and(|file| file.text == data::render(register));
    (!is_fresh).then(|| Problem::new(DATA, 1, "stale: cargo xtask spec"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("the page lies in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 4] = [
        ("docs/format.md", "## 2. Header\n\n**QED-HDR-01** (must; base): One `|` two.\n"),
        ("a/src/b.rs", "struct B;\nimpl B {\n    // spec: QED-HDR-01\n    fn c() {}\n}\n"),
        (
            "conformance/vectors/hand/header-reject.toml",
            "[[vector]]\nname = \"v-1\"\nclauses = [\"QED-HDR-01\"]\n",
        ),
        ("xtask/open-clauses.toml", ""),
    ];

    #[test]
    fn the_page_has_the_clause_and_what_keeps_it() {
        let (register, problems) = register::build(&Tree::of(&FILES)).unwrap();
        assert_eq!(problems, []);
        let html = html::render(&register);
        for part in
            ["<section id=\"QED-HDR-01\"", "a/src/b.rs:3</code> B::c", "v-1", "<h2>2. Header"]
        {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn what_is_committed_and_not_what_would_be_written_is_told() {
        let (register, _) = register::build(&Tree::of(&FILES)).unwrap();
        let tree = |data| Tree::of(&[&FILES[..], &[(DATA, data)]].concat());
        let fresh = data::render(&register);
        assert_eq!(problems(&tree(&fresh)).unwrap(), []);
        let told = Problem::new(DATA, 1, "stale: cargo xtask spec");
        assert_eq!(problems(&tree("# Every clause\n")).unwrap(), [told]);
        assert_eq!(problems(&Tree::of(&FILES)).unwrap().len(), 1);
    }
}
