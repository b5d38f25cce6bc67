//! What the forms of the register share: the sections, and the counts at the top.

use super::document::Level;
use super::register::{Entry, Register};

/// The counts of the clauses of one level.
pub(super) struct Counts {
    pub(super) level: Level,
    pub(super) clauses: usize,
    pub(super) with_code: usize,
    pub(super) with_proof: usize,
    pub(super) excused: usize,
}

/// The counts of each level.
pub(super) fn counts(register: &Register) -> [Counts; 3] {
    Level::ALL.map(|level| {
        let count = |is: fn(&Entry) -> bool| {
            register.entries.iter().filter(|it| it.clause.level == level && is(it)).count()
        };
        Counts {
            level,
            clauses: count(|_| true),
            with_code: count(|it| !it.code.is_empty()),
            with_proof: count(Entry::is_proved),
            excused: count(|it| it.exception.is_some()),
        }
    })
}

/// The heading of each section that has clauses, with its clauses.
pub(super) fn sections(register: &Register) -> impl Iterator<Item = (&str, &[Entry])> {
    let runs = register.entries.chunk_by(|a, b| a.clause.section == b.clause.section);
    runs.map(|run| (run[0].clause.section.as_str(), run))
}

/// The clauses that have a reason instead of code or proof, with the reason.
pub(super) fn excused(register: &Register) -> impl Iterator<Item = (&str, &str)> {
    register.entries.iter().filter_map(|it| Some((&*it.clause.id, it.exception.as_deref()?)))
}
