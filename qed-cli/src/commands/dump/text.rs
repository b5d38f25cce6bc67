//! A dump for people.

use std::io::{self, Write};

use super::Form;
use super::areas::Area;
use super::fields::{Field, Value};
use super::runs::{Meaning, Run};

pub(super) struct TextForm<W> {
    out: W,
}

impl<W: Write> TextForm<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Form for TextForm<W> {
    fn begin(&mut self, name: &str, file_len: u64) -> io::Result<()> {
        writeln!(self.out, "{name}: {file_len} bytes")
    }

    fn begin_area(&mut self, area: &Area) -> io::Result<()> {
        writeln!(self.out, "{:#x}..{:#x} {}", area.start, area.end, area.kind)
    }

    fn field(&mut self, field: &Field) -> io::Result<()> {
        write!(self.out, "    {:#x}+{:<3} {} = ", field.start, field.len, field.name)?;
        match &field.value {
            Value::Number(number) => write!(self.out, "{number}")?,
            Value::Offset(number) | Value::Bits(number) => write!(self.out, "{number:#x}")?,
            Value::Text(bytes) => write!(self.out, "\"{}\"", bytes.escape_ascii())?,
            Value::Zeros => write!(self.out, "all zero")?,
            Value::Stale => write!(self.out, "left over")?,
            Value::Bytes(bytes) if bytes.iter().all(|byte| *byte == 0) => {
                write!(self.out, "all zero")?;
            }
            Value::Bytes(bytes) => {
                for byte in bytes {
                    write!(self.out, "{byte:02x}")?;
                }
            }
        }
        match field.note.as_str() {
            "" => writeln!(self.out),
            note => writeln!(self.out, " ({note})"),
        }
    }

    fn run(&mut self, run: &Run) -> io::Result<()> {
        match run.count {
            1 => write!(self.out, "    [{}] {}", run.first, run.meaning.name())?,
            count => {
                let last = run.first + (count - 1);
                write!(self.out, "    [{}..={last}] {}", run.first, run.meaning.name())?;
            }
        }
        match run.meaning {
            Meaning::Unallocated | Meaning::Zero => writeln!(self.out),
            _ => writeln!(self.out, " at {:#x}", run.value),
        }
    }

    fn end_area(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}
