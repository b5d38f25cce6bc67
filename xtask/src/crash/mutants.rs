//! The mutants: each breaks one rule of the order of writes in a copy of the tree, and what a crash
//! then leaves has to convict it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::program::{Judge, Program};
use crate::repo;
use crate::scratch::{Change, copy_checkout, while_changed};

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
    /// The clause that says otherwise.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test holds it against the document"))]
    clause: String,
    change: Vec<Change>,
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
    for Mutant { name, what, change, .. } in mutants {
        let output = while_changed(&tree, &change, || {
            Program::of_copy(&tree, &work.join("target"))?.output(judge, &work.join(&name))
        });
        let output = output.with_context(|| name.clone())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict = verdict(&said).filter(|_| !output.status.success());
        println!("{name}: {what}\n    {}", verdict.unwrap_or("NOT CAUGHT"));
        if verdict.is_none() {
            survivors.push(name);
        }
    }
    if !survivors.is_empty() {
        bail!("{} states leave nothing wrong of: {}", judge.states, survivors.join(", "));
    }
    Ok(())
}

/// What was wrong with a state: the program's last line but the one about the image.
fn verdict(said: &str) -> Option<&str> {
    said.lines().rev().find_map(|line| line.strip_prefix("wrong: "))
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
    fn every_mutant_can_be_made_and_is_in_the_document() {
        let document = fs::read_to_string(repo::root().join("docs/write-ordering.md")).unwrap();
        let mutants = read().unwrap();
        for mutant in &mutants {
            let change = mutant.change.iter().try_for_each(Change::fits);
            change.unwrap_or_else(|error| panic!("{}: {error:#}", mutant.name));
            let row = document.lines().find(|line| line.contains(&format!("`{}`", mutant.name)));
            let row = row.unwrap_or_else(|| panic!("{} is not in the document", mutant.name));
            assert!(row.contains(&mutant.clause), "{}: another clause", mutant.name);
        }
        assert!(mutants.len() >= 14, "{} mutants", mutants.len());
    }
}
