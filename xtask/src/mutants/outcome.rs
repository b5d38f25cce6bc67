//! What cargo-mutants says became of each mutant: `outcomes.json`, read.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What became of some mutants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    /// Mutants that made a test fail or hang.
    found: u64,
    /// Those of them that made a test hang: on a machine that is busy elsewhere, ask again.
    hung: u64,
    /// Mutants that do not compile and say nothing about the tests.
    unviable: u64,
    /// Mutants that no test noticed.
    pub(super) survivors: Vec<Mutant>,
}

/// A change of the source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mutant {
    /// From the top of the checkout.
    pub(super) file: String,
    /// Counted from 1.
    pub(super) line: usize,
    /// What is changed into what, without the place.
    pub(super) change: String,
}

/// `outcomes.json`, as much of it as is used here.
#[derive(Deserialize)]
struct Report {
    /// Absent while the run goes on.
    end_time: Option<String>,
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: Summary,
}

#[derive(Deserialize)]
enum Scenario {
    Baseline,
    Mutant(Named),
}

#[derive(Deserialize)]
struct Named {
    /// `FILE:LINE:COLUMN: CHANGE`.
    name: String,
}

#[derive(Deserialize, PartialEq, Eq)]
enum Summary {
    Success,
    CaughtMutant,
    MissedMutant,
    Unviable,
    Failure,
    Timeout,
}

impl Outcomes {
    /// The outcomes in a report; none while its run has not ended.
    ///
    /// # Errors
    /// It is not what cargo-mutants writes, or the tests fail without a mutant.
    pub(super) fn parse(text: &str) -> Result<Option<Self>> {
        let report: Report = serde_json::from_str(text)?;
        if report.end_time.is_none() {
            return Ok(None);
        }
        let mut outcomes = Self::default();
        for outcome in report.outcomes {
            let Scenario::Mutant(mutant) = outcome.scenario else {
                ensure!(outcome.summary == Summary::Success, "the tests fail without a mutant");
                continue;
            };
            match outcome.summary {
                Summary::CaughtMutant => outcomes.found += 1,
                Summary::Timeout => {
                    outcomes.found += 1;
                    outcomes.hung += 1;
                }
                Summary::Unviable | Summary::Failure => outcomes.unviable += 1,
                Summary::MissedMutant | Summary::Success => {
                    outcomes.survivors.push(Mutant::parse(&mutant.name)?);
                }
            }
        }
        Ok(Some(outcomes))
    }

    pub(super) fn add(&mut self, other: Self) {
        self.found += other.found;
        self.hung += other.hung;
        self.unviable += other.unviable;
        self.survivors.extend(other.survivors);
    }

    /// Whether this share of the mutants that compile was found.
    pub(super) fn found_per_cent_at_least(&self, goal: u64) -> bool {
        self.found * 100 >= goal * self.viable()
    }

    fn viable(&self) -> u64 {
        self.found + self.survivors.len() as u64
    }
}

impl Mutant {
    fn parse(name: &str) -> Result<Self> {
        let (place, change) =
            name.split_once(": ").with_context(|| format!("no change: {name}"))?;
        let mut parts = place.split(':');
        let file = parts.next().unwrap_or_default().to_owned();
        let line = parts.next().and_then(|line| line.parse().ok());
        let line = line.with_context(|| format!("no line: {name}"))?;
        Ok(Self { file, line, change: change.to_owned() })
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, viable) = (self.found, self.viable());
        let tenths = (found * 1000).checked_div(viable).unwrap_or(1000);
        write!(f, "{found} of {viable} mutants found, {}.{} per cent", tenths / 10, tenths % 10)?;
        write!(f, " ({} by a test that hung; {} more do not compile)", self.hung, self.unviable)
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(end: &str, outcomes: &[(&str, &str)]) -> String {
        let outcome = |(scenario, summary): &(&str, &str)| {
            format!(
                "{{ \"scenario\": {scenario}, \"summary\": \"{summary}\", \"log_path\": \"x\" }}"
            )
        };
        let outcomes: Vec<String> = outcomes.iter().map(outcome).collect();
        format!("{{ \"end_time\": {end}, \"outcomes\": [{}] }}", outcomes.join(","))
    }

    const ENDED: &str = "\"2026-01-01T00:00:00Z\"";
    const MUTANT: &str = r#"{ "Mutant": { "name": "a/src/b.rs:7:9: replace + with - in f" } }"#;

    #[test]
    fn what_became_of_mutants_is_counted() {
        let text = report(
            ENDED,
            &[
                ("\"Baseline\"", "Success"),
                (MUTANT, "CaughtMutant"),
                (MUTANT, "Timeout"),
                (MUTANT, "Unviable"),
                (MUTANT, "MissedMutant"),
            ],
        );
        let found = Outcomes::parse(&text).unwrap().unwrap();
        let survivor =
            Mutant { file: "a/src/b.rs".into(), line: 7, change: "replace + with - in f".into() };
        let text =
            "2 of 3 mutants found, 66.6 per cent (1 by a test that hung; 1 more do not compile)";
        assert_eq!(found.to_string(), text);
        assert_eq!(survivor.to_string(), "a/src/b.rs:7: replace + with - in f");
        assert_eq!(found, Outcomes { found: 2, hung: 1, unviable: 1, survivors: vec![survivor] });
        assert!(found.found_per_cent_at_least(66) && !found.found_per_cent_at_least(67));
    }

    #[test]
    fn a_run_that_was_cut_off_or_never_right_counts_for_nothing() {
        assert_eq!(Outcomes::parse(&report("null", &[(MUTANT, "CaughtMutant")])).unwrap(), None);
        assert!(Outcomes::parse(&report(ENDED, &[("\"Baseline\"", "Failure")])).is_err());
        assert!(Outcomes::parse("{}").is_err());
    }
}
