//! A report as a document: the sum for each clause, then what differs and why, then what failed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::shown;
use super::{ClauseRow, Counts, Difference, Report, VectorResult};

/// The report as Markdown.
#[must_use]
pub fn to_markdown(report: &Report) -> String {
    let counts = report.counts();
    let mut text = format!(
        "# {}\n\nWritten by the conformance runner; [README.md](../README.md) says what the columns mean. \
         {} vectors: {} passed, {} failed, {} differ and are explained, {} not applicable.\n\n",
        report.implementation,
        counts.all(),
        counts.passed,
        counts.failed,
        counts.differs,
        counts.not_applicable
    );
    text.push_str("| clause | level | passed | failed | differs | not applicable |\n");
    text.push_str("|---|---|---:|---:|---:|---:|\n");
    for ClauseRow { id, level, counts } in &report.clauses {
        let Counts { passed, failed, known: _, differs, not_applicable } = counts;
        line(
            &mut text,
            format_args!("| {id} | {level} | {passed} | {failed} | {differs} | {not_applicable} |"),
        );
    }
    explained(&mut text, &report.vectors);
    failed(&mut text, &report.vectors);
    text
}

/// The differences by their reason.
fn explained(text: &mut String, vectors: &[VectorResult]) {
    let mut by_reason: BTreeMap<&str, Vec<&VectorResult>> = BTreeMap::new();
    for vector in vectors {
        if let Some(why) = &vector.why {
            by_reason.entry(why).or_default().push(vector);
        }
    }
    if by_reason.is_empty() {
        return;
    }
    text.push_str("\n## What differs, and why\n");
    for (why, vectors) in by_reason {
        line(
            text,
            format_args!("\n### {why}\n\n| vector | field | expected | found |\n|---|---|---|---|"),
        );
        for vector in vectors {
            rows(text, &vector.name, &vector.differs);
        }
    }
}

fn failed(text: &mut String, vectors: &[VectorResult]) {
    let mut failed = vectors.iter().filter(|vector| !vector.failed.is_empty()).peekable();
    if failed.peek().is_none() {
        return;
    }
    text.push_str("\n## What failed\n\n| vector | field | expected | found |\n|---|---|---|---|\n");
    failed.for_each(|vector| rows(text, &vector.name, &vector.failed));
}

fn rows(text: &mut String, name: &str, differences: &[Difference]) {
    for Difference { field, expected, found } in differences {
        let [expected, found] = [expected, found].map(|cell| shown(cell).replace('|', "\\|"));
        line(text, format_args!("| `{name}` | {field} | {expected} | {found} |"));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all");
}
