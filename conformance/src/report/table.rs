//! A report for a terminal: the clauses in a table, then what failed.

use std::fmt::Write as _;

use super::{Counts, Difference, Report};
use crate::clause::{Clauses, Level};

/// Characters of an expectation or a finding that are shown.
const SHOWN: usize = 300;

/// The table, the failures, and one line with the sum.
#[must_use]
pub fn to_table(report: &Report, clauses: &Clauses) -> String {
    let mut text = format!(
        "{}\n{:<12} {:<6} {:>6} {:>6} {:>6} {:>8} {:>15}\n",
        report.implementation,
        "clause",
        "level",
        "passed",
        "failed",
        "known",
        "differs",
        "not applicable"
    );
    let mut line = |id: &str, level: &str, counts: Counts| {
        let Counts { passed, failed, known, differs, not_applicable } = counts;
        writeln!(
            text,
            "{id:<12} {level:<6} {passed:>6} {failed:>6} {known:>6} {differs:>8} {not_applicable:>15}"
        )
        .expect("a string takes all");
    };
    for row in &report.clauses {
        line(&row.id, &row.level.to_string(), row.counts);
    }
    line("vectors", "", report.counts());
    text.push_str(&without_vector(report, clauses));
    for vector in report.vectors.iter().filter(|vector| !vector.failed.is_empty()) {
        let clauses = vector.clauses.join(", ");
        writeln!(text, "\nFAILED {} ({clauses})", vector.name).expect("a string takes all");
        for Difference { field, expected, found } in &vector.failed {
            let (expected, found) = (shown(expected), shown(found));
            writeln!(text, "  {field}\n    expected {expected}\n    found    {found}")
                .expect("a string takes all");
        }
    }
    text
}

/// How many clauses the vectors say nothing of.
fn without_vector(report: &Report, clauses: &Clauses) -> String {
    let is_shown = |id: &str| report.clauses.iter().any(|row| row.id == id);
    let silent = clauses.iter().filter(|(id, level)| *level != Level::Info && !is_shown(id));
    let count = silent.count();
    format!(
        "{count} clauses that bind have no vector here: they are about writing or about later versions\n"
    )
}

/// Text that may be very long, cut.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() {
        cut.push_str(" ..");
    }
    cut
}
