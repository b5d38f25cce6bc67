//! The mutants: each breaks one rule of the order of writes in a copy of the tree, and what a crash
//! then leaves has to convict it. A rule that no crash tells of is broken before a test.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::program::{Judge, Program};
use crate::scratch::{Change, copy_checkout, while_changed};
use crate::{process, repo};

/// The file of all mutants.
#[derive(Debug, Deserialize)]
struct Mutants {
    mutant: Vec<Mutant>,
}

/// A rule that is not kept.
#[derive(Debug, Deserialize)]
struct Mutant {
    name: String,
    /// What is wrong, in a few words.
    what: String,
    /// The clause that says otherwise, if it is one of the format.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test holds it against the document"))]
    clause: Option<String>,
    /// The tests of which one has to fail, instead of a state of `cargo xtask crash`.
    test: Option<Tests>,
    change: Vec<Change>,
}

/// Tests of one test program.
#[derive(Debug, Deserialize)]
struct Tests {
    package: String,
    /// `lib` is what a library has in its own files.
    program: String,
    /// What is in their names.
    word: String,
}

/// Builds and runs the mutant of this name, or all; fails if one is not caught.
pub(super) fn catch(name: &str, judge: &Judge, work: &Path) -> Result<()> {
    let mut mutants = read()?;
    mutants.retain(|mutant| name == "all" || mutant.name == name);
    ensure!(!mutants.is_empty(), "there is no mutant {name}");
    let work = work.join("mutants");
    let tree = work.join("tree");
    copy_checkout(&tree)?;
    let mut survivors = Vec::new();
    for Mutant { name, what, change, test, .. } in mutants {
        let verdict = while_changed(&tree, &change, || match &test {
            Some(test) => failed_test(&tree, &work.join("target"), test),
            None => {
                let program = Program::of_copy(&tree, &work.join("target"))?;
                let output = program.output(judge, &work.join(&name))?;
                let said = String::from_utf8_lossy(&output.stdout);
                Ok(verdict(&said).filter(|_| !output.status.success()).map(str::to_owned))
            }
        });
        let verdict = verdict.with_context(|| name.clone())?;
        println!("{name}: {what}\n    {}", verdict.as_deref().unwrap_or("NOT CAUGHT"));
        if verdict.is_none() {
            survivors.push(name);
        }
    }
    if !survivors.is_empty() {
        bail!("{} states or a test find nothing wrong: {}", judge.states, survivors.join(", "));
    }
    Ok(())
}

/// What was wrong with a state: the program's last line but the one about the image.
fn verdict(said: &str) -> Option<&str> {
    said.lines().rev().find_map(|line| line.strip_prefix("wrong: "))
}

/// The first of the tests that fails in a copy; they have to build.
fn failed_test(tree: &Path, target: &Path, tests: &Tests) -> Result<Option<String>> {
    let Tests { package, program, word } = tests;
    let tests = |options: &[&str]| {
        let mut cargo = process::cargo();
        cargo.args(["test", "--quiet", "--locked", "--package", package]);
        let is_lib = program == "lib";
        cargo.args(if is_lib { vec!["--lib"] } else { vec!["--test", program] });
        cargo.args(options).env("CARGO_TARGET_DIR", target).current_dir(tree);
        cargo
    };
    process::output(&mut tests(&["--no-run"]))?;
    let mut cargo = tests(&["--", word]);
    let output = cargo.output().with_context(|| process::line(&cargo))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = said.lines().find(|line| line.contains("FAILED"));
    Ok(failed.filter(|_| !output.status.success()).map(str::to_owned))
}

fn read() -> Result<Vec<Mutant>> {
    let path = repo::root().join("qed-fuzz/mutants.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mutants: Mutants = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(mutants.mutant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_is_in_the_document() {
        let document = fs::read_to_string(repo::root().join("docs/write-ordering.md")).unwrap();
        let tests = fs::read_to_string(repo::root().join("docs/testing.md")).unwrap();
        let mutants = read().unwrap();
        for mutant in &mutants {
            let Some(clause) = &mutant.clause else {
                assert!(mutant.test.is_some(), "{}: neither clause nor test", mutant.name);
                assert!(tests.contains(&format!("`{}`", mutant.name)), "{}", mutant.name);
                continue;
            };
            let row = document.lines().find(|line| line.contains(&format!("`{}`", mutant.name)));
            let row = row.unwrap_or_else(|| panic!("{} is not in the document", mutant.name));
            assert!(row.contains(clause), "{}: another clause", mutant.name);
        }
        assert!(mutants.len() >= 14, "{} mutants", mutants.len());
    }
}
