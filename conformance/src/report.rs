//! What a run came to: each vector with its fields, and the sum for each clause. Owns the data;
//! how it is written down is for the modules below.

mod markdown;
mod table;

pub use markdown::to_markdown;
pub use table::to_table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::clause::{Clauses, Level};
use crate::judge::{Field, FieldResult, Verdict};
use crate::vector::{FREE_IS_LEAKED, Vector};

/// What one implementation made of the vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The implementation.
    pub implementation: String,
    /// Every clause that a vector is about, in order.
    pub clauses: Vec<ClauseRow>,
    /// Every vector, in order.
    pub vectors: Vec<VectorResult>,
}

/// What the vectors of a clause came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClauseRow {
    /// Its id.
    pub id: String,
    /// How much it binds.
    pub level: Level,
    /// Vectors of each outcome.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Vectors by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All that could be asked was as expected.
    pub passed: u64,
    /// Something was not.
    pub failed: u64,
    /// Something was not, as in the report that was accepted before.
    pub known: u64,
    /// Something was not, as QEMU is known to differ.
    pub differs: u64,
    /// Nothing could be asked.
    pub not_applicable: u64,
}

/// What a vector came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorResult {
    /// Its name.
    pub name: String,
    /// The clauses that it is about.
    pub clauses: Vec<String>,
    /// The worst of its fields.
    pub outcome: Verdict,
    /// The fields that were as expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Field>,
    /// The fields that the implementation cannot be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_applicable: Vec<Field>,
    /// The fields that were not as expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Difference>,
    /// Those of them that were so in the report that was accepted before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<Difference>,
    /// The fields in which QEMU is known to differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Difference>,
    /// Why QEMU differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A field that was not as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The field.
    pub field: Field,
    /// What the vector expects.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Report {
    pub(crate) fn new(
        implementation: &str,
        clauses: &Clauses,
        results: Vec<(&Vector, Vec<FieldResult>)>,
    ) -> Self {
        let mut vectors: Vec<VectorResult> =
            results.into_iter().map(|(vector, fields)| VectorResult::new(vector, fields)).collect();
        vectors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut report =
            Self { implementation: implementation.to_owned(), clauses: Vec::new(), vectors };
        report.count(clauses);
        report
    }

    /// Takes failures that `before` has, too, for known. Returns those of `before` that are gone,
    /// as vector and field.
    pub fn accept(&mut self, before: &Self, clauses: &Clauses) -> Vec<(String, Field)> {
        let mut old: BTreeMap<&str, &VectorResult> =
            before.vectors.iter().map(|vector| (&*vector.name, vector)).collect();
        let mut gone = Vec::new();
        for vector in &mut self.vectors {
            let Some(old) = old.remove(&*vector.name) else { continue };
            let accepted = |it: &Difference| old.failed.contains(it) || old.known.contains(it);
            let (known, failed) =
                std::mem::take(&mut vector.failed).into_iter().partition(accepted);
            (vector.known, vector.failed) = (known, failed);
            let is_gone = |it: &&Difference| !vector.known.contains(it);
            gone.extend(
                old.failed
                    .iter()
                    .chain(&old.known)
                    .filter(is_gone)
                    .map(|it| (old.name.clone(), it.field)),
            );
            vector.outcome = vector.worst();
        }
        self.count(clauses);
        gone
    }

    /// Vectors that failed in a way that nobody has explained or accepted.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts().failed
    }

    /// All vectors by their outcome.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.vectors.iter().for_each(|vector| counts.add(vector.outcome));
        counts
    }

    fn count(&mut self, clauses: &Clauses) {
        let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
        for vector in &self.vectors {
            for id in vector.clauses.iter().collect::<BTreeSet<&String>>() {
                counts.entry(id).or_default().add(vector.outcome);
            }
        }
        let rows = counts.into_iter().map(|(id, counts)| {
            let level = clauses.level(id).unwrap_or(Level::Info);
            ClauseRow { id: id.to_owned(), level, counts }
        });
        self.clauses = rows.collect();
    }
}

impl Counts {
    fn add(&mut self, outcome: Verdict) {
        *match outcome {
            Verdict::Passed => &mut self.passed,
            Verdict::Failed => &mut self.failed,
            Verdict::Known => &mut self.known,
            Verdict::Differs => &mut self.differs,
            Verdict::NotApplicable => &mut self.not_applicable,
        } += 1;
    }

    /// Vectors in all.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.passed + self.failed + self.known + self.differs + self.not_applicable
    }
}

impl VectorResult {
    fn new(vector: &Vector, fields: Vec<FieldResult>) -> Self {
        let why = vector.qemu.as_ref().map_or(FREE_IS_LEAKED, |qemu| &qemu.why);
        let mut result = Self {
            name: vector.name.clone(),
            clauses: vector.clauses.clone(),
            outcome: Verdict::NotApplicable,
            passed: Vec::new(),
            not_applicable: Vec::new(),
            failed: Vec::new(),
            known: Vec::new(),
            differs: Vec::new(),
            why: None,
        };
        for FieldResult { field, verdict, expected, found } in fields {
            let difference = Difference { field, expected, found };
            match verdict {
                Verdict::Passed => result.passed.push(field),
                Verdict::NotApplicable => result.not_applicable.push(field),
                Verdict::Failed => result.failed.push(difference),
                Verdict::Known => result.known.push(difference),
                Verdict::Differs => result.differs.push(difference),
            }
        }
        result.why = (!result.differs.is_empty()).then(|| why.to_owned());
        result.outcome = result.worst();
        result
    }

    fn worst(&self) -> Verdict {
        let by_weight = [
            (Verdict::Failed, self.failed.is_empty()),
            (Verdict::Known, self.known.is_empty()),
            (Verdict::Differs, self.differs.is_empty()),
            // That nothing was changed is no answer to what a vector asks.
            (Verdict::Passed, self.passed.iter().all(|field| *field == Field::Unchanged)),
        ];
        let worst = by_weight.into_iter().find(|(_, is_empty)| !is_empty);
        worst.map_or(Verdict::NotApplicable, |(verdict, _)| verdict)
    }
}

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
