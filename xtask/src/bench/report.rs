//! What is printed and kept of a run: a line a case, and the same as JSON with where it ran.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::case::{Case, Goal, Kind};
use super::commands::Memory;
use super::stats::{Quartiles, Summary, Verdict};
use crate::process;

/// One measured case.
pub(super) struct Row {
    case: &'static Case,
    summary: Summary,
    memory: Option<Memory>,
}

impl Row {
    pub(super) fn new(case: &'static Case, summary: Summary, memory: Option<Memory>) -> Self {
        Self { case, summary, memory }
    }

    /// Whether the case reached its goal, beyond doubt.
    pub(super) fn has_passed(&self) -> bool {
        matches!(self.summary.verdict, Verdict::Passed | Verdict::Reported) && self.keeps_memory()
    }

    fn keeps_memory(&self) -> bool {
        let is_limited = matches!(&self.case.kind, Kind::Command(command) if command.limits_memory);
        !is_limited || self.memory.as_ref().is_some_and(|it| it.ours <= it.reference)
    }

    fn verdict(&self) -> &'static str {
        match self.summary.verdict {
            Verdict::Passed if self.keeps_memory() => "passed",
            Verdict::Passed => "too much memory",
            Verdict::Reported => "reported",
            Verdict::Missed => "missed",
            Verdict::Inconclusive => "inconclusive",
        }
    }

    fn to_json(&self) -> Value {
        let Summary { ours, reference, ratio, itself, rounds, .. } = &self.summary;
        json!({
            "case": self.case.name,
            "goal": goal(self.case.goal),
            "rounds": rounds,
            "ours_ns": nanos(*ours),
            "reference_ns": nanos(*reference),
            "ratio": quartiles(*ratio),
            "reference_against_itself": quartiles(*itself),
            "ours_peak_bytes": self.memory.as_ref().map(|memory| memory.ours),
            "reference_peak_bytes": self.memory.as_ref().map(|memory| memory.reference),
            "verdict": self.verdict(),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { ours, reference, ratio, itself, .. } = &self.summary;
        write!(
            f,
            "{:<24} {:>12.3?} {:>12.3?}  {:.3} ({:.3}..{:.3})  itself {:.3} ({:.3}..{:.3})  goal {:<16} {}",
            self.case.name,
            ours,
            reference,
            ratio.median,
            ratio.lower,
            ratio.upper,
            itself.median,
            itself.lower,
            itself.upper,
            goal(self.case.goal),
            self.verdict(),
        )?;
        match &self.memory {
            Some(Memory { ours, reference }) => {
                write!(f, "  peak {} and {} MiB", ours >> 20, reference >> 20)
            }
            None => Ok(()),
        }
    }
}

fn goal(goal: Goal) -> String {
    match goal {
        Goal::TimeAtMost(limit) => format!("time <= {limit}"),
        Goal::TimeAtMostPlus5Ms(limit) => format!("time <= {limit} + 5 ms"),
        Goal::None => "none".to_owned(),
        Goal::SpeedAtLeast(limit) => format!("speed >= {limit}"),
    }
}

fn quartiles(of: Quartiles) -> Value {
    json!({ "median": of.median, "lower": of.lower, "upper": of.upper })
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The machine, its file system and the reference's version, on one line.
pub(super) fn place(dir: &Path) -> Result<String> {
    let print = |command: &mut Command| process::output(command).map(|it| it.trim().to_owned());
    let cpus = print(&mut Command::new("nproc"))?;
    let kernel = print(Command::new("uname").arg("-sr"))?;
    let disk = print(Command::new("findmnt").args(["-no", "FSTYPE,SOURCE", "--target"]).arg(dir))?;
    let disk = disk.split_whitespace().collect::<Vec<_>>().join(" on ");
    let version = print(Command::new("qemu-img").arg("--version"))?;
    let version = version.lines().next().unwrap_or_default();
    Ok(format!("{cpus} cpus, {kernel}, {disk}, {version}"))
}

/// Writes the rows as JSON.
pub(super) fn write(path: &Path, place: &str, rows: &[Row]) -> Result<()> {
    let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
    let text = serde_json::to_string_pretty(&json!({ "place": place, "cases": rows }))?;
    fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    println!("written: {}", path.display());
    Ok(())
}
