//! One way to write down each expectation and each answer: two that mean the same read the same, so
//! that they are compared as text and shown as they were compared.

use crate::answer::{AnchorFound, Opened, SuperblockFound};
use crate::vector::{
    AnchorExpect, Bytes, CheckOutcome, Content, ContentBytes, Contents, MapKind, MapRun, Mapping,
    Opening, Places, Rejected, StoredFormat, SuperblockCurrent, SuperblockExpect,
};

/// What stands for an error where bytes or a mapping were asked for.
pub(crate) const FAILS: &str = "fails";
/// Equal bytes that are counted instead of written out.
const COUNTED_FROM: usize = 8;

pub(crate) fn opening(opening: &Opening) -> String {
    match opening {
        Opening::Accept => "accepted".to_owned(),
        Opening::Reject(None) => "rejected".to_owned(),
        Opening::Reject(Some(clause)) => format!("rejected by {clause}"),
    }
}

/// A refusal reads as the one expected if it may be by the expected clause.
pub(crate) fn opened(opened: &Opened, expected: &Opening) -> String {
    match (opened, expected) {
        (Opened::Accepted, _) => opening(&Opening::Accept),
        (Opened::Refused { .. }, Opening::Reject(None)) => opening(expected),
        (Opened::Refused { clauses, .. }, Opening::Reject(Some(clause)))
            if clauses.is_none_or(|clauses| clauses.contains(&clause.as_str())) =>
        {
            opening(expected)
        }
        (Opened::Refused { clauses: Some(clauses), said }, _) => {
            format!("rejected by {}: {said}", clauses.join(" or "))
        }
        (Opened::Refused { clauses: None, said }, _) => format!("rejected: {said}"),
    }
}

pub(crate) fn name(name: Option<&[u8]>) -> String {
    name.map_or_else(|| "none".to_owned(), |name| format!("\"{}\"", name.escape_ascii()))
}

pub(crate) fn mapping(mapping: &Mapping) -> String {
    match mapping {
        Mapping::Fails => FAILS.to_owned(),
        Mapping::Runs(runs) => list(runs.iter().map(map_run)),
    }
}

fn map_run(MapRun { at, len, kind }: &MapRun) -> String {
    match kind {
        MapKind::Data { host } => format!("{at}+{len} data at {host}"),
        MapKind::Zero => format!("{at}+{len} zero"),
        MapKind::Unallocated => format!("{at}+{len} unallocated"),
    }
}

pub(crate) fn contents(contents: &Contents) -> String {
    match contents {
        Contents::Fail => FAILS.to_owned(),
        Contents::Runs(runs) => content(runs.iter().map(|Content { at, bytes }| match bytes {
            ContentBytes::Read(Bytes::Literal(bytes)) => (*at, Some(counted(bytes))),
            ContentBytes::Read(Bytes::Fill { byte, len }) => {
                let len = usize::try_from(*len).unwrap_or(usize::MAX);
                let run = if len < COUNTED_FROM {
                    counted(&vec![*byte; len])
                } else {
                    format!("{byte:02x} x {len}")
                };
                (*at, Some(run))
            }
            ContentBytes::Fail { .. } => (*at, None),
        })),
    }
}

/// What was read at the places that were asked for.
pub(crate) fn read(asked: &[Content], found: &[Option<Vec<u8>>]) -> String {
    let found = found.iter().map(|bytes| bytes.as_deref().map(counted));
    content(asked.iter().map(|content| content.at).zip(found))
}

/// Where nothing at all can be read, that is all that is said.
fn content(places: impl Iterator<Item = (u64, Option<String>)>) -> String {
    let places: Vec<(u64, Option<String>)> = places.collect();
    if places.iter().all(|(_, bytes)| bytes.is_none()) {
        return FAILS.to_owned();
    }
    list(places.iter().map(|(at, bytes)| format!("at {at} {}", bytes.as_deref().unwrap_or(FAILS))))
}

/// Bytes as hex, long runs of one byte counted.
fn counted(bytes: &[u8]) -> String {
    let groups = bytes.chunk_by(|a, b| a == b).map(|group| match group.len() {
        len if len >= COUNTED_FROM => format!("{:02x} x {len}", group[0]),
        len => vec![format!("{:02x}", group[0]); len].join(" "),
    });
    groups.collect::<Vec<String>>().join(" ")
}

pub(crate) fn check(outcome: CheckOutcome) -> String {
    match outcome {
        CheckOutcome::Clean => "clean",
        CheckOutcome::Free => "free",
        CheckOutcome::Leaks => "leaks",
        CheckOutcome::Corrupt => "corrupt",
        CheckOutcome::Refused => "refused",
    }
    .to_owned()
}

pub(crate) fn findings(numbers: &[u16]) -> String {
    if numbers.is_empty() { "none".to_owned() } else { list(numbers.iter().map(u16::to_string)) }
}

/// What a vector says of the superblock.
pub(crate) fn superblock(expected: &SuperblockExpect) -> String {
    let SuperblockExpect { current, generation, sections, backing_format } = expected;
    parts([
        Some(self::current(*current)),
        generation.map(|generation| format!("generation {generation}")),
        sections.as_deref().map(self::sections),
        backing_format.as_ref().map(stored_format),
    ])
}

/// The same parts of what was found.
pub(crate) fn superblock_found(found: &SuperblockFound, expected: &SuperblockExpect) -> String {
    let generation = found.generation.map_or_else(|| "none".to_owned(), |it| it.to_string());
    parts([
        Some(current(found.current)),
        expected.generation.map(|_| format!("generation {generation}")),
        expected.sections.as_ref().map(|_| sections(&found.sections)),
        expected.backing_format.as_ref().map(|_| stored_format(&found.backing_format)),
    ])
}

/// What a vector says of the anchor.
pub(crate) fn anchor(expected: &AnchorExpect) -> String {
    let AnchorExpect { valid, backing_format, superblocks } = expected;
    parts([
        Some(believed(*valid)),
        backing_format.as_ref().map(stored_format),
        superblocks.as_ref().map(places),
    ])
}

/// The same parts of what was found.
pub(crate) fn anchor_found(found: &AnchorFound, expected: &AnchorExpect) -> String {
    parts([
        Some(believed(found.valid)),
        expected.backing_format.as_ref().map(|_| stored_format(&found.backing_format)),
        expected.superblocks.as_ref().map(|_| places(&found.superblocks)),
    ])
}

fn current(current: SuperblockCurrent) -> String {
    match current {
        SuperblockCurrent::A => "copy A",
        SuperblockCurrent::B => "copy B",
        SuperblockCurrent::None => "no copy",
        SuperblockCurrent::Refused => "refused",
    }
    .to_owned()
}

fn believed(valid: bool) -> String {
    if valid { "believed" } else { "not believed" }.to_owned()
}

fn sections(types: &[u32]) -> String {
    format!("sections [{}]", list(types.iter().map(u32::to_string)))
}

fn stored_format(format: &StoredFormat) -> String {
    match format {
        StoredFormat::None => "no backing format".to_owned(),
        StoredFormat::Is(name) => format!("backing format {name}"),
        StoredFormat::Reject(clause) => format!("backing format rejected by {clause}"),
    }
}

fn places(places: &Places) -> String {
    match places {
        Places::At(offsets) => format!("copies at [{}]", list(offsets.iter().map(u64::to_string))),
        Places::Reject(Rejected { reject }) => format!("copies rejected by {reject}"),
    }
}

fn parts<const N: usize>(parts: [Option<String>; N]) -> String {
    list(parts.into_iter().flatten())
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_read_alike_however_they_are_given() {
        let expected = |bytes| contents(&Contents::Runs(vec![Content { at: 0, bytes }]));
        for len in [1, 7, 8, 9, 512] {
            let literal = Bytes::Literal(vec![0xa5; len]);
            let fill = Bytes::Fill { byte: 0xa5, len: len as u64 };
            let place = Content { at: 0, bytes: ContentBytes::Read(fill.clone()) };
            let found = read(&[place], &[Some(vec![0xa5; len])]);
            assert_eq!(expected(ContentBytes::Read(literal)), found);
            assert_eq!(expected(ContentBytes::Read(fill)), found);
        }
        assert_eq!(counted(b"\x01\x01\x02\0\0\0\0\0\0\0\0"), "01 01 02 00 x 8");
        assert_eq!(expected(ContentBytes::Fail { len: 9 }), contents(&Contents::Fail));
    }

    #[test]
    fn a_refusal_reads_as_expected_only_by_the_expected_clause() {
        let expected = Opening::Reject(Some("QED-HDR-03".to_owned()));
        let refused = |clauses| Opened::Refused { clauses, said: "too small".to_owned() };
        let by = |clauses| opened(&refused(clauses), &expected);
        assert_eq!(by(None), opening(&expected));
        assert_eq!(by(Some(&["QED-HDR-02", "QED-HDR-03"])), opening(&expected));
        assert_eq!(by(Some(&["QED-HDR-02"])), "rejected by QED-HDR-02: too small");
        assert_eq!(opened(&Opened::Accepted, &expected), "accepted");
        assert_eq!(opened(&refused(None), &Opening::Accept), "rejected: too small");
    }
}
