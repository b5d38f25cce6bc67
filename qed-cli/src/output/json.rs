//! A streaming JSON writer with `qemu-img`'s layout: four spaces, keys in the order written, every
//! character outside printable ASCII escaped, bytes that are not UTF-8 as U+FFFD.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes one JSON value to `out`. Values begun are ended by the caller, innermost first.
#[derive(Debug)]
pub(crate) struct JsonWriter<W: Write> {
    out: W,
    /// For each open container whether it has a member yet.
    open: Vec<bool>,
    after_key: bool,
}

impl<W: Write> JsonWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, open: Vec::new(), after_key: false }
    }

    pub(crate) fn begin_object(&mut self) -> io::Result<()> {
        self.begin("{")
    }

    pub(crate) fn end_object(&mut self) -> io::Result<()> {
        self.end("}")
    }

    pub(crate) fn begin_array(&mut self) -> io::Result<()> {
        self.begin("[")
    }

    pub(crate) fn end_array(&mut self) -> io::Result<()> {
        self.end("]")
    }

    /// The key of the next value.
    pub(crate) fn key(&mut self, key: &str) -> io::Result<()> {
        self.start_member()?;
        self.write_string(key.as_bytes())?;
        self.out.write_all(b": ")?;
        self.after_key = true;
        Ok(())
    }

    /// A number or boolean, as it displays.
    pub(crate) fn plain(&mut self, value: impl Display) -> io::Result<()> {
        self.start_member()?;
        write!(self.out, "{value}")
    }

    /// A string.
    pub(crate) fn string(&mut self, value: impl AsRef<[u8]>) -> io::Result<()> {
        self.start_member()?;
        self.write_string(value.as_ref())
    }

    /// A number or boolean under a key.
    pub(crate) fn plain_member(&mut self, key: &str, value: impl Display) -> io::Result<()> {
        self.key(key)?;
        self.plain(value)
    }

    /// A string under a key.
    pub(crate) fn string_member(&mut self, key: &str, value: impl AsRef<[u8]>) -> io::Result<()> {
        self.key(key)?;
        self.string(value)
    }

    /// The line end after the outermost value.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    fn begin(&mut self, bracket: &str) -> io::Result<()> {
        self.start_member()?;
        self.open.push(false);
        self.out.write_all(bracket.as_bytes())
    }

    fn end(&mut self, bracket: &str) -> io::Result<()> {
        self.open.pop();
        self.new_line()?;
        self.out.write_all(bracket.as_bytes())
    }

    fn start_member(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.after_key) {
            return Ok(());
        }
        let Some(has_members) = self.open.last_mut() else { return Ok(()) };
        if std::mem::replace(has_members, true) {
            self.out.write_all(b",")?;
        }
        self.new_line()
    }

    fn new_line(&mut self) -> io::Result<()> {
        write!(self.out, "\n{:indent$}", "", indent = 4 * self.open.len())
    }

    fn write_string(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut text = String::from('"');
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                push_escaped(&mut text, character);
            }
            if !chunk.invalid().is_empty() {
                push_escaped(&mut text, char::REPLACEMENT_CHARACTER);
            }
        }
        text.push('"');
        self.out.write_all(text.as_bytes())
    }
}

fn push_escaped(text: &mut String, character: char) {
    match character {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        ' '..='~' => text.push(character),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04X}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut JsonWriter<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        let mut json = JsonWriter::new(&mut out);
        write(&mut json).unwrap();
        json.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn containers_nest_with_four_spaces() {
        let text = written(|json| {
            json.begin_object()?;
            json.key("empty")?;
            json.begin_array()?;
            json.end_array()?;
            json.plain_member("n", 1)?;
            json.key("list")?;
            json.begin_array()?;
            json.plain(true)?;
            json.string("x")?;
            json.end_array()?;
            json.end_object()
        });
        assert_eq!(
            text,
            "{\n    \"empty\": [\n    ],\n    \"n\": 1,\n    \"list\": [\n        true,\n        \"x\"\n    ]\n}\n"
        );
    }

    #[test]
    fn strings_escape_what_is_not_printable_ascii() {
        let cases: &[(&[u8], &str)] = &[
            (b"a\"\\b", r#""a\"\\b""#),
            (b"\x08\x0c\n\r\t", r#""\b\f\n\r\t""#),
            (b"\x1f\x7f", r#""\u001F\u007F""#),
            ("\u{e9}\u{1f600}".as_bytes(), r#""\u00E9\uD83D\uDE00""#),
            (b"<\xff>", r#""<\uFFFD>""#),
        ];
        for (bytes, text) in cases {
            assert_eq!(written(|json| json.string(bytes)).trim_end(), *text);
        }
    }
}
