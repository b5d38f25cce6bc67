//! The register of clauses: what docs/format.md asks, and the code, tests and vectors that keep it.
//! Owns what is read and where the forms of the register are written.

mod citations;
mod data;
mod document;
mod html;
mod items;
mod markdown;
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

/// A form of the register.
type Render = fn(&Register) -> String;

/// What is committed, by its path and what renders it.
const COMMITTED: [(&str, Render); 2] =
    [("conformance/clauses.toml", data::render), ("docs/traceability.md", markdown::render)];

/// Writes the register and its pages, then fails if something is wrong with it; with `--check`,
/// also if what is committed had to be written.
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
        for (path, render) in COMMITTED {
            write(&repo::root().join(path), &render(&register))?;
        }
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

/// What is wrong with the clauses, and what is committed of the register and stale.
pub(crate) fn problems(tree: &Tree) -> Result<Vec<Problem>> {
    let (register, mut problems) = register::build(tree)?;
    problems.extend(stale(tree, &register));
    Ok(problems)
}

fn stale(tree: &Tree, register: &Register) -> impl Iterator<Item = Problem> {
    COMMITTED.into_iter().filter_map(|(path, render)| {
        let is_fresh = tree.file(path).is_ok_and(|file| file.text == render(register));
        (!is_fresh).then(|| Problem::new(path, 1, "stale: cargo xtask spec"))
    })
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
    fn every_form_has_the_clause_and_what_keeps_it() {
        let (register, problems) = register::build(&Tree::of(&FILES)).unwrap();
        assert_eq!(problems, []);
        let row = "| **QED-HDR-01**<br>must, base | One `\\|` two. | `a/src/b.rs` `B::c` | \
                   vectors `header-reject` |\n";
        assert!(markdown::render(&register).ends_with(row));
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
        let committed = COMMITTED.map(|(path, render)| (path, render(&register)));
        let [data, markdown] = &committed;
        let tree = |markdown| {
            let more = [(data.0, &*data.1), ("docs/traceability.md", markdown)];
            Tree::of(&[&FILES[..], &more[..]].concat())
        };
        assert_eq!(problems(&tree(&markdown.1)).unwrap(), []);
        let told = Problem::new("docs/traceability.md", 1, "stale: cargo xtask spec");
        assert_eq!(problems(&tree("# Traceability\n")).unwrap(), [told]);
        assert_eq!(problems(&Tree::of(&FILES)).unwrap().len(), 2);
    }
}
