//! Reports as JUnit XML: a suite for each implementation, a case for each vector.

use std::fmt::Write as _;

use super::{Difference, Report, VectorResult};
use crate::judge::Verdict;

/// The reports as one JUnit document.
#[must_use]
pub fn to_junit(reports: &[Report]) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for report in reports {
        let counts = report.counts();
        let name = escaped(&report.implementation);
        let (tests, failures, skipped) = (counts.all(), counts.failed, counts.not_applicable);
        writeln!(
            xml,
            "<testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">"
        )
        .expect("a string takes all");
        report.vectors.iter().for_each(|vector| xml.push_str(&case(vector)));
        xml.push_str("</testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn case(vector: &VectorResult) -> String {
    let (clauses, name) = (escaped(&vector.clauses.join(" ")), escaped(&vector.name));
    let head = format!("<testcase classname=\"{clauses}\" name=\"{name}\"");
    let body = match vector.outcome {
        Verdict::Passed => return format!("{head}/>\n"),
        Verdict::NotApplicable => "<skipped/>".to_owned(),
        Verdict::Failed => format!(
            "<failure message=\"{}\">{}</failure>",
            escaped(&fields(&vector.failed)),
            escaped(&texts(&vector.failed))
        ),
        Verdict::Known => {
            format!("<system-out>known: {}</system-out>", escaped(&texts(&vector.known)))
        }
        Verdict::Differs => format!(
            "<system-out>{}: {}</system-out>",
            escaped(vector.why.as_deref().unwrap_or_default()),
            escaped(&texts(&vector.differs))
        ),
    };
    format!("{head}>{body}</testcase>\n")
}

fn fields(differences: &[Difference]) -> String {
    let names: Vec<String> = differences.iter().map(|it| it.field.to_string()).collect();
    names.join(", ")
}

fn texts(differences: &[Difference]) -> String {
    let text = |Difference { field, expected, found }: &Difference| {
        format!("{field}: expected {expected}; found {found}")
    };
    differences.iter().map(text).collect::<Vec<String>>().join("\n")
}

/// Text for an attribute or an element, without what XML cannot hold.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            char => out.push(char),
        }
    }
    out
}
