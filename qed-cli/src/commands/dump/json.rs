//! A dump as JSON: a list of areas, each with its fields or its table entries.

use std::io::{self, Write};

use super::Form;
use super::areas::{Area, AreaKind};
use super::fields::{Field, Value};
use super::runs::{Meaning, Run};
use crate::output::JsonWriter;

pub(super) struct JsonForm<W: Write> {
    json: Option<JsonWriter<W>>,
    list: Option<&'static str>,
}

impl<W: Write> JsonForm<W> {
    pub(super) fn new(out: W) -> Self {
        Self { json: Some(JsonWriter::new(out)), list: None }
    }

    fn json(&mut self) -> &mut JsonWriter<W> {
        self.json.as_mut().expect("the writer goes only at the end")
    }

    /// Opens the list of this name in the current area, if it is not open.
    fn in_list(&mut self, name: &'static str) -> io::Result<()> {
        if self.list.is_none() {
            self.list = Some(name);
            self.json().key(name)?;
            self.json().begin_array()?;
        }
        self.json().begin_object()
    }
}

impl<W: Write> Form for JsonForm<W> {
    fn begin(&mut self, name: &str, file_len: u64) -> io::Result<()> {
        let json = self.json();
        json.begin_object()?;
        json.string_member("filename", name)?;
        json.plain_member("file-length", file_len)?;
        json.key("areas")?;
        json.begin_array()
    }

    fn begin_area(&mut self, area: &Area) -> io::Result<()> {
        let json = self.json();
        json.begin_object()?;
        json.plain_member("offset", area.start)?;
        json.plain_member("length", area.end - area.start)?;
        json.string_member("name", area.kind.name())?;
        match area.kind {
            AreaKind::L2Table(l1) => json.plain_member("l1-index", l1.get()),
            AreaKind::HeaderUnused { zero } => json.plain_member("zero", zero),
            _ => Ok(()),
        }
    }

    fn field(&mut self, field: &Field) -> io::Result<()> {
        self.in_list("fields")?;
        let json = self.json();
        json.plain_member("offset", field.start)?;
        json.plain_member("length", field.len)?;
        json.string_member("name", &field.name)?;
        match &field.value {
            Value::Number(number) | Value::Offset(number) | Value::Bits(number) => {
                json.plain_member("value", number)?;
            }
            Value::Zeros => json.plain_member("value", 0)?,
            Value::Stale => {}
            Value::Text(bytes) => json.string_member("value", bytes.escape_ascii().to_string())?,
            Value::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                json.string_member("value", hex)?;
            }
        }
        if !field.note.is_empty() {
            json.string_member("note", &field.note)?;
        }
        json.end_object()
    }

    fn run(&mut self, run: &Run) -> io::Result<()> {
        self.in_list("entries")?;
        let json = self.json();
        json.plain_member("index", run.first)?;
        json.plain_member("count", run.count)?;
        json.string_member("meaning", run.meaning.name())?;
        if !matches!(run.meaning, Meaning::Unallocated | Meaning::Zero) {
            json.plain_member("value", run.value)?;
        }
        json.end_object()
    }

    fn end_area(&mut self) -> io::Result<()> {
        if self.list.take().is_some() {
            self.json().end_array()?;
        }
        self.json().end_object()
    }

    fn end(&mut self) -> io::Result<()> {
        self.json().end_array()?;
        self.json().end_object()?;
        self.json.take().map_or(Ok(()), JsonWriter::finish)
    }
}
