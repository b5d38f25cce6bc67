//! Superblocks and anchors against a reader that takes them apart byte by byte.

use qed_spec::{
    Anchor, BackingName, ChooseError, Generation, Superblock, SuperblockBuilder, SuperblockChoice,
    SuperblockCopy, SuperblockError,
};

use crate::branches::Branches;
use crate::crc32c::{crc32c, crc32c_of_block};
use crate::generators::superblock::SuperblockCase;
use crate::size::usize_of;

/// Each copy is accepted by the rules and written back as it was; the right one is current.
///
/// # Panics
/// If it is not so.
pub(crate) fn assert_chosen_by_the_rules(case: &SuperblockCase, branches: &mut Branches) {
    let a = assert_parsed(&case.a, case.name, branches);
    let b = assert_parsed(&case.b, case.name, branches);
    let choice = SuperblockChoice::new(&case.a, &case.b);
    branches.note("choice", choice.map(|choice| choice.current().map(|(copy, _)| copy)));
    let other_version = [&a, &b].into_iter().any(|copy| matches!(copy, Judged::OtherVersion));
    let generations = (a.generation(), b.generation());
    let conflict = matches!(generations, (Some(a), Some(b)) if a == b) && case.a[..] != case.b[..];
    let choice = match choice {
        Err(ChooseError::Version { .. }) => return assert!(other_version, "{case:x?}"),
        Err(ChooseError::Conflict { .. }) => return assert!(conflict && !other_version),
        Err(error) => panic!("{error:?}"),
        Ok(choice) => choice,
    };
    assert!(!other_version && !conflict, "a choice between {generations:?}");
    let expected = match generations {
        (None, None) => None,
        (Some(_), None) => Some(SuperblockCopy::A),
        (None, Some(_)) => Some(SuperblockCopy::B),
        (Some(a), Some(b)) => Some(if b > a { SuperblockCopy::B } else { SuperblockCopy::A }),
    };
    assert_eq!(choice.current().map(|(copy, _)| copy), expected);
    let (next_copy, next) = match (expected, generations) {
        (None, _) => (SuperblockCopy::A, Some(1)),
        (Some(SuperblockCopy::A), (a, _)) => (SuperblockCopy::B, a.and_then(|a| a.checked_add(1))),
        (Some(SuperblockCopy::B), (_, b)) => (SuperblockCopy::A, b.and_then(|b| b.checked_add(1))),
    };
    let next = next.and_then(Generation::new).map(|generation| (next_copy, generation));
    assert_eq!(choice.next_write(), next);
}

/// An anchor is accepted by the rules and written back as it was.
///
/// # Panics
/// If it is not so.
pub(crate) fn assert_anchor(bytes: &[u8], name: &[u8], branches: &mut Branches) {
    let parsed = Anchor::parse(bytes);
    branches.note("anchor", parsed.map(|anchor| anchor.backing_format.is_some()));
    let sealed = bytes.len() >= 512 && is_block(&bytes[..512], b"QEDA");
    let format = bytes.get(32..64).unwrap_or_default();
    let len = format.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let format = &format[..len];
    let stated = bytes.get(12..16).unwrap_or_default() != [0; 4] || !format.is_empty();
    let legal = sealed
        && number(bytes, 4, 4) == 1
        && bytes[64..512].iter().all(|byte| *byte == 0)
        && (!stated || is_format(format));
    assert_eq!(parsed.is_ok(), legal, "{parsed:?}");
    let Ok(anchor) = parsed else { return };
    assert_eq!(anchor.encode()[..], bytes[..512]);
    let described = stated && number(bytes, 12, 4) == u64::from(crc32c(name));
    let of_name = anchor.backing_format.and_then(|stored| {
        stored.format_of(BackingName::new(name).expect("names of the generator are legal"))
    });
    assert_eq!(of_name.map(str::as_bytes), described.then_some(format));
    let places = (number(bytes, 16, 8), number(bytes, 24, 8));
    let found = anchor.superblocks.map(|[a, b]| (a.get(), b.get()));
    assert_eq!(found, Some(places).filter(|places| *places != (0, 0)));
}

/// What a copy is.
enum Judged {
    Bad,
    OtherVersion,
    Good(u64),
}

impl Judged {
    fn generation(&self) -> Option<u64> {
        match self {
            Self::Good(generation) => Some(*generation),
            Self::Bad | Self::OtherVersion => None,
        }
    }
}

fn assert_parsed(bytes: &[u8], name: &[u8], branches: &mut Branches) -> Judged {
    let parsed = Superblock::parse(bytes);
    branches.note("superblock", parsed.map(|superblock| superblock.sections().next().is_some()));
    let judged = judge(bytes);
    match (&parsed, &judged) {
        (Ok(superblock), Judged::Good(_)) => assert_kept(superblock, bytes, name, branches),
        (Err(SuperblockError::Version { .. }), Judged::OtherVersion) => {}
        (Err(error), Judged::Bad) => {
            assert!(!matches!(error, SuperblockError::Version { .. }), "{error:?}");
        }
        _ => panic!("{parsed:?} of {bytes:x?}"),
    }
    judged
}

/// Nothing is lost between reading a superblock and writing it.
fn assert_kept(superblock: &Superblock<'_>, bytes: &[u8], name: &[u8], branches: &mut Branches) {
    let expected = sections(&bytes[..4096]).expect("the superblock was judged good");
    let found: Vec<(u32, &[u8])> =
        superblock.sections().map(|one| (one.kind().get(), one.payload())).collect();
    assert_eq!(found, expected);
    assert_eq!(superblock.uuid().as_bytes()[..], bytes[24..40]);
    assert_eq!(superblock.epoch().get(), number(bytes, 40, 8));
    let builder = SuperblockBuilder::from_superblock(superblock);
    assert_eq!(builder.encode(superblock.generation())[..], bytes[..4096]);
    let mut again = SuperblockBuilder::new(superblock.uuid(), superblock.epoch());
    for section in superblock.sections().collect::<Vec<_>>().into_iter().rev() {
        again.set_section(section.kind(), section.payload()).expect("all of them fit together");
    }
    assert_eq!(again.encode(superblock.generation())[..], bytes[..4096]);
    let name = BackingName::new(name).expect("names of the generator are legal");
    let format = superblock.backing_format(name);
    branches.note("format", format);
    let stored = expected.iter().find(|(kind, _)| *kind == 2).map(|(_, payload)| *payload);
    let expected = match stored.map(|payload| (payload.get(..4), payload.get(4..))) {
        None => Ok(None),
        Some((Some(crc), Some(format))) if is_format(format) => {
            Ok((crc == crc32c(name.as_bytes()).to_le_bytes()).then_some(format))
        }
        Some(_) => Err(()),
    };
    assert_eq!(format.map(|format| format.map(str::as_bytes)).map_err(drop), expected);
}

fn judge(bytes: &[u8]) -> Judged {
    let Some(bytes) = bytes.get(..4096).filter(|bytes| is_block(bytes, b"QEDX")) else {
        return Judged::Bad;
    };
    if number(bytes, 4, 4) != 1 {
        return Judged::OtherVersion;
    }
    match number(bytes, 16, 8) {
        0 => Judged::Bad,
        _ if sections(bytes).is_none() => Judged::Bad,
        generation => Judged::Good(generation),
    }
}

fn is_block(bytes: &[u8], magic: &[u8; 4]) -> bool {
    bytes[..4] == magic[..] && number(bytes, 8, 4) == u64::from(crc32c_of_block(bytes))
}

/// Types and payloads of the sections, if they keep the rules.
fn sections(bytes: &[u8]) -> Option<Vec<(u32, &[u8])>> {
    let len = usize_of(number(bytes, 12, 4));
    if !len.is_multiple_of(8) || len > 4048 || bytes[48 + len..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut rest = &bytes[48..48 + len];
    let mut found: Vec<(u32, &[u8])> = Vec::new();
    while !rest.is_empty() {
        let kind = u32::try_from(number(rest, 0, 4)).expect("four bytes");
        let len = usize_of(number(rest, 4, 4));
        let payload = rest.get(8..8 + len)?;
        let after = rest.get(8 + len.next_multiple_of(8)..)?;
        let padding = &rest[8 + len..8 + len.next_multiple_of(8)];
        let ascends = found.last().is_none_or(|(last, _)| *last < kind);
        if !ascends || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        found.push((kind, payload));
        rest = after;
    }
    Some(found)
}

fn is_format(format: &[u8]) -> bool {
    let legal = |byte: &u8| b"abcdefghijklmnopqrstuvwxyz0123456789-_".contains(byte);
    (1..=32).contains(&format.len()) && format.iter().all(legal)
}

/// A little-endian number of up to eight bytes; 0 where there are none.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let field = bytes.get(at..at + len).unwrap_or_default();
    field.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
