//! The form that vectors have in their files: TOML, laid out for a reader.

use std::fmt;

use super::vector::{
    Bytes, Expect, Family, Header, Kind, Map, MapRun, Opening, Qemu, Run, Superblock, Vector,
};

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.about {
            writeln!(f, "# {line}")?;
        }
        writeln!(f, "# Written by `cargo xtask vectors`.")?;
        self.vectors.iter().try_for_each(|vector| vector.fmt(f))
    }
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[[vector]]\nname = \"{}\"", self.name)?;
        writeln!(f, "clauses = [{}]", joined(self.clauses.iter().map(|id| format!("\"{id}\""))))?;
        writeln!(f, "what = \"{}\"\nfile_len = {}", self.what, number(self.file_len))?;
        let fields = fields(&self.header);
        if !fields.is_empty() {
            writeln!(f, "header = {{ {fields} }}")?;
        }
        list(f, "runs", self.runs.iter().map(run))?;
        expect(f, &self.expect)?;
        self.qemu.iter().try_for_each(|it| qemu(f, it))
    }
}

/// The fields that are not as in the default header.
fn fields(header: &Header) -> String {
    let usual = Header::default();
    let fields = [
        ("cluster_size", header.cluster_size, usual.cluster_size),
        ("table_size", header.table_size, usual.table_size),
        ("header_size", header.header_size, usual.header_size),
        ("features", header.features, usual.features),
        ("compat_features", header.compat_features, usual.compat_features),
        ("autoclear_features", header.autoclear_features, usual.autoclear_features),
        ("l1_table_offset", header.l1_table_offset, usual.l1_table_offset),
        ("image_size", header.image_size, usual.image_size),
        ("backing_filename_offset", header.backing_filename_offset, 0),
        ("backing_filename_size", header.backing_filename_size, 0),
    ];
    let other = fields.into_iter().filter(|(_, value, usual)| value != usual);
    joined(other.map(|(name, value, _)| format!("{name} = {}", number(value))))
}

fn expect(f: &mut fmt::Formatter<'_>, expect: &Expect) -> fmt::Result {
    writeln!(f, "expect.open = {}", opening(expect.open))?;
    if let Some(write) = expect.write {
        writeln!(f, "expect.write = {}", opening(write))?;
    }
    for (key, value) in [("size", expect.size), ("cluster_size", expect.cluster_size)] {
        if let Some(value) = value {
            writeln!(f, "expect.{key} = {}", number(value))?;
        }
    }
    match &expect.map {
        Some(Map::Runs(runs)) => list(f, "expect.map", runs.iter().map(map_run))?,
        Some(Map::Fails) => writeln!(f, "expect.map = \"fails\"")?,
        None => {}
    }
    list(f, "expect.content", expect.content.iter().map(run))?;
    if let Some(check) = expect.check {
        writeln!(f, "expect.check = \"{check}\"")?;
    }
    if let Some(findings) = &expect.findings {
        writeln!(f, "expect.findings = [{}]", joined(findings.iter().map(u16::to_string)))?;
    }
    list(f, "expect.after_write", expect.after_write.iter().map(run))?;
    if let Some(Superblock { current, generation }) = expect.superblock {
        let generation = generation.map(|it| format!(", generation = {}", number(it)));
        let generation = generation.unwrap_or_default();
        writeln!(f, "expect.superblock = {{ current = \"{current}\"{generation} }}")?;
    }
    Ok(())
}

fn qemu(f: &mut fmt::Formatter<'_>, Qemu { why, answers }: &Qemu) -> fmt::Result {
    writeln!(f, "qemu.version = \"10.0.2\"\nqemu.why = \"{why}\"")?;
    answers.iter().try_for_each(|(key, value)| writeln!(f, "qemu.{key} = \"{value}\""))
}

/// A list on one line if it has one element, or on one line for each.
fn list(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    elements: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    match elements.len() {
        0 => Ok(()),
        1 => writeln!(f, "{key} = [{}]", joined(elements)),
        _ => {
            let lines: String = elements.map(|element| format!("    {element},\n")).collect();
            writeln!(f, "{key} = [\n{lines}]")
        }
    }
}

fn run(Run { at, bytes }: &Run) -> String {
    let bytes = match bytes {
        Bytes::Text(text) => format!("text = \"{text}\""),
        Bytes::Hex(bytes) => {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("hex = \"{}\"", bytes.join(" "))
        }
        Bytes::U32(list) => {
            format!("u32 = [{}]", joined(list.iter().map(|it| number(u64::from(*it)))))
        }
        Bytes::U64(list) => format!("u64 = [{}]", joined(list.iter().map(|it| number(*it)))),
        Bytes::Fill { byte, len } => {
            format!("fill = {{ byte = {byte:#04x}, len = {} }}", number(*len))
        }
        Bytes::Fails(len) => format!("fails = {}", number(*len)),
    };
    format!("{{ at = {}, {bytes} }}", number(*at))
}

fn map_run(MapRun { at, len, kind }: &MapRun) -> String {
    let kind = match kind {
        Kind::Data(host) => format!("\"data\", host = {}", number(*host)),
        Kind::Zero => "\"zero\"".to_owned(),
        Kind::Unallocated => "\"unallocated\"".to_owned(),
    };
    format!("{{ at = {}, len = {}, kind = {kind} }}", number(*at), number(*len))
}

fn opening(opening: Opening) -> String {
    match opening {
        Ok(()) => "\"accept\"".to_owned(),
        Err(clause) => format!("{{ reject = \"{clause}\" }}"),
    }
}

/// Small numbers in decimal, offsets in hex, four digits at a time where there are many.
fn number(number: u64) -> String {
    if number < 0x1000 || number < 0x1_0000 && !number.is_multiple_of(512) {
        return number.to_string();
    }
    let digits = format!("{number:x}");
    if digits.len() <= 8 {
        return format!("0x{digits}");
    }
    let (first, rest) = digits.split_at((digits.len() - 1) % 4 + 1);
    let groups = rest.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group));
    groups.fold(format!("0x{first}"), |all, group| format!("{all}_{group}"))
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let cases = [
            (0, "0"),
            (512, "512"),
            (4095, "4095"),
            (4096, "0x1000"),
            (4097, "4097"),
            (0x1_0001, "0x10001"),
            (0xffff_ffff, "0xffffffff"),
            (0x1_0000_0000, "0x1_0000_0000"),
            (u64::MAX - 511, "0xffff_ffff_ffff_fe00"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
