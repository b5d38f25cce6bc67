//! A dump as JSON: a list of areas, each with its fields or its table entries. Written piece by piece,
//! since a table may have any number of entries.

use std::io::{self, Write};

use serde_json::{Value as Json, json};

use super::Form;
use super::areas::{Area, AreaKind};
use super::fields::{Field, Value};
use super::runs::{Meaning, Run};
use crate::output::json_bytes;

pub(super) struct JsonForm<W> {
    out: W,
    has_areas: bool,
    has_items: bool,
}

impl<W: Write> JsonForm<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, has_areas: false, has_items: false }
    }

    /// Writes an object without its end, so that a list can follow its members.
    fn open(&mut self, object: Json, depth: usize) -> io::Result<()> {
        let text = json_bytes(object, depth);
        let end = "\n}".len() + 4 * depth;
        self.out.write_all(&text[..text.len() - end])
    }

    /// Writes an object of the list of this name in the current area, which begins with it.
    fn item(&mut self, list: &str, object: Json) -> io::Result<()> {
        match std::mem::replace(&mut self.has_items, true) {
            true => self.out.write_all(b",")?,
            false => write!(self.out, ",\n            \"{list}\": [")?,
        }
        write!(self.out, "\n{:16}", "")?;
        self.out.write_all(&json_bytes(object, 4))
    }
}

impl<W: Write> Form for JsonForm<W> {
    fn begin(&mut self, name: &str, file_len: u64) -> io::Result<()> {
        self.open(json!({ "filename": name, "file-length": file_len }), 0)?;
        self.out.write_all(b",\n    \"areas\": [")
    }

    fn begin_area(&mut self, area: &Area) -> io::Result<()> {
        let mut object = json!({
            "offset": area.start,
            "length": area.end - area.start,
            "name": area.kind.name(),
        });
        match area.kind {
            AreaKind::L2Table(l1) => object["l1-index"] = json!(l1.get()),
            AreaKind::HeaderUnused { zero } => object["zero"] = json!(zero),
            _ => {}
        }
        let comma = if std::mem::replace(&mut self.has_areas, true) { "," } else { "" };
        write!(self.out, "{comma}\n{:8}", "")?;
        self.open(object, 2)
    }

    fn field(&mut self, field: &Field) -> io::Result<()> {
        let value = match &field.value {
            Value::Number(number) | Value::Offset(number) | Value::Bits(number) => json!(number),
            Value::Zeros => json!(0),
            Value::Stale => Json::Null,
            Value::Text(bytes) => json!(bytes.escape_ascii().to_string()),
            Value::Bytes(bytes) => {
                json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
        };
        let object = json!({
            "offset": field.start,
            "length": field.len,
            "name": field.name,
            "value": value,
            "note": Some(&field.note).filter(|note| !note.is_empty()),
        });
        self.item("fields", object)
    }

    fn run(&mut self, run: &Run) -> io::Result<()> {
        let has_value = !matches!(run.meaning, Meaning::Unallocated | Meaning::Zero);
        let object = json!({
            "index": run.first,
            "count": run.count,
            "meaning": run.meaning.name(),
            "value": has_value.then_some(run.value),
        });
        self.item("entries", object)
    }

    fn end_area(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.has_items) {
            write!(self.out, "\n{:12}]", "")?;
        }
        write!(self.out, "\n{:8}}}", "")
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n    ]\n}\n")
    }
}
