//! The clauses of docs/format.md: ids and levels. Knows nothing of vectors.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a clause binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What breaks it is not QED.
    Must,
    /// A good implementation keeps it.
    Should,
    /// Explains, and binds nobody.
    Info,
}

/// Every clause of the specification that this crate was built with.
#[derive(Debug, Clone)]
pub struct Clauses(BTreeMap<String, Level>);

/// The register that is made from the document.
#[derive(Deserialize)]
struct Register {
    clause: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    level: Level,
}

impl Clauses {
    /// The clauses of the specification.
    #[must_use]
    pub fn of_specification() -> Self {
        let register: Register = toml::from_str(include_str!("../clauses.toml"))
            .expect("the register is part of this crate, and a test reads it");
        Self(register.clause.into_iter().map(|entry| (entry.id, entry.level)).collect())
    }

    /// The level of a clause; none if the specification has no clause of this id.
    #[must_use]
    pub fn level(&self, id: &str) -> Option<Level> {
        self.0.get(id).copied()
    }

    /// Every clause with its level, in order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Level)> {
        self.0.iter().map(|(id, level)| (&**id, *level))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Info => "info",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_clauses_of_every_level() {
        let clauses = Clauses::of_specification();
        assert_eq!(clauses.level("QED-HDR-02"), Some(Level::Must));
        assert_eq!(clauses.level("QED-TBL-09"), Some(Level::Should));
        assert_eq!(clauses.level("QED-DISK-01"), Some(Level::Info));
        assert_eq!(clauses.level("QED-HDR-99"), None);
        assert!(clauses.iter().count() > 100);
    }
}
