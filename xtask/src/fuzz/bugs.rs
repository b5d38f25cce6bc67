//! The planted bugs: each is put into a copy of the tree, never into the checkout, and its target
//! has to find it from the seeds alone.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::build::Build;
use super::folder;
use super::program::Run;
use crate::repo;
use crate::scratch::{Change, copy_checkout, while_changed};

/// The file of a target.
#[derive(Debug, Deserialize)]
struct Bugs {
    bug: Vec<Bug>,
}

/// A mistake that somebody could make.
#[derive(Debug, Deserialize)]
struct Bug {
    /// What is wrong, in a few words.
    what: String,
    #[serde(flatten)]
    change: Change,
}

/// Plants every bug of the targets, one after the other; fails if one is not found in time.
pub(super) fn find(names: &[String], secs: u64) -> Result<()> {
    let work = repo::target_dir()?.join("fuzz/planted");
    let tree = work.join("tree");
    copy_checkout(&tree)?;
    let build = Build::of(&tree, &work.join("target"))?;
    let mut missed = Vec::new();
    for name in names {
        for (number, bug) in (1..).zip(read(name)?) {
            let outcome = while_changed(&tree, std::slice::from_ref(&bug.change), || {
                build.one(name)?;
                Run::on_seeds(name, secs, &work)?.start(&build.program(name))
            });
            let outcome = outcome.with_context(|| format!("{name} {number}: {}", bug.what))?;
            println!("{name:<12} {number} {outcome}: {}", bug.what);
            if outcome.finding.is_none() {
                missed.push(format!("{name} {number}: {}", bug.what));
            }
        }
    }
    if !missed.is_empty() {
        bail!("not found in {secs} seconds:\n{}", missed.join("\n"));
    }
    Ok(())
}

/// The bugs of a target.
fn read(name: &str) -> Result<Vec<Bug>> {
    let path = folder("planted").join(name).with_extension("toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let bugs: Bugs = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(bugs.bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_five_bugs() {
        for name in super::super::targets().unwrap() {
            let bugs = read(&name).unwrap();
            assert!(bugs.len() >= 5, "{name} has {} bugs", bugs.len());
        }
    }
}
