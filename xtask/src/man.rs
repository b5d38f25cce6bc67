//! The man pages: `qed` prints them from its own argument parser, man's own formatter checks them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{process, repo};

/// Makes a page for the program and one for each subcommand in `target/man`.
pub(crate) fn run(_words: &[String]) -> Result<()> {
    let qed = repo::build_qed()?;
    let folder = repo::target_dir()?.join("man");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    process::run(Command::new(qed).args(["help", "--man"]).arg(&folder))?;
    let mut count = 0;
    for entry in fs::read_dir(&folder)? {
        check(&entry?.path())?;
        count += 1;
    }
    ensure!(count > 1, "qed wrote {count} pages, there is one for each subcommand");
    println!("{}: {count} pages", folder.display());
    Ok(())
}

/// A page has the sections that a reader expects, and formats without a warning.
fn check(page: &Path) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION"] {
        ensure!(text.contains(&format!(".SH {section}")), "{}: no {section}", page.display());
    }
    let mut groff = Command::new("groff");
    groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(page).stdin(Stdio::null());
    let said = groff.output().context("groff is missing: Debian package groff-base")?.stderr;
    let said = String::from_utf8_lossy(&said);
    ensure!(said.is_empty(), "{}: {said}", page.display());
    Ok(())
}
