//! The clauses of docs/format.md as values, and the places where the document breaks its own form:
//! a clause is a paragraph that begins `**ID** (LEVEL; SOURCE): `. Knows nothing of code or tests.

use std::collections::BTreeSet;
use std::fmt;

use crate::problem::Problem;

pub(super) const DOCUMENT: &str = "docs/format.md";

/// One rule of the specification.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) source: Source,
    /// The heading that it stands under.
    pub(super) section: String,
    /// The whole paragraph behind the bracket, as one line.
    pub(super) text: String,
    /// Where it begins, counted from 1.
    pub(super) line: usize,
}

/// How much a clause binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Must,
    Should,
    Info,
}

/// Where a clause comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Base,
    Qemu,
    Own,
}

impl Level {
    pub(super) const ALL: [Self; 3] = [Self::Must, Self::Should, Self::Info];
}

impl Source {
    const ALL: [Self; 3] = [Self::Base, Self::Qemu, Self::Own];
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Qemu => "qemu",
            Self::Own => "own",
        })
    }
}

/// The clauses of the document in its order, and what is wrong with their form.
pub(super) fn parse(document: &str) -> (Vec<Clause>, Vec<Problem>) {
    let (mut clauses, mut problems) = (Vec::new(), Vec::new());
    let (mut section, mut ids) = ("", BTreeSet::new());
    for (line, paragraph) in paragraphs(document) {
        if paragraph.starts_with('#') {
            section = paragraph.trim_start_matches('#').trim();
        }
        let Some(rest) = paragraph.strip_prefix("**QED-") else { continue };
        match clause(rest, section, line) {
            Ok(clause) if ids.insert(clause.id.clone()) => clauses.push(clause),
            Ok(clause) => {
                let text = format!("{} is defined twice", clause.id);
                problems.push(Problem::new(DOCUMENT, line, text));
            }
            Err(text) => problems.push(Problem::new(DOCUMENT, line, text)),
        }
    }
    (clauses, problems)
}

/// What stands between empty lines, with the number of its first line.
fn paragraphs(document: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut line = 1;
    document.split("\n\n").map(move |paragraph| {
        let leading = paragraph.len() - paragraph.trim_start_matches('\n').len();
        let first = line + leading;
        line += paragraph.matches('\n').count() + 2;
        (first, paragraph.trim_matches('\n'))
    })
}

/// The clause of a paragraph whose `**QED-` is left out, or what is wrong with it.
fn clause(paragraph: &str, section: &str, line: usize) -> Result<Clause, String> {
    let (name, rest) = paragraph.split_once("**").unwrap_or((paragraph, ""));
    let id = format!("QED-{name}");
    if number(&id).is_none_or(|number| number.len() != 2) {
        return Err(format!("{id} is no id: QED-AREA-NN"));
    }
    let in_bracket = rest.strip_prefix(" (").and_then(|rest| rest.split_once("): "));
    let Some(((level, source), text)) =
        in_bracket.and_then(|(bracket, text)| Some((bracket.split_once("; ")?, text)))
    else {
        return Err(format!("{id} has no (level; source) before its text"));
    };
    let level = Level::ALL.into_iter().find(|it| it.to_string() == level);
    let source = Source::ALL.into_iter().find(|it| it.to_string() == source);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !text.ends_with('.') {
        return Err(format!("{id} does not end with a full stop"));
    }
    Ok(Clause {
        level: level.ok_or_else(|| format!("{id} has no level"))?,
        source: source.ok_or_else(|| format!("{id} has no source"))?,
        section: section.to_owned(),
        text,
        line,
        id,
    })
}

/// The words of a text that are meant as a clause id, those included that no clause can have.
pub(super) fn ids(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| number(word).is_some())
}

/// The number of an id, if the word has the form of one.
fn number(word: &str) -> Option<&str> {
    let (area, number) = word.strip_prefix("QED-")?.split_once('-')?;
    let is_area = !area.is_empty() && area.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_area && is_number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_is_a_paragraph_under_its_heading() {
        let text = "# Title\n\n## 2. Header\n\nWords.\n\n\n\
                    **QED-HDR-01** (must; base): One\nand `two`.\n\n\
                    \x20   **QED-AREA-NN** (level; source): text\n\n### 2.1 More\n\n\
                    **QED-HDR-02** (info; qemu): x (y; z): a.\n";
        let (clauses, problems) = parse(text);
        assert_eq!(problems, []);
        assert_eq!(
            clauses,
            [
                Clause {
                    id: "QED-HDR-01".to_owned(),
                    level: Level::Must,
                    source: Source::Base,
                    section: "2. Header".to_owned(),
                    text: "One and `two`.".to_owned(),
                    line: 8,
                },
                Clause {
                    id: "QED-HDR-02".to_owned(),
                    level: Level::Info,
                    source: Source::Qemu,
                    section: "2.1 More".to_owned(),
                    text: "x (y; z): a.".to_owned(),
                    line: 15,
                },
            ]
        );
    }

    #[test]
    fn each_fault_of_form_is_told_where_it_is() {
        for (paragraph, told) in [
            ("**QED-HDR-01**: x.", "QED-HDR-01 has no (level; source) before its text"),
            ("**QED-HDR-01** (must): x.", "QED-HDR-01 has no (level; source) before its text"),
            ("**QED-HDR-01** (may; base): x.", "QED-HDR-01 has no level"),
            ("**QED-HDR-01** (must; here): x.", "QED-HDR-01 has no source"),
            ("**QED-HDR-01** (must; base): x", "QED-HDR-01 does not end with a full stop"),
            ("**QED-HDR-1** (must; base): x.", "QED-HDR-1 is no id: QED-AREA-NN"),
            ("**QED-OK-01** (must; own): y.", "QED-OK-01 is defined twice"),
        ] {
            let text = format!("**QED-OK-01** (must; base): x.\n\n{paragraph}\n");
            let (clauses, problems) = parse(&text);
            assert_eq!(clauses.len(), 1, "{paragraph}");
            assert_eq!(problems, [Problem::new(DOCUMENT, 3, told)]);
        }
    }

    #[test]
    fn an_id_has_an_area_and_a_number() {
        let text = "QED-HDR-01 QED-X-123. (QED-CHK-07) QED-hdr-01 QED-HDR- QED-HDR qed-spec";
        let found: Vec<&str> = ids(text).collect();
        assert_eq!(found, ["QED-HDR-01", "QED-X-123", "QED-CHK-07"]);
    }
}
