//! Mutation testing: cargo-mutants changes the libraries in one place at a time, and a test has to
//! fail. Prints the score; fails below the goal, and on a survivor without a reason.
//!
//! Owns the runs; which survivors are explained is asked in `mutants/explained.rs`.

mod explained;
mod outcome;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{process, repo, tools};
use explained::Explained;
use outcome::Outcomes;

const VERSION: &str = "27.1.0";
/// The crates whose tests are measured: what all others build on, and what judges their work.
const CRATES: [&str; 3] = ["qed-spec", "qed-layout", "qed-check"];
/// Per cent of the mutants that tests must find.
const GOAL: u64 = 85;
/// Parts of a run. What is done of an interrupted run is kept part by part.
const SHARDS: usize = 16;
/// Seconds for the tests of a mutant, many times what they need: one that hangs is found too.
const TEST_SECONDS: &str = "60";
/// Address space of a compiler or a test program.
const MEMORY: &str = "--as=6442450944";
const BUILD_SECONDS: &str = "600";

/// Tries the crates named, or all of [`CRATES`]; `--resume` goes on with an interrupted run.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let resume = words.iter().any(|word| word == "--resume");
    let named: Vec<&str> =
        words.iter().map(|word| &**word).filter(|it| *it != "--resume").collect();
    if let Some(other) = named.iter().find(|name| !CRATES.contains(name)) {
        bail!("{other} is not measured: {}", CRATES.join(" or "));
    }
    let program = tools::install("cargo-mutants", VERSION)?;
    let mut failed = Vec::new();
    for name in if named.is_empty() { CRATES.to_vec() } else { named } {
        if !measure(&program, name, resume)? {
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "the tests of {} miss too much", failed.join(" and "));
    Ok(())
}

/// Tries every mutant of one crate; says whether its tests find enough.
fn measure(program: &Path, name: &str, resume: bool) -> Result<bool> {
    let folder = repo::target_dir()?.join("mutants").join(name);
    if !resume && folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut outcomes = Outcomes::default();
    for shard in 0..SHARDS {
        let folder = folder.join(shard.to_string());
        outcomes.add(match finished(&folder)? {
            Some(outcomes) => outcomes,
            None => run_shard(program, name, shard, &folder)?,
        });
    }
    let explained = Explained::read()?;
    let problems = explained.problems(name, &outcomes.survivors, |path, line| {
        let text = fs::read_to_string(repo::root().join(path)).ok()?;
        text.lines().nth(line.checked_sub(1)?).map(|line| line.trim().to_owned())
    });
    problems.iter().for_each(|problem| println!("{problem}"));
    println!("{name}: {outcomes}");
    Ok(problems.is_empty() && outcomes.found_per_cent_at_least(GOAL))
}

/// Runs one part. Cargo-mutants works on a copy of the checkout.
fn run_shard(program: &Path, name: &str, shard: usize, folder: &Path) -> Result<Outcomes> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    // A mutant may well ask for all the memory that there is.
    let mut command = Command::new("prlimit");
    command.arg(MEMORY).arg(program);
    command.args(["mutants", "--package", name, "--shard", &format!("{shard}/{SHARDS}")]);
    command.args(["--timeout", TEST_SECONDS, "--build-timeout", BUILD_SECONDS, "--no-times"]);
    // The first part proves that the tests pass without a mutant.
    command.args(["--baseline", if shard == 0 { "run" } else { "skip" }]);
    command.arg("--output").arg(folder).current_dir(repo::root());
    // The copies of all parts build into one folder, so that the dependencies are built once.
    command.env("CARGO_TARGET_DIR", repo::target_dir()?.join("mutants/build"));
    command.env("CARGO_PROFILE_DEV_DEBUG", "none");
    // It fails when mutants survive; what matters is whether it came to the end.
    let status = command.status().with_context(|| process::line(&command))?;
    let outcomes = finished(folder)?;
    outcomes.with_context(|| format!("{} ended with {status}", process::line(&command)))
}

/// What a part found, if it came to its end.
fn finished(folder: &Path) -> Result<Option<Outcomes>> {
    let path: PathBuf = folder.join("mutants.out/outcomes.json");
    match fs::read_to_string(&path) {
        Ok(text) => Outcomes::parse(&text).with_context(|| path.display().to_string()),
        Err(_) => Ok(None),
    }
}
