//! The fuzzing campaign: builds the fuzz programs of `qed-fuzz`, runs them on their seeds and
//! corpora, and keeps what they find. Knows neither what a target tests nor the format.

mod bugs;
mod build;
mod corpus;
mod finding;
mod program;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::{process, repo};
use build::Build;
use program::{Outcome, Run};

/// How long a target runs unless the caller says.
const DEFAULT_SECS: u64 = 60;
/// A planted bug has to be found in this time.
const PLANTED_SECS: u64 = 600;
const USAGE: &str = "fuzz all|TARGET.. [--secs N] [--planted | --minimise]";

/// What is done with the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Fuzz,
    /// Shows that the bugs of `planted` are found.
    Planted,
    /// Makes the kept corpora of those and of what the last runs have added.
    Minimise,
}

/// Runs the targets; fails if one has a finding, which then is a file of `regressions`.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (what, secs, names) = parse(words)?;
    match what {
        What::Fuzz => campaign(&names, secs.unwrap_or(DEFAULT_SECS)),
        What::Planted => bugs::find(&names, secs.unwrap_or(PLANTED_SECS)),
        What::Minimise => corpus::minimise(&names),
    }
}

/// Writes the seeds of all targets.
pub(crate) fn seeds(words: &[String]) -> Result<()> {
    ensure!(words.is_empty(), "cargo xtask seeds takes no word");
    let mut cargo = process::cargo();
    cargo.args(["run", "--locked", "--package", "qed-fuzz", "--bin", "seeds", "--"]);
    process::run(cargo.arg(folder("seeds")).current_dir(repo::root()))
}

fn parse(words: &[String]) -> Result<(What, Option<u64>, Vec<String>)> {
    let (mut what, mut secs, mut names) = (What::Fuzz, None, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--planted" => what = What::Planted,
            "--minimise" => what = What::Minimise,
            "--secs" => {
                let value = words.next().context(USAGE)?;
                secs = Some(value.parse().with_context(|| format!("--secs {value}"))?);
            }
            option if option.starts_with("--") => bail!("{option}: {USAGE}"),
            name => names.push(name.to_owned()),
        }
    }
    let known = targets()?;
    if names == ["all"] {
        return Ok((what, secs, known));
    }
    ensure!(!names.is_empty(), USAGE);
    for name in &names {
        ensure!(known.contains(name), "there is no target {name}, but {}", known.join(", "));
    }
    Ok((what, secs, names))
}

/// The names of the targets: those of their programs.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder("fuzz_targets")).context("qed-fuzz/fuzz_targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// A folder of qed-fuzz.
fn folder(name: &str) -> PathBuf {
    repo::root().join("qed-fuzz").join(name)
}

fn campaign(names: &[String], secs: u64) -> Result<()> {
    let build = Build::of_checkout()?;
    build.all(names)?;
    let work = repo::target_dir()?.join("fuzz");
    let outcomes = at_once(names, |name| {
        let outcome = Run::of(name, secs, &work)?.start(&build.program(name))?;
        println!("{name:<12} {outcome}");
        Ok((name, outcome))
    })?;
    let mut found = Vec::new();
    for (name, Outcome { finding, .. }) in outcomes {
        if let Some(finding) = finding {
            found.push(finding::keep(name, &build.program(name), &finding)?);
        }
    }
    if !found.is_empty() {
        bail!("findings, which the tests of qed-fuzz replay:\n{}", found.join("\n"));
    }
    Ok(())
}

/// Does the work for each name, on as many threads as there are processors.
fn at_once<'a, R: Send>(
    names: &'a [String],
    work: impl Fn(&'a str) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (left, done) = (Mutex::new(names.iter()), Mutex::new(Vec::new()));
    let next = || left.lock().expect("no thread panics with the list").next();
    thread::scope(|scope| {
        let worker = || -> Result<()> {
            while let Some(name) = next() {
                let result = work(name)?;
                done.lock().expect("no thread panics with the list").push(result);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker has no panic"))
    })?;
    Ok(done.into_inner().expect("no thread panics with the list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(What, Option<u64>, Vec<String>)> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_words_say_what_is_done_with_which_targets() {
        let (what, secs, names) = parsed("all --secs 20").unwrap();
        assert_eq!((what, secs), (What::Fuzz, Some(20)));
        assert!(names.len() >= 8, "{names:?}");
        let header = vec!["header".to_owned()];
        assert_eq!(parsed("--planted header").unwrap(), (What::Planted, None, header));
        for bad in ["", "nothing", "all header", "all --secs", "all --secs x", "all --what"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_name_is_worked_on_once() {
        let names: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        let mut done = at_once(&names, |name| Ok(name.parse::<u64>()?)).unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..50).collect::<Vec<_>>());
        let bad = |name| if name == "7" { bail!("a bad name") } else { Ok(()) };
        assert!(at_once(&names, bad).is_err());
    }
}
