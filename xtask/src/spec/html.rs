//! The register as one HTML page that needs nothing else: a summary, an index, and for each clause
//! its text, the code with line numbers, the tests and every vector by name.

use std::fmt::Write as _;

use super::citations::Place;
use super::document::{Level, ids};
use super::register::{Entry, Register};
use super::render::{Counts, counts, excused, sections};

const STYLE: &str = include_str!("style.css");

pub(super) fn render(register: &Register) -> String {
    let mut page = String::new();
    write(&mut page, register).expect("a string takes all");
    page
}

fn write(page: &mut String, register: &Register) -> std::fmt::Result {
    writeln!(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(page, "<title>QED: clauses and what keeps them</title>")?;
    writeln!(page, "<style>\n{STYLE}</style>\n</head>\n<body>")?;
    writeln!(page, "<h1>The QED image format: clauses and what keeps them</h1>")?;
    summary(page, register)?;
    index(page, register)?;
    for (heading, entries) in sections(register) {
        writeln!(page, "<h2>{}</h2>", escaped(heading))?;
        entries.iter().try_for_each(|entry| clause(page, entry))?;
    }
    writeln!(page, "</body>\n</html>")
}

fn summary(page: &mut String, register: &Register) -> std::fmt::Result {
    let sum = |count: fn(&Entry) -> usize| register.entries.iter().map(count).sum::<usize>();
    writeln!(
        page,
        "<p>{} clauses, cited {} times in code and {} times by tests; {} vectors.</p>",
        register.entries.len(),
        sum(|entry| entry.code.len()),
        sum(|entry| entry.tests.len()),
        register.vectors,
    )?;
    writeln!(page, "<table><tr><th>level<th>clauses<th>with code<th>with a test or vector")?;
    writeln!(page, "<th>with a reason why not</tr>")?;
    for Counts { level, clauses, with_code, with_proof, excused } in counts(register) {
        writeln!(
            page,
            "<tr><td>{level}<td>{clauses}<td>{with_code}<td>{with_proof}<td>{excused}</tr>"
        )?;
    }
    writeln!(page, "</table>\n<table><tr><th>kept by no code or no test<th>why</tr>")?;
    for (id, reason) in excused(register) {
        writeln!(page, "<tr><td>{}<td>{}</tr>", link(id), escaped(reason))?;
    }
    writeln!(page, "</table>")
}

/// A link to every clause, which shows whether it is kept.
fn index(page: &mut String, register: &Register) -> std::fmt::Result {
    writeln!(page, "<nav>")?;
    for entry in &register.entries {
        let id = &entry.clause.id;
        writeln!(page, "<a class=\"{}\" href=\"#{id}\">{}</a>", state(entry), &id["QED-".len()..])?;
    }
    writeln!(page, "</nav>")?;
    writeln!(page, "<p>")?;
    for (state, meaning) in [
        ("kept", "code and proof"),
        ("excused", "a reason why not"),
        ("open", "missing"),
        ("free", "need not be kept"),
    ] {
        writeln!(page, "<span class=\"{state}\">{meaning}</span>")?;
    }
    writeln!(page, "</p>")
}

fn state(entry: &Entry) -> &'static str {
    match (entry.clause.level, &entry.exception) {
        _ if entry.is_kept() => "kept",
        (_, Some(_)) => "excused",
        (Level::Must, None) => "open",
        _ => "free",
    }
}

fn clause(page: &mut String, entry: &Entry) -> std::fmt::Result {
    let clause = &entry.clause;
    let (id, level, source) = (&clause.id, clause.level, clause.source);
    writeln!(page, "<section id=\"{id}\" class=\"{}\">", state(entry))?;
    writeln!(page, "<h3><a href=\"#{id}\">{id}</a> <small>{level}, {source}</small></h3>")?;
    writeln!(page, "<p>{}</p>\n<dl>", marked_up(&clause.text))?;
    places(page, "code", &entry.code)?;
    places(page, "tests", &entry.tests)?;
    if !entry.vectors.is_empty() {
        let count: usize = entry.vectors.values().map(Vec::len).sum();
        writeln!(page, "<dt>{count} vectors")?;
        for (family, names) in &entry.vectors {
            let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
            writeln!(
                page,
                "<dd><details><summary>{} in {}</summary>{}</details>",
                names.len(),
                escaped(family),
                names.join(", ")
            )?;
        }
    }
    if let Some(reason) = &entry.exception {
        writeln!(page, "<dt>why not<dd>{}", escaped(reason))?;
    }
    writeln!(page, "</dl>\n</section>")
}

fn places(page: &mut String, what: &str, places: &[Place]) -> std::fmt::Result {
    if places.is_empty() {
        return Ok(());
    }
    writeln!(page, "<dt>{what}")?;
    for Place { path, line, item } in places {
        let (path, item) = (escaped(path), escaped(item));
        writeln!(page, "<dd><code>{path}:{line}</code> {item}")?;
    }
    Ok(())
}

fn link(id: &str) -> String {
    format!("<a href=\"#{id}\">{id}</a>")
}

/// A text of the document, with its `code` and *emphasis* marked and its clauses linked.
fn marked_up(text: &str) -> String {
    let mut html = String::new();
    for (number, part) in text.split('`').enumerate() {
        match number % 2 {
            0 => html.push_str(&linked(part)),
            _ => html.push_str(&format!("<code>{}</code>", escaped(part))),
        }
    }
    html
}

fn linked(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    for id in ids(text) {
        let (before, after) = rest.split_once(id).expect("the ids come from this text in order");
        html.push_str(&emphasised(before));
        html.push_str(&link(id));
        rest = after;
    }
    html + &emphasised(rest)
}

fn emphasised(text: &str) -> String {
    let mut html = String::new();
    for (number, part) in text.split('*').enumerate() {
        match number % 2 {
            0 => html.push_str(&escaped(part)),
            _ => html.push_str(&format!("<em>{}</em>", escaped(part))),
        }
    }
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_marks_and_links_its_clauses() {
        assert_eq!(
            marked_up("The *area* `a..b<c` of QED-HDR-01 & 3 log2 `n * n` (QED-HDR-02)."),
            "The <em>area</em> <code>a..b&lt;c</code> of <a href=\"#QED-HDR-01\">QED-HDR-01</a> \
             &amp; 3 log2 <code>n * n</code> (<a href=\"#QED-HDR-02\">QED-HDR-02</a>)."
        );
    }
}
