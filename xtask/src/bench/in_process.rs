//! Reads the times that a bench program of one of the crates prints. The program runs both sides
//! in turn itself and prints one line a round:
//!
//! ```text
//! case=NAME ours_ns=N reference_ns=N again_ns=N
//! ```
//!
//! `again_ns` is the reference once more. Other lines are ignored.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::case::InProcess;
use super::stats::Round;
use crate::{process, repo};

/// Runs a bench program for the case called `name` and returns its rounds.
pub(super) fn time(bench: &InProcess, name: &str) -> Result<Vec<Round>> {
    let mut cargo = process::cargo();
    cargo.args([
        "bench",
        "--locked",
        "--package",
        bench.package,
        "--bench",
        bench.bench,
        "--",
        name,
    ]);
    let printed = process::output(cargo.current_dir(repo::root()))?;
    let rounds = rounds(&printed, name)?;
    if rounds.is_empty() {
        bail!("{} printed no round of {name}", process::line(&cargo));
    }
    Ok(rounds)
}

fn rounds(printed: &str, name: &str) -> Result<Vec<Round>> {
    let lines = printed.lines().filter(|line| field(line, "case") == Some(name));
    lines.map(round).collect()
}

fn round(line: &str) -> Result<Round> {
    let time = |key: &str| -> Result<Duration> {
        let value = field(line, key).with_context(|| format!("no {key} in: {line}"))?;
        Ok(Duration::from_nanos(value.parse().with_context(|| format!("{key} in: {line}"))?))
    };
    Ok(Round { ours: time("ours_ns")?, reference: time("reference_ns")?, again: time("again_ns")? })
}

/// The value of `key=value` among the words of a line.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_the_case_are_read() {
        let printed = "warming up\n\
                       case=a ours_ns=1500 reference_ns=1000 again_ns=1001\n\
                       case=ab ours_ns=1 reference_ns=1 again_ns=1\n";
        let rounds = rounds(printed, "a").unwrap();
        assert_eq!(rounds.len(), 1);
        assert_eq!(rounds[0].ours, Duration::from_nanos(1500));
        assert_eq!(rounds[0].again, Duration::from_nanos(1001));
    }

    #[test]
    fn a_line_without_a_time_is_an_error() {
        assert!(rounds("case=a ours_ns=1 reference_ns=x again_ns=1\n", "a").is_err());
        assert!(rounds("case=a ours_ns=1 reference_ns=1\n", "a").is_err());
    }
}
