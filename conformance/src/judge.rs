//! The verdict: what was answered against what was expected, field by field.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Answers, Case, Opened};
use crate::text;
use crate::vector::{Contents, Expect, Mapping, Opening};

/// What a vector can expect something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Opening for reading.
    Open,
    /// The size of the disk.
    Size,
    /// The size of a cluster.
    ClusterSize,
    /// The backing file name.
    Backing,
    /// The mapping.
    Map,
    /// Guest bytes.
    Content,
    /// The outcome of a check.
    Check,
    /// The numbers of its findings.
    Findings,
    /// The extension superblock.
    Superblock,
    /// The anchor.
    Anchor,
    /// That reading changed no file.
    Unchanged,
    /// Opening for writing.
    Write,
    /// Bytes of the file after that.
    AfterWrite,
}

/// What a field came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed,
    /// Not as expected, but as in a report that was accepted before.
    Known,
    /// As QEMU is known to differ, which the vector explains.
    Differs,
    /// The implementation has no way to say it.
    NotApplicable,
}

/// One field with its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldResult {
    /// The field.
    pub field: Field,
    /// What it came to.
    pub verdict: Verdict,
    /// What the vector expects, as text.
    pub expected: String,
    /// What was found, as text; for what is not applicable the reason.
    pub found: String,
}

/// Everything that was seen of an implementation with one image.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) read: Answers,
    /// The files that changed meanwhile.
    pub(crate) changed: Vec<String>,
    /// Opening for writing, if that was asked.
    pub(crate) write: Option<Answer<Opened>>,
    /// The bytes that were expected after that and are not there.
    pub(crate) after_write: Option<Answer<String>>,
}

/// The text of a file that is as it should be.
pub(crate) const AS_EXPECTED: &str = "as expected";
/// What is found where an implementation is known to break down.
const NO_ANSWER: &str = "no answer";
/// What may change by reading.
const NO_FILE: &str = "no file";

/// Judges every field of which something is expected.
pub(crate) fn judge(case: &Case<'_>, seen: &Seen) -> Vec<FieldResult> {
    let (spec, here, read) = (&case.vector.expect, case.expect, &seen.read);
    let breaks = |field| match field {
        Field::Map => case.qemu.is_some_and(|qemu| qemu.map == Some(Mapping::Fails)),
        Field::Content => case.qemu.is_some_and(|qemu| qemu.content == Some(Contents::Fail)),
        _ => false,
    };
    let may_break = [Field::Map, Field::Content].into_iter().filter(|it| breaks(*it)).collect();
    let mut results = Results { fields: Vec::new(), may_break };
    results.opening(Field::Open, Some(&spec.open), Some(&here.open), &read.open);
    if read.is_open() {
        of_open_image(&mut results, case, read);
    }
    let check = |expect: &Expect| expect.check.map(text::check);
    results.add(
        Field::Check,
        check(spec),
        check(here),
        &read.check.map(|found| text::check(*found)),
    );
    let findings = here.findings.as_deref().map(text::findings);
    results.same(Field::Findings, findings, &read.findings.map(|found| text::findings(found)));
    extensions(&mut results, here, read);
    let changed =
        if seen.changed.is_empty() { NO_FILE.to_owned() } else { seen.changed.join(", ") };
    // Who was not asked has changed nothing.
    let unchanged = match read.open {
        Answer::Silent(why) => Answer::Silent(why),
        _ => Answer::Said(changed),
    };
    results.same(Field::Unchanged, Some(NO_FILE.to_owned()), &unchanged);
    if let Some(write) = &seen.write {
        results.opening(Field::Write, spec.to_write(), here.to_write(), write);
    }
    if let Some(after) = &seen.after_write {
        results.same(Field::AfterWrite, Some(AS_EXPECTED.to_owned()), after);
    }
    results.fields
}

/// The fields that only an open image has.
fn of_open_image(results: &mut Results, case: &Case<'_>, read: &Answers) {
    let (spec, here) = (&case.vector.expect, case.expect);
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    results.add(Field::Size, number(spec.size), number(here.size), &read.size.map(u64::to_string));
    let cluster_size = read.cluster_size.map(u64::to_string);
    results.same(Field::ClusterSize, number(here.cluster_size), &cluster_size);
    let name = |expect: &Expect| expect.backing.as_ref().map(|name| text::name(Some(&name.0)));
    let found = read.backing.map(|name| text::name(name.as_deref()));
    results.add(Field::Backing, name(spec), name(here), &found);
    let map = |expect: &Expect| expect.map.as_ref().map(text::mapping);
    results.add(Field::Map, map(spec), map(here), &read.map.map(text::mapping));
    let content = |expect: &Expect| expect.content.as_ref().map(text::contents);
    let found = read.content.map(|found| text::read(case.places(), found));
    results.add(Field::Content, content(spec), content(here), &found);
}

fn extensions(results: &mut Results, here: &Expect, read: &Answers) {
    if let Some(expected) = &here.superblock {
        let found = read.superblock.map(|found| text::superblock_found(found, expected));
        results.same(Field::Superblock, Some(text::superblock(expected)), &found);
    }
    if let Some(expected) = &here.anchor {
        let found = read.anchor.map(|found| text::anchor_found(found, expected));
        results.same(Field::Anchor, Some(text::anchor(expected)), &found);
    }
}

struct Results {
    fields: Vec<FieldResult>,
    /// Where QEMU is known to give no answer, which it may do in any way.
    may_break: Vec<Field>,
}

impl Results {
    /// A field of which the same is expected of everybody.
    fn same(&mut self, field: Field, expected: Option<String>, found: &Answer<String>) {
        self.add(field, expected.clone(), expected, found);
    }

    fn opening(
        &mut self,
        field: Field,
        spec: Option<&Opening>,
        here: Option<&Opening>,
        answer: &Answer<Opened>,
    ) {
        let Some(expected) = here else { return };
        let found = answer.map(|opened| text::opened(opened, expected));
        self.add(field, spec.map(text::opening), Some(text::opening(expected)), &found);
    }

    fn add(
        &mut self,
        field: Field,
        spec: Option<String>,
        here: Option<String>,
        answer: &Answer<String>,
    ) {
        let Some(here) = here else { return };
        let differs = spec.as_ref() != Some(&here);
        let (found, is_here) = match answer {
            Answer::Said(found) => (found.clone(), *found == here),
            // In which way is of no interest, and may be another one tomorrow.
            Answer::Broke(_) if self.may_break.contains(&field) => (NO_ANSWER.to_owned(), true),
            Answer::Broke(why) => (why.clone(), false),
            Answer::Silent(why) => ((*why).to_owned(), false),
        };
        let verdict = match (answer, is_here) {
            (Answer::Silent(_), _) => Verdict::NotApplicable,
            (_, false) => Verdict::Failed,
            (Answer::Broke(_), true) => Verdict::Differs,
            (Answer::Said(_), true) if differs => Verdict::Differs,
            (Answer::Said(_), true) => Verdict::Passed,
        };
        let expected = match (verdict, spec) {
            (Verdict::Differs, Some(spec)) => spec,
            (Verdict::Differs, None) => "nothing".to_owned(),
            _ => here,
        };
        self.fields.push(FieldResult { field, verdict, expected, found });
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Size => "size",
            Self::ClusterSize => "cluster_size",
            Self::Backing => "backing",
            Self::Map => "map",
            Self::Content => "content",
            Self::Check => "check",
            Self::Findings => "findings",
            Self::Superblock => "superblock",
            Self::Anchor => "anchor",
            Self::Unchanged => "unchanged",
            Self::Write => "write",
            Self::AfterWrite => "after_write",
        })
    }
}
