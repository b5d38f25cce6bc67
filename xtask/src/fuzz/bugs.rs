//! The planted bugs: each is put into a copy of the tree, never into the checkout, and its target
//! has to find it from the seeds alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::build::Build;
use super::folder;
use super::program::Run;
use crate::{process, repo};

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
    /// The file it is in.
    file: PathBuf,
    /// Text of that file, which occurs once.
    search: String,
    /// What stands there instead.
    replace: String,
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
            let file = tree.join(&bug.file);
            let sound = fs::read_to_string(&file)?;
            fs::write(&file, bug.planted_in(&sound)?)?;
            let outcome = build
                .one(name)
                .and_then(|()| Run::on_seeds(name, secs, &work)?.start(&build.program(name)));
            fs::write(&file, sound)?;
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

impl Bug {
    /// The text of its file with the bug in it.
    fn planted_in(&self, text: &str) -> Result<String> {
        let count = text.matches(&self.search).count();
        ensure!(count == 1, "{}: {count} times `{}`", self.file.display(), self.search);
        ensure!(self.search != self.replace, "{}: no bug", self.what);
        Ok(text.replacen(&self.search, &self.replace, 1))
    }
}

/// The bugs of a target.
fn read(name: &str) -> Result<Vec<Bug>> {
    let path = folder("planted").join(name).with_extension("toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let bugs: Bugs = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(bugs.bug)
}

/// Makes `tree` a copy of the files that git knows or would add. Files that are there already and
/// have not changed are left alone, so that little is compiled again.
fn copy_checkout(tree: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = process::output(git.current_dir(repo::root()))?;
    let mut files = BTreeMap::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // A file that was removed and not committed is listed, too.
        if let Ok(bytes) = fs::read(repo::root().join(path)) {
            files.insert(path, bytes);
        }
    }
    for (path, bytes) in files {
        let copy = tree.join(path);
        if fs::read(&copy).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(copy.parent().unwrap_or(tree))?;
        fs::write(&copy, bytes).with_context(|| copy.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_five_bugs_that_can_be_planted() {
        for name in super::super::targets().unwrap() {
            let bugs = read(&name).unwrap();
            assert!(bugs.len() >= 5, "{name} has {} bugs", bugs.len());
            for bug in bugs {
                let text = fs::read_to_string(repo::root().join(&bug.file)).unwrap();
                bug.planted_in(&text).unwrap();
            }
        }
    }
}
