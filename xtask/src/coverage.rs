//! Line coverage of the libraries by all tests, the corpus that they replay included: runs them
//! under cargo-llvm-cov, prints a table of the crates and fails below a goal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, repo, tools};

const VERSION: &str = "0.9.1";

/// Per cent of the lines that must have run, for the crates that have such a goal.
const GOALS: [(&str, u64); 3] = [("qed-spec", 95), ("qed-check", 95), ("qed-core", 90)];

/// Lines of one crate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lines {
    all: u64,
    covered: u64,
}

/// Runs the tests, leaves the reports in `target/coverage` and compares with the goals.
pub(crate) fn run(_words: &[String]) -> Result<()> {
    let program = tools::install("cargo-llvm-cov", VERSION)?;
    let llvm = llvm_version()?;
    let llvm_cov = |words: &[&str]| -> Result<Command> {
        let mut command = Command::new(&program);
        command.arg("llvm-cov").args(words).current_dir(repo::root());
        for (variable, name) in [("LLVM_COV", "llvm-cov"), ("LLVM_PROFDATA", "llvm-profdata")] {
            command.env(variable, llvm_program(name, &llvm)?);
        }
        Ok(command)
    };
    // xtask links none of the crates, so its tests add nothing.
    let tests = ["--no-report", "--locked", "--workspace", "--exclude", "xtask"];
    process::run(llvm_cov(&tests)?.args(["--lib", "--bins", "--tests"]))?;
    let folder = repo::target_dir()?.join("coverage");
    let lcov = folder.join("lcov.info");
    fs::create_dir_all(&folder)?;
    // A process that a test killed may leave half a profile.
    let report = ["report", "--failure-mode", "all"];
    process::run(llvm_cov(&report)?.arg("--html").arg("--output-dir").arg(&folder))?;
    process::run(llvm_cov(&report)?.arg("--lcov").arg("--output-path").arg(&lcov))?;
    println!("every line: {}", folder.join("html/index.html").display());
    judge(&lines_of_crates(&fs::read_to_string(lcov)?, repo::root())?)
}

/// The major version of the compiler's LLVM, whose tools alone read what it writes.
fn llvm_version() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = process::output(Command::new(rustc).arg("-vV"))?;
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|version| version.split('.').next());
    Ok(major.context("rustc -vV names no LLVM version")?.to_owned())
}

/// The name of an LLVM program of this version.
fn llvm_program(name: &str, version: &str) -> Result<String> {
    let program = format!("{name}-{version}");
    process::output(Command::new(&program).arg("--version"))
        .with_context(|| format!("{program} is missing: Debian package llvm-{version}"))?;
    Ok(program)
}

/// The lines of every crate, by the folder it lies in, of a report in lcov's format: for each file
/// `SF:` and its path, then among others `LF:` and its lines, `LH:` and those that were run.
fn lines_of_crates(lcov: &str, root: &Path) -> Result<BTreeMap<String, Lines>> {
    let mut crates = BTreeMap::<String, Lines>::new();
    let mut current = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            current = Some(crates.entry(folder(Path::new(path), root)?).or_default());
        }
        let (found, hit) = (line.strip_prefix("LF:"), line.strip_prefix("LH:"));
        let Some(number) = found.or(hit) else { continue };
        let number: u64 = number.parse().with_context(|| format!("no number of lines: {line}"))?;
        let lines = current.as_mut().with_context(|| format!("no file before {line}"))?;
        *if found.is_some() { &mut lines.all } else { &mut lines.covered } += number;
    }
    Ok(crates)
}

/// The folder of the checkout that the file lies in.
fn folder(path: &Path, root: &Path) -> Result<String> {
    let folder = path.strip_prefix(root).ok().and_then(|path| path.iter().next());
    let folder = folder.with_context(|| format!("{} is not ours", path.display()))?;
    Ok(folder.to_string_lossy().into_owned())
}

/// Prints the table; fails if a crate is below its goal.
fn judge(crates: &BTreeMap<String, Lines>) -> Result<()> {
    let mut table = String::from("crate          lines  covered  per cent  goal\n");
    let mut below = Vec::new();
    for (name, lines) in crates {
        let goal = GOALS.iter().find(|(crate_name, _)| crate_name == name).map(|(_, goal)| *goal);
        if goal.is_some_and(|goal| lines.covered * 100 < goal * lines.all) {
            below.push(name.as_str());
        }
        let (all, covered) = (lines.all, lines.covered);
        let goal = goal.map_or_else(String::new, |goal| goal.to_string());
        let share = per_cent(*lines);
        writeln!(table, "{name:<12} {all:>7} {covered:>8} {share:>9} {goal:>5}")?;
    }
    print!("{table}");
    if let Some((missing, _)) = GOALS.iter().find(|(name, _)| !crates.contains_key(*name)) {
        bail!("{missing} is not in the report");
    }
    if !below.is_empty() {
        bail!("below the goal: {}", below.join(", "));
    }
    Ok(())
}

/// Hundredths rounded down, so that what is below a goal never looks as if it met it.
fn per_cent(lines: Lines) -> String {
    let hundredths = (lines.covered * 10_000).checked_div(lines.all).unwrap_or(10_000);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, all: u64, covered: u64) -> String {
        format!("SF:{path}\nFN:3,name\nDA:7,1\nLF:{all}\nLH:{covered}\nend_of_record\n")
    }

    fn crates(files: &[String]) -> Result<BTreeMap<String, Lines>> {
        lines_of_crates(&files.concat(), Path::new("/top"))
    }

    #[test]
    fn the_files_of_a_crate_are_added_up() {
        let files =
            [file("/top/a/src/x.rs", 10, 7), file("/top/b/y.rs", 1, 1), file("/top/a/z.rs", 5, 5)];
        let expected = [("a", Lines { all: 15, covered: 12 }), ("b", Lines { all: 1, covered: 1 })];
        let expected = expected.map(|(name, lines)| (name.to_owned(), lines)).into();
        assert_eq!(crates(&files).unwrap(), expected);
        for bad in
            [file("/elsewhere/a/x.rs", 1, 1), "LF:1".to_owned(), "SF:/top/a\nLH:x".to_owned()]
        {
            assert!(crates(std::slice::from_ref(&bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_goal_is_met_to_the_line() {
        let with_spec = |covered| {
            let files = [
                file("/top/qed-spec/a.rs", 1000, covered),
                file("/top/qed-check/a.rs", 100, 95),
                file("/top/qed-core/a.rs", 100, 90),
                file("/top/qed-io/a.rs", 100, 0),
            ];
            judge(&crates(&files).unwrap())
        };
        assert!(with_spec(950).is_ok());
        assert_eq!(with_spec(949).unwrap_err().to_string(), "below the goal: qed-spec");
        let only = crates(&[file("/top/qed-spec/a.rs", 1, 1)]).unwrap();
        assert_eq!(judge(&only).unwrap_err().to_string(), "qed-check is not in the report");
    }

    #[test]
    fn a_share_is_rounded_down() {
        for (covered, all, expected) in [
            (0, 3, "0.00"),
            (2, 3, "66.66"),
            (3, 3, "100.00"),
            (0, 0, "100.00"),
            (9999, 10001, "99.98"),
        ] {
            assert_eq!(per_cent(Lines { all, covered }), expected);
        }
    }
}
