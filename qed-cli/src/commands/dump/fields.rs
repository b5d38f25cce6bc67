//! The fields of the structures in the header area, by their names in the specification.

use std::io;

use qed_io::Storage;
use qed_spec::{AutoclearFeatures, Features};

use super::areas::{Area, AreaKind};
use super::layout::Layout;
use super::{journal, marks, sections};

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// First byte in the file.
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) name: String,
    pub(super) value: Value,
    /// What the value means, where that is not plain.
    pub(super) note: String,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Offset(u64),
    Bits(u64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    /// As many zeros as the field is long.
    Zeros,
    /// What is left over from before, and means nothing.
    Stale,
}

/// Name, length and type of a field of a fixed structure.
pub(super) type Spec = (&'static str, usize, Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Offset,
    Bits,
    Text,
    Bytes,
}

const HEADER: &[Spec] = &[
    ("magic", 4, Kind::Text),
    ("cluster_size", 4, Kind::Number),
    ("table_size", 4, Kind::Number),
    ("header_size", 4, Kind::Number),
    ("features", 8, Kind::Bits),
    ("compat_features", 8, Kind::Bits),
    ("autoclear_features", 8, Kind::Bits),
    ("l1_table_offset", 8, Kind::Offset),
    ("image_size", 8, Kind::Number),
    ("backing_filename_offset", 4, Kind::Offset),
    ("backing_filename_size", 4, Kind::Number),
];

const SUPERBLOCK: &[Spec] = &[
    ("magic", 4, Kind::Text),
    ("version", 4, Kind::Number),
    ("crc32c", 4, Kind::Bits),
    ("sections_len", 4, Kind::Number),
    ("generation", 8, Kind::Number),
    ("uuid", 16, Kind::Bytes),
    ("epoch", 8, Kind::Bits),
];

const ANCHOR: &[Spec] = &[
    ("magic", 4, Kind::Text),
    ("version", 4, Kind::Number),
    ("crc32c", 4, Kind::Bits),
    ("name_crc32c", 4, Kind::Bits),
    ("superblock_a_offset", 8, Kind::Offset),
    ("superblock_b_offset", 8, Kind::Offset),
    ("format", 32, Kind::Text),
    ("reserved", 448, Kind::Bytes),
];

/// Calls `show` for the fields of an area, which cover it; tables, data and what is unused have
/// none.
pub(super) fn for_each(
    storage: &dyn Storage,
    layout: &Layout,
    area: &Area,
    mut show: impl FnMut(Field) -> io::Result<()>,
) -> anyhow::Result<()> {
    let specs = match area.kind {
        AreaKind::Header => HEADER,
        AreaKind::SuperblockA | AreaKind::SuperblockB => SUPERBLOCK,
        AreaKind::Anchor => ANCHOR,
        AreaKind::BackingName => &[],
        AreaKind::DirtyBitmap => return marks::for_each(storage, area, show),
        AreaKind::Journal => return Ok(journal::for_each(storage, layout, area, show)?),
        _ => return Ok(()),
    };
    let mut bytes = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)];
    storage.read_at(&mut bytes, area.start)?;
    let at = of_structure(specs, &bytes, area.start, &mut show)?;
    match area.kind {
        AreaKind::BackingName => {
            show(field_of(area.start, "backing_filename", &bytes, Kind::Text))?
        }
        AreaKind::SuperblockA | AreaKind::SuperblockB => {
            sections::for_each(&bytes, area.start, at, show)?;
        }
        _ => {}
    }
    Ok(())
}

/// Shows the fields of a fixed structure at the front of `bytes`; where they end.
pub(super) fn of_structure(
    specs: &[Spec],
    bytes: &[u8],
    start: u64,
    show: &mut impl FnMut(Field) -> io::Result<()>,
) -> io::Result<usize> {
    let mut at = 0;
    for (name, len, kind) in specs {
        let Some(field) = bytes.get(at..at + len) else { break };
        show(field_of(start + at as u64, name, field, *kind))?;
        at += len;
    }
    Ok(at)
}

fn field_of(start: u64, name: &str, bytes: &[u8], kind: Kind) -> Field {
    let number = bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let value = match kind {
        Kind::Number => Value::Number(number),
        Kind::Offset => Value::Offset(number),
        Kind::Bits => Value::Bits(number),
        Kind::Text => Value::Text(bytes.to_vec()),
        Kind::Bytes => Value::Bytes(bytes.to_vec()),
    };
    let note = match name {
        "features" => joined(Features::from_bits_retain(number).iter_names().map(|(name, _)| name)),
        "autoclear_features" => {
            joined(AutoclearFeatures::from_bits_retain(number).iter_names().map(|(name, _)| name))
        }
        "cluster_size" | "image_size" => "bytes".to_owned(),
        "table_size" | "header_size" => "clusters".to_owned(),
        _ => String::new(),
    };
    Field { start, len: bytes.len() as u64, name: name.to_owned(), value, note }
}

fn joined(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(" ")
}

/// Bytes with one name that mean nothing else.
pub(super) fn plain(start: u64, bytes: &[u8], name: &str, note: String) -> Field {
    Field { note, ..field_of(start, name, bytes, Kind::Bytes) }
}
