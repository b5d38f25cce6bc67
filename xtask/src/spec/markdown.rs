//! The register as `docs/traceability.md`: places by file and item, vectors by family, no line
//! numbers and no counts of vectors, so that it changes when a clause is kept elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::citations::Place;
use super::register::{Entry, Register};
use super::render::{Counts, counts, excused, sections};

const HEAD: &str = "\
# Traceability

Every clause of [format.md](format.md), the code that keeps it, and the tests and vectors that prove
it. A *test* is a function of `cargo test`; a *vector* is an image with the answers that any
implementation has to give, and is named here by its file in `conformance/vectors`.

`cargo xtask spec` writes this page, and the same with line numbers and the name of every vector as
`target/spec/index.html`. `cargo xtask tidy` fails while this page is stale, on a citation of a
clause that does not exist, and on a \"must\" without code or without proof that has no reason below.

";

pub(super) fn render(register: &Register) -> String {
    let mut page = HEAD.to_owned();
    summary(&mut page, register).expect("a string takes all");
    for (heading, entries) in sections(register) {
        section(&mut page, heading, entries).expect("a string takes all");
    }
    page
}

fn summary(page: &mut String, register: &Register) -> std::fmt::Result {
    writeln!(
        page,
        "| level | clauses | with code | with a test or vector | with a reason why not |"
    )?;
    writeln!(page, "|---|---|---|---|---|")?;
    for Counts { level, clauses, with_code, with_proof, excused } in counts(register) {
        writeln!(page, "| {level} | {clauses} | {with_code} | {with_proof} | {excused} |")?;
    }
    writeln!(page, "\n| clause that is kept by no code or no test | why |\n|---|---|")?;
    for (id, reason) in excused(register) {
        writeln!(page, "| {id} | {} |", cell(reason))?;
    }
    Ok(())
}

fn section(page: &mut String, heading: &str, entries: &[Entry]) -> std::fmt::Result {
    writeln!(page, "\n## {heading}\n\n| clause | text | code | proof |\n|---|---|---|---|")?;
    for entry in entries {
        let clause = &entry.clause;
        let mut proof = places(&entry.tests);
        proof.extend(entry.vectors.keys().map(|family| format!("vectors `{family}`")));
        writeln!(
            page,
            "| **{}**<br>{}, {} | {} | {} | {} |",
            clause.id,
            clause.level,
            clause.source,
            cell(&clause.text),
            places(&entry.code).join("<br>"),
            proof.join("<br>"),
        )?;
    }
    Ok(())
}

/// Each file and item once.
fn places(places: &[Place]) -> Vec<String> {
    let places: BTreeSet<_> = places.iter().map(|place| (&place.path, &place.item)).collect();
    places.into_iter().map(|(path, item)| format!("`{path}` `{item}`")).collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
