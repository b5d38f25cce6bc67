//! What a vector must keep so that it can be believed: that its parts do not contradict each other
//! and that its clauses exist. Whether it is right about QED is for its reader to judge.

use thiserror::Error;

use super::{
    Bytes, CheckOutcome, Contents, Expect, IMAGE_NAME, MapRun, Mapping, Opening, Places,
    QemuDiffers, Rejected, Run, StoredFormat, Vector,
};
use crate::clause::Clauses;

/// A rule that a vector breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Contradiction {
    /// The name is not made of lower case words and numbers.
    #[error("a name is lower case words and numbers joined with -")]
    Name,
    /// A line of text is empty, or more than one line.
    #[error("{field} is one line")]
    OneLine {
        /// The field.
        field: &'static str,
    },
    /// It proves nothing.
    #[error("it names no clause")]
    NoClause,
    /// The specification has no such clause.
    #[error("{0} is not a clause of docs/format.md")]
    UnknownClause(String),
    /// Bytes are given outside their file.
    #[error("the run at {at} of {file} ends past the file of {len} bytes")]
    RunPastEnd {
        /// The file.
        file: String,
        /// Offset of the run.
        at: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// A byte is given twice.
    #[error("the runs at {first} and {second} of {file} give the same byte twice")]
    RunsOverlap {
        /// The file.
        file: String,
        /// Offset of one.
        first: u64,
        /// Offset of the other.
        second: u64,
    },
    /// A file beside the image has no plain name, or one that is taken.
    #[error("{0} is not a name for a file beside the image")]
    FileName(String),
    /// An expected refusal does not say why.
    #[error("{field} is refused by no clause")]
    NoReason {
        /// The field.
        field: &'static str,
    },
    /// Something is expected of an image that nobody opens.
    #[error("{field} is expected of an image that is to be refused")]
    OfRefused {
        /// The field.
        field: &'static str,
    },
    /// The mapping does not cover the disk once, in order.
    #[error("the map at {at} has a gap, an overlap, or a run without bytes")]
    MapOrder {
        /// Guest offset.
        at: u64,
    },
    /// Two runs of the mapping are one.
    #[error("the run of the map at {at} continues the one before it")]
    MapNotMerged {
        /// Guest offset.
        at: u64,
    },
    /// The mapping does not end where the disk ends.
    #[error("the map ends at {found}, the disk at {disk}")]
    MapEnd {
        /// Where it ends.
        found: u64,
        /// Bytes of the disk.
        disk: u64,
    },
    /// Content is expected outside the disk, or twice.
    #[error("the content at {at} overlaps other content or ends past the disk")]
    Content {
        /// Guest offset.
        at: u64,
    },
    /// No place is named of which content is expected.
    #[error("content is expected at no place")]
    NoContent,
    /// More content is expected at one place than is worth reading.
    #[error("the content at {at} is longer than {MOST_CONTENT} bytes")]
    LongContent {
        /// Guest offset.
        at: u64,
    },
    /// The numbers of the findings do not ascend.
    #[error("the findings do not ascend")]
    FindingsOrder,
    /// The findings do not fit what the check says.
    #[error("the findings do not fit what the check is expected to say")]
    FindingsOutcome,
    /// QEMU is said to differ in nothing.
    #[error("qemu gives no field that differs")]
    QemuSame,
}

/// Bytes of the disk that are read at one place.
const MOST_CONTENT: u64 = 16 << 20;

/// Every rule that a vector breaks.
pub(super) fn check(vector: &Vector, clauses: &Clauses) -> Vec<Contradiction> {
    let mut broken = Vec::new();
    texts(vector, clauses, &mut broken);
    files(vector, &mut broken);
    openings(vector, &mut broken);
    disk(vector, &mut broken);
    findings(&vector.expect, &mut broken);
    if let Some(qemu) = &vector.qemu {
        broken.extend(one_line("qemu.why", &qemu.why));
        if is_same(qemu) {
            broken.push(Contradiction::QemuSame);
        }
    }
    broken
}

fn texts(vector: &Vector, clauses: &Clauses, broken: &mut Vec<Contradiction>) {
    let is_word = |word: &str| {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        !word.is_empty() && word.bytes().all(good)
    };
    if !vector.name.split('-').all(is_word) {
        broken.push(Contradiction::Name);
    }
    broken.extend(one_line("what", &vector.what));
    if vector.clauses.is_empty() {
        broken.push(Contradiction::NoClause);
    }
    let why = vector.qemu.as_ref().map_or("", |qemu| &qemu.why);
    let in_why = why.split([' ', ':', ',', '(', ')']).filter(|word| word.starts_with("QED-"));
    let reasons = reasons(&vector.expect).map(String::as_str);
    let mut named: Vec<&str> =
        vector.clauses.iter().map(String::as_str).chain(reasons).chain(in_why).collect();
    named.sort_unstable();
    named.dedup();
    let unknown = named.into_iter().filter(|id| clauses.level(id).is_none());
    broken.extend(unknown.map(|id| Contradiction::UnknownClause(id.to_owned())));
}

/// The clauses by which something is refused.
fn reasons(expect: &Expect) -> impl Iterator<Item = &String> {
    let opening = [Some(&expect.open), expect.write.as_ref()].into_iter().flatten();
    let opening = opening.filter_map(|opening| match opening {
        Opening::Reject(clause) => clause.as_ref(),
        Opening::Accept => None,
    });
    let superblock = expect.superblock.as_ref().and_then(|it| it.backing_format.as_ref());
    let anchor = expect.anchor.as_ref();
    let formats = [superblock, anchor.and_then(|it| it.backing_format.as_ref())].into_iter();
    let formats = formats.flatten().filter_map(|format| match format {
        StoredFormat::Reject(clause) => Some(clause),
        StoredFormat::None | StoredFormat::Is(_) => None,
    });
    let places = anchor.and_then(|anchor| match anchor.superblocks.as_ref()? {
        Places::Reject(Rejected { reject }) => Some(reject),
        Places::At(_) => None,
    });
    opening.chain(formats).chain(places)
}

fn one_line(field: &'static str, text: &str) -> Option<Contradiction> {
    let bad = text.trim().is_empty() || text.contains('\n');
    bad.then_some(Contradiction::OneLine { field })
}

fn files(vector: &Vector, broken: &mut Vec<Contradiction>) {
    runs(IMAGE_NAME, &vector.runs, vector.file_len, broken);
    let after_write = vector.expect.after_write.as_deref().unwrap_or_default();
    runs(IMAGE_NAME, after_write, vector.file_len, broken);
    let mut taken = vec![IMAGE_NAME];
    for file in &vector.files {
        let is_plain = !file.name.contains(['/', '\0']) && !["", ".", ".."].contains(&&*file.name);
        if !is_plain || taken.contains(&&*file.name) {
            broken.push(Contradiction::FileName(file.name.clone()));
        }
        taken.push(&file.name);
        runs(&file.name, &file.runs, file.len, broken);
    }
}

/// A fill may be written over, a byte that was given on its own may not.
fn runs(file: &str, runs: &[Run], len: u64, broken: &mut Vec<Contradiction>) {
    let end = |run: &Run| run.at.saturating_add(run.bytes.len());
    for run in runs.iter().filter(|run| end(run) > len) {
        broken.push(Contradiction::RunPastEnd { file: file.to_owned(), at: run.at, len });
    }
    let mut literal: Vec<&Run> =
        runs.iter().filter(|run| matches!(run.bytes, Bytes::Literal(_))).collect();
    literal.sort_by_key(|run| run.at);
    for pair in literal.windows(2).filter(|pair| end(pair[0]) > pair[1].at) {
        let (first, second) = (pair[0].at, pair[1].at);
        broken.push(Contradiction::RunsOverlap { file: file.to_owned(), first, second });
    }
}

fn openings(vector: &Vector, broken: &mut Vec<Contradiction>) {
    let expect = &vector.expect;
    for (field, opening) in [("open", Some(&expect.open)), ("write", expect.write.as_ref())] {
        if opening == Some(&Opening::Reject(None)) {
            broken.push(Contradiction::NoReason { field });
        }
    }
    if expect.after_write.is_some() && expect.to_write() != Some(&Opening::Accept) {
        broken.push(Contradiction::OfRefused { field: "after_write" });
    }
    if expect.open == Opening::Accept {
        return;
    }
    let expected = [
        ("write", expect.write == Some(Opening::Accept)),
        ("size", expect.size.is_some()),
        ("cluster_size", expect.cluster_size.is_some()),
        ("backing", expect.backing.is_some()),
        ("map", expect.map.is_some()),
        ("content", expect.content.is_some()),
        ("check", !matches!(expect.check, None | Some(CheckOutcome::Refused))),
        ("findings", expect.findings.is_some()),
    ];
    let fields = expected.into_iter().filter(|(_, is_expected)| *is_expected);
    broken.extend(fields.map(|(field, _)| Contradiction::OfRefused { field }));
}

/// Mapping and content against the disk.
fn disk(vector: &Vector, broken: &mut Vec<Contradiction>) {
    let disk = vector.disk_len();
    let qemu = vector.qemu.as_ref();
    for map in [vector.expect.map.as_ref(), qemu.and_then(|qemu| qemu.map.as_ref())] {
        if let Some(Mapping::Runs(runs)) = map {
            mapping(runs, disk, broken);
        }
    }
    for content in [vector.expect.content.as_ref(), qemu.and_then(|qemu| qemu.content.as_ref())] {
        let Some(Contents::Runs(runs)) = content else { continue };
        if runs.is_empty() {
            broken.push(Contradiction::NoContent);
        }
        let mut places: Vec<(u64, u64)> =
            runs.iter().map(|run| (run.at, run.at.saturating_add(run.bytes.len()))).collect();
        places.sort_unstable();
        let mut free = 0;
        for (at, end) in places {
            if at < free || disk.is_some_and(|disk| end > disk) {
                broken.push(Contradiction::Content { at });
            }
            if end - at > MOST_CONTENT {
                broken.push(Contradiction::LongContent { at });
            }
            free = end;
        }
    }
}

fn mapping(runs: &[MapRun], disk: Option<u64>, broken: &mut Vec<Contradiction>) {
    let mut end = 0;
    let mut last: Option<&MapRun> = None;
    for run in runs {
        if run.at != end || run.len == 0 {
            broken.push(Contradiction::MapOrder { at: run.at });
        }
        if last.is_some_and(|last| last.continues_in(run)) {
            broken.push(Contradiction::MapNotMerged { at: run.at });
        }
        end = run.at.saturating_add(run.len);
        last = Some(run);
    }
    if let Some(disk) = disk.filter(|disk| *disk != end) {
        broken.push(Contradiction::MapEnd { found: end, disk });
    }
}

/// Which outcome a finding leads to by its permanent number: notes do not matter, and entries past
/// the end of the disk and unused clusters are leaks.
fn findings(expect: &Expect, broken: &mut Vec<Contradiction>) {
    let Some(numbers) = &expect.findings else { return };
    if !numbers.is_sorted() {
        broken.push(Contradiction::FindingsOrder);
    }
    let is_leak = |number: &u16| matches!(number, 108 | 208 | 301 | 302);
    let is_corruption = |number: &u16| *number < 300 && !is_leak(number);
    let outcome = if numbers.iter().any(is_corruption) {
        CheckOutcome::Corrupt
    } else if numbers.iter().any(is_leak) {
        CheckOutcome::Leaks
    } else {
        CheckOutcome::Clean
    };
    let is_free = expect.check == Some(CheckOutcome::Free) && outcome == CheckOutcome::Clean;
    if expect.check != Some(outcome) && !is_free {
        broken.push(Contradiction::FindingsOutcome);
    }
}

fn is_same(qemu: &QemuDiffers) -> bool {
    let QemuDiffers { version: _, why: _, open, write, size, backing, map, content, check } = qemu;
    let given = [
        open.is_some(),
        write.is_some(),
        size.is_some(),
        backing.is_some(),
        map.is_some(),
        content.is_some(),
        check.is_some(),
    ];
    given == [false; 7]
}
