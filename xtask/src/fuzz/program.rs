//! One run of a fuzz program: where its inputs are, how long it runs, and what it says at the end.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{folder, pack};

/// Longer inputs say nothing that shorter ones cannot.
const MAX_INPUT_BYTES: usize = 1024;
/// An input that takes as long is a finding, in seconds; the machine may be busy.
pub(super) const TIMEOUT_SECS: u64 = 60;
const MEMORY_MIB: u64 = 2048;

/// A run to be started.
#[derive(Debug)]
pub(super) struct Run {
    secs: u64,
    /// Folders with inputs; what is new goes to the first.
    inputs: Vec<PathBuf>,
    findings: PathBuf,
    log: PathBuf,
}

/// What became of a run.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    executions: u64,
    /// Seconds until the end, or until the finding.
    pub(super) secs: f64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Edges, and how often they were reached in one run, in steps.
    features: u64,
    /// Inputs that reach something that no other does.
    corpus: u64,
    /// The input that was found, if one was.
    pub(super) finding: Option<PathBuf>,
}

impl Run {
    /// On all inputs that are kept for the target, and those that earlier runs left in `work`.
    pub(super) fn of(name: &str, secs: u64, work: &Path) -> Result<Self> {
        let findings = work.join("findings").join(name);
        if findings.exists() {
            fs::remove_dir_all(&findings)?;
        }
        let (new, logs) = (work.join("corpus").join(name), work.join("logs"));
        for folder in [&findings, &new, &logs] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let corpus = work.join("kept").join(name);
        pack::unpack(name, &corpus)?;
        let kept = ["seeds", "regressions"].map(|kind| folder(kind).join(name));
        let inputs = [new, corpus].into_iter().chain(kept).collect();
        Ok(Self { secs, inputs, findings, log: logs.join(name) })
    }

    /// Runs the program to the end.
    pub(super) fn start(&self, program: &Path) -> Result<Outcome> {
        let mut command = Command::new(program);
        command
            .args(self.inputs.iter().filter(|folder| folder.exists()))
            .arg(format!("-max_total_time={}", self.secs))
            .arg(format!("-max_len={MAX_INPUT_BYTES}"))
            .arg(format!("-timeout={TIMEOUT_SECS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-dict={}", folder("qed.dict").display()))
            .arg(format!("-artifact_prefix={}/", self.findings.display()))
            .arg("-print_final_stats=1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&self.log).with_context(|| self.log.display().to_string())?);
        let start = Instant::now();
        let status = command.status().with_context(|| program.display().to_string())?;
        let log = fs::read(&self.log)?;
        let mut outcome = parse(&String::from_utf8_lossy(&log));
        outcome.secs = start.elapsed().as_secs_f64();
        if !status.success() {
            let finding = fs::read_dir(&self.findings)?.next().transpose()?;
            let Some(finding) = finding else {
                bail!("{} ended with {status}: {}", program.display(), self.log.display());
            };
            outcome.finding = Some(finding.path());
        }
        Ok(outcome)
    }
}

/// The numbers of a log: those of the last line that has them.
fn parse(log: &str) -> Outcome {
    let number = |text: &str| {
        let digits = text.trim_start().split(|char: char| !char.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    let mut outcome = Outcome::default();
    for line in log.lines() {
        let after = |word: &str| line.split_once(word).and_then(|(_, rest)| number(rest));
        let count = line.strip_prefix('#').and_then(number);
        for (field, found) in [
            (&mut outcome.executions, count.or_else(|| after("number_of_executed_units:"))),
            (&mut outcome.edges, after(" cov:")),
            (&mut outcome.features, after(" ft:")),
            (&mut outcome.corpus, after(" corp:")),
        ] {
            *field = found.unwrap_or(*field);
        }
    }
    outcome
}

impl Outcome {
    /// What stands above outcomes.
    pub(super) const HEADING: &str = "     runs  seconds  edges  features  inputs";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, secs, edges, features, corpus, finding } = self;
        write!(f, "{executions:>9} {secs:>8.0} {edges:>6} {features:>9} {corpus:>7}")?;
        match finding {
            Some(_) => write!(f, "  A FINDING"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbers_of_a_log_count() {
        let log = "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                   #4096\tpulse  cov: 812 ft: 3000 corp: 300/12Kb lim: 64 exec/s: 99\n\
                   thread panicked at a.rs:1:\n";
        let expected =
            Outcome { executions: 4096, edges: 812, features: 3000, corpus: 300, ..parse("") };
        assert_eq!(parse(log), expected);
        let ended = format!("{log}stat::number_of_executed_units: 8864\n");
        assert_eq!(parse(&ended), Outcome { executions: 8864, ..expected });
    }
}
