//! JSON in `qemu-img`'s layout: four spaces, members in the order written, every character outside
//! printable ASCII escaped, bytes that are not UTF-8 as U+FFFD. A member that is null is left out.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use serde_json::{Value, json};

/// A name that may hold any bytes.
pub(crate) fn text(bytes: impl AsRef<[u8]>) -> Value {
    json!(String::from_utf8_lossy(bytes.as_ref()))
}

/// The same list, or null for one that is empty, which leaves its member out.
pub(crate) fn unless_empty(list: Vec<Value>) -> Option<Vec<Value>> {
    Some(list).filter(|list| !list.is_empty())
}

/// Writes a value and a line end.
pub(crate) fn write_json(mut out: impl Write, value: Value) -> io::Result<()> {
    out.write_all(&[json_bytes(value, 0), b"\n".to_vec()].concat())
}

/// A value as it stands in so many others.
pub(crate) fn json_bytes(mut value: Value, depth: usize) -> Vec<u8> {
    drop_nulls(&mut value);
    let mut bytes = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut bytes, Layout { depth }));
    written.expect("strings are keys, and memory takes all bytes");
    bytes
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Where `qemu-img` breaks lines and what it escapes.
struct Layout {
    depth: usize,
}

impl Layout {
    fn begin<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &str) -> io::Result<()> {
        self.depth += 1;
        out.write_all(bracket.as_bytes())
    }

    fn end<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &str) -> io::Result<()> {
        self.depth -= 1;
        self.line(out)?;
        out.write_all(bracket.as_bytes())
    }

    fn member<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b"," })?;
        self.line(out)
    }

    fn line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        write!(out, "\n{:indent$}", "", indent = 4 * self.depth)
    }
}

impl Formatter for Layout {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, "[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, "]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.member(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, "{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, "}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.member(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        write!(out, "{value}")
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for character in fragment.chars() {
            match character {
                ' '..='~' => write!(out, "{character}")?,
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04X}")?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => out.write_all(b"\\\\"),
            CharEscape::Solidus => out.write_all(b"/"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: Value) -> String {
        let mut out = Vec::new();
        write_json(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn containers_nest_with_four_spaces() {
        let value = json!({"empty": [], "left out": null, "n": 1, "list": [true, "x", 1.0]});
        assert_eq!(
            written(value),
            "{\n    \"empty\": [\n    ],\n    \"n\": 1,\n    \"list\": [\n        true,\n        \"x\",\n        1\n    ]\n}\n"
        );
    }

    #[test]
    fn strings_escape_what_is_not_printable_ascii() {
        let cases: &[(&[u8], &str)] = &[
            (b"a\"\\b/", r#""a\"\\b/""#),
            (b"\x08\x0c\n\r\t", r#""\b\f\n\r\t""#),
            (b"\x1f\x7f", r#""\u001F\u007F""#),
            ("\u{e9}\u{1f600}".as_bytes(), r#""\u00E9\uD83D\uDE00""#),
            (b"<\xff>", r#""<\uFFFD>""#),
        ];
        for (bytes, expected) in cases {
            assert_eq!(written(text(bytes)).trim_end(), *expected);
        }
    }
}
