//! The fields of the structures in the header area, by their names in the specification.

use std::io;

use qed_io::Storage;
use qed_spec::{AutoclearFeatures, Features, Superblock};

use super::areas::{Area, AreaKind};

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
}

/// Name, length and type of a field of a fixed structure.
type Spec = (&'static str, usize, Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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

/// The fields of an area, which cover it; none for tables, data and what is unused.
pub(super) fn of(storage: &dyn Storage, area: &Area) -> io::Result<Vec<Field>> {
    let specs = match area.kind {
        AreaKind::Header => HEADER,
        AreaKind::SuperblockA | AreaKind::SuperblockB => SUPERBLOCK,
        AreaKind::Anchor => ANCHOR,
        AreaKind::BackingName => &[],
        _ => return Ok(Vec::new()),
    };
    let mut bytes = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)];
    storage.read_at(&mut bytes, area.start)?;
    let mut fields = Vec::new();
    let mut at = 0;
    for (name, len, kind) in specs {
        let Some(field) = bytes.get(at..at + len) else { break };
        fields.push(field_of(area.start + at as u64, name, field, *kind));
        at += len;
    }
    match area.kind {
        AreaKind::BackingName => {
            fields.push(field_of(area.start, "backing_filename", &bytes, Kind::Text));
        }
        AreaKind::SuperblockA | AreaKind::SuperblockB => {
            sections(&bytes, area.start, at, &mut fields);
        }
        _ => {}
    }
    Ok(fields)
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

/// The sections of a superblock and the rest of its bytes.
fn sections(bytes: &[u8], start: u64, mut at: usize, fields: &mut Vec<Field>) {
    match Superblock::parse(bytes) {
        Ok(superblock) => {
            for section in superblock.sections() {
                let name = section.kind().name().map(str::to_owned);
                let name = name.unwrap_or_else(|| format!("section_{}", section.kind().get()));
                let len = 8 + section.payload().len().next_multiple_of(8);
                let payload = Value::Bytes(section.payload().to_vec());
                let note = format!("section of type {}", section.kind().get());
                fields.push(Field {
                    start: start + at as u64,
                    len: len as u64,
                    name,
                    value: payload,
                    note,
                });
                at += len;
            }
            rest(bytes, start, at, "padding", String::new(), fields);
        }
        Err(error) => rest(bytes, start, at, "sections", format!("not valid: {error}"), fields),
    }
}

fn rest(bytes: &[u8], start: u64, at: usize, name: &str, note: String, fields: &mut Vec<Field>) {
    let rest = &bytes[at.min(bytes.len())..];
    if !rest.is_empty() {
        let field = field_of(start + at as u64, name, rest, Kind::Bytes);
        fields.push(Field { note, ..field });
    }
}
