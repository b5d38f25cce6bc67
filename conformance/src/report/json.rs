//! Reports as JSON, a line for each clause and vector so that two can be compared by eye.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::Report;

/// Why a report could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadReportError {
    /// The file cannot be read.
    #[error("the report cannot be read")]
    Read(#[from] io::Error),
    /// It is no report.
    #[error("the file is no report of this program")]
    Form(#[from] serde_json::Error),
}

/// The reports as one JSON document.
#[must_use]
pub fn to_json(reports: &[Report]) -> String {
    let reports: Vec<String> = reports.iter().map(report).collect();
    format!("[{}]\n", reports.join(", "))
}

/// The reports of a file that [`to_json`] wrote.
///
/// # Errors
/// The file cannot be read or is something else.
pub fn read_reports(path: &Path) -> Result<Vec<Report>, ReadReportError> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn report(report: &Report) -> String {
    format!(
        "{{\n\"implementation\": {},\n\"clauses\": {},\n\"vectors\": {}\n}}",
        Value::from(&*report.implementation),
        lines(&report.clauses),
        lines(&report.vectors)
    )
}

fn lines<T: Serialize>(items: &[T]) -> String {
    let json = |item| serde_json::to_string(item).expect("strings, numbers and lists");
    let items: Vec<String> = items.iter().map(json).collect();
    format!("[\n{}\n]", items.join(",\n"))
}
