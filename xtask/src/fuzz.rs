//! The fuzzing campaign: builds the fuzz programs of `qed-fuzz`, runs them on their seeds and
//! corpora, and keeps what they find. Knows neither what a target tests nor the format.

mod build;
mod corpus;
mod finding;
mod pack;
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
const USAGE: &str = "fuzz all|TARGET.. [--secs N] [--jobs N] [--minimise]";

/// What the words of the command line ask for.
#[derive(Debug, PartialEq)]
struct Request {
    what: What,
    names: Vec<String>,
    secs: Option<u64>,
    /// Targets that run at once.
    jobs: usize,
}

/// What is done with the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Fuzz,
    /// Makes the kept corpora of those and of what the last runs have added.
    Minimise,
}

/// Runs the targets; fails if one has a finding, which then is a file of `regressions`.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let Request { what, names, secs, jobs } = parse(words)?;
    match what {
        What::Fuzz => campaign(&names, secs.unwrap_or(DEFAULT_SECS), jobs),
        What::Minimise => corpus::minimise(&names, jobs),
    }
}

/// Writes the seeds of all targets.
pub(crate) fn seeds(words: &[String]) -> Result<()> {
    ensure!(words.is_empty(), "cargo xtask seeds takes no word");
    let mut cargo = process::cargo();
    cargo.args(["run", "--locked", "--package", "qed-fuzz", "--bin", "seeds", "--"]);
    process::run(cargo.arg(folder("seeds")).current_dir(repo::root()))
}

fn parse(words: &[String]) -> Result<Request> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut request = Request { what: What::Fuzz, names: Vec::new(), secs: None, jobs };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().context(USAGE);
        match word.as_str() {
            "--minimise" => request.what = What::Minimise,
            "--secs" => request.secs = Some(value()?.parse().context("--secs")?),
            "--jobs" => request.jobs = value()?.parse().context("--jobs")?,
            option if option.starts_with("--") => bail!("{option}: {USAGE}"),
            name => request.names.push(name.to_owned()),
        }
    }
    let known = targets()?;
    if request.names == ["all"] {
        return Ok(Request { names: known, ..request });
    }
    ensure!(!request.names.is_empty() && request.jobs > 0, USAGE);
    for name in &request.names {
        ensure!(known.contains(name), "there is no target {name}, but {}", known.join(", "));
    }
    Ok(request)
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

fn campaign(names: &[String], secs: u64, jobs: usize) -> Result<()> {
    let build = Build::new()?;
    build.all(names)?;
    let work = repo::target_dir()?.join("fuzz");
    println!("{:<12} {}", "target", Outcome::HEADING);
    let findings = at_once(names, jobs, |name| {
        let outcome = Run::of(name, secs, &work)?.start(&build.program(name))?;
        println!("{name:<12} {outcome}");
        Ok(outcome.finding.map(|finding| (name, finding)))
    })?;
    let mut kept = Vec::new();
    for (name, finding) in findings.into_iter().flatten() {
        kept.push(finding::keep(name, &build.program(name), &finding)?);
    }
    if !kept.is_empty() {
        let replayed = "the tests replay them: cargo test -p qed-fuzz --test targets";
        bail!("findings ({replayed}):\n{}", kept.join("\n"));
    }
    Ok(())
}

/// Does the work for each name, for so many at once.
fn at_once<'a, R: Send>(
    names: &'a [String],
    jobs: usize,
    work: impl Fn(&'a str) -> Result<R> + Sync,
) -> Result<Vec<R>> {
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
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker has no panic"))
    })?;
    Ok(done.into_inner().expect("no thread panics with the list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_words_say_what_is_done_with_which_targets() {
        let all = parsed("all --secs 20").unwrap();
        assert_eq!((all.what, all.secs), (What::Fuzz, Some(20)));
        assert!(all.names.len() >= 8 && all.jobs > 0, "{all:?}");
        let names = vec!["header".to_owned()];
        let expected = Request { what: What::Minimise, names, secs: None, jobs: 3 };
        assert_eq!(parsed("--minimise header --jobs 3").unwrap(), expected);
        for bad in ["", "nothing", "all header", "all --secs", "all --secs x", "all --what"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        assert!(parsed("header --jobs 0").is_err());
    }

    #[test]
    fn each_name_is_worked_on_once() {
        let names: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        let mut done = at_once(&names, 4, |name| Ok(name.parse::<u64>()?)).unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..50).collect::<Vec<_>>());
        let bad = |name| if name == "7" { bail!("a bad name") } else { Ok(()) };
        assert!(at_once(&names, 4, bad).is_err());
    }
}
