//! The dirty bitmap: which tables a crash sets in doubt.

use std::io;

use qed_io::Storage;
use qed_layout::{PieceBuffer, Pieces};
use zerocopy::IntoBytes;

use super::areas::Area;
use super::fields::{Field, Value};

/// Shows each byte with a mark, and between them how much has none.
pub(super) fn for_each(
    storage: &dyn Storage,
    area: &Area,
    mut show: impl FnMut(Field) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut zeros = area.start;
    let mut buffer = PieceBuffer::default();
    for piece in Pieces::of(storage, area.start..area.end) {
        let piece = piece?;
        let bytes = buffer.read(storage, &piece)?.as_bytes();
        for (place, &byte) in (piece.at..).zip(bytes).filter(|(_, byte)| **byte != 0) {
            unmarked(zeros, place, &mut show)?;
            show(marked(area, place, byte))?;
            zeros = place + 1;
        }
    }
    Ok(unmarked(zeros, area.end, &mut show)?)
}

fn unmarked(
    start: u64,
    end: u64,
    show: &mut impl FnMut(Field) -> io::Result<()>,
) -> io::Result<()> {
    if start == end {
        return Ok(());
    }
    let name = "no_marks".to_owned();
    show(Field { start, len: end - start, name, value: Value::Zeros, note: String::new() })
}

fn marked(area: &Area, start: u64, byte: u8) -> Field {
    let first = (start - area.start) * 8;
    let tables: Vec<String> =
        (0..8).filter(|bit| byte & 1 << bit != 0).map(|bit| (first + bit).to_string()).collect();
    let note = format!("tables of L1 entries {}", tables.join(" "));
    Field { start, len: 1, name: "marks".to_owned(), value: Value::Bits(byte.into()), note }
}
