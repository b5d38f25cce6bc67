//! The ring of the journal: each block of the image's epoch with its records, and the rest.
//!
//! Shows what lies there, not what a replay would take of it: which blocks are whole commits from
//! the tail on is for `check`.

use std::io;

use qed_io::Storage;
use qed_spec::{
    Geometry, HostCluster, JOURNAL_BLOCK_LEN_BYTES, JournalBlock, JournalBlockError, JournalRecord,
};

use super::areas::Area;
use super::fields::{Field, Kind, Spec, Value, of_structure, plain};
use super::layout::Layout;

const HEAD: &[Spec] = &[
    ("magic", 4, Kind::Text),
    ("version", 4, Kind::Number),
    ("crc32c", 4, Kind::Bits),
    ("previous_crc32c", 4, Kind::Bits),
    ("sequence", 8, Kind::Number),
    ("stable_sequence", 8, Kind::Number),
    ("generation", 8, Kind::Number),
    ("physical_size", 8, Kind::Number),
    ("index", 4, Kind::Number),
    ("count", 4, Kind::Number),
    ("used", 4, Kind::Number),
    ("reserved", 4, Kind::Number),
];

/// Bytes of a record.
const RECORD_LEN: usize = 24;

/// Shows the blocks of the ring in the order of the file.
pub(super) fn for_each(
    storage: &dyn Storage,
    layout: &Layout,
    area: &Area,
    mut show: impl FnMut(Field) -> io::Result<()>,
) -> io::Result<()> {
    let (Some(seed), Some(geometry)) = (&layout.seed, layout.geometry) else { return Ok(()) };
    let mut absent: Option<Field> = None;
    let mut bytes = vec![0; JOURNAL_BLOCK_LEN_BYTES];
    for start in (area.start..area.end).step_by(JOURNAL_BLOCK_LEN_BYTES) {
        storage.read_at(&mut bytes, start)?;
        match JournalBlock::parse(&bytes, seed) {
            Err(error) if error.is_absent() => {
                let next = no_block(start, &bytes);
                match &mut absent {
                    Some(last) if last.value == next.value => last.len += next.len,
                    _ => absent.replace(next).map_or(Ok(()), &mut show)?,
                }
            }
            parsed => {
                absent.take().map_or(Ok(()), &mut show)?;
                block(start, &bytes, &parsed, geometry, &mut show)?;
            }
        }
    }
    absent.map_or(Ok(()), show)
}

fn no_block(start: u64, bytes: &[u8]) -> Field {
    let is_zero = qed_convert::is_zero(bytes);
    let (name, value) = if is_zero { ("unused", Value::Zeros) } else { ("stale", Value::Stale) };
    let note = if is_zero { "" } else { "no blocks of this image and epoch" };
    let (name, note) = (name.to_owned(), note.to_owned());
    Field { start, len: bytes.len() as u64, name, value, note }
}

fn block(
    start: u64,
    bytes: &[u8],
    parsed: &Result<JournalBlock<'_>, JournalBlockError>,
    geometry: Geometry,
    show: &mut impl FnMut(Field) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = of_structure(HEAD, bytes, start, show)?;
    let mut name = ("padding", String::new());
    match parsed {
        Ok(block) => {
            for record in block.records(geometry) {
                let raw = bytes.get(at..at + RECORD_LEN).unwrap_or_default();
                let note = match record {
                    Ok(record) => meaning(&record, geometry),
                    Err(error) => format!("not valid: {error}"),
                };
                show(plain(start + at as u64, raw, "record", note))?;
                at += RECORD_LEN;
            }
        }
        Err(error) => name = ("records", format!("not valid: {error}")),
    }
    match bytes.get(at..) {
        Some(rest @ [_, ..]) => show(plain(start + at as u64, rest, name.0, name.1)),
        _ => Ok(()),
    }
}

fn meaning(record: &JournalRecord, geometry: Geometry) -> String {
    let offset = |cluster: HostCluster| geometry.host_offset(cluster).get();
    match record {
        JournalRecord::L1Set { at, .. } => {
            format!("L1_SET: the slot at {:#x}", at.get())
        }
        JournalRecord::L2SetRun { at, count, first } => format!(
            "L2_SET_RUN: {count} slots from {:#x}, clusters from {:#x}",
            at.get(),
            offset(*first)
        ),
        JournalRecord::L2ZeroRun { at, count } => {
            format!("L2_ZERO_RUN: {count} slots from {:#x}", at.get())
        }
        JournalRecord::L2ClearRun { at, count } => {
            format!("L2_CLEAR_RUN: {count} slots from {:#x}", at.get())
        }
        JournalRecord::FreeRun { first, count } => {
            format!("FREE_RUN: {count} clusters from {:#x}", offset(*first))
        }
    }
}
