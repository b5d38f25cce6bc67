//! The register as data, `conformance/clauses.toml`: what the document says, without where it is
//! kept, so that it changes only with the document.

use std::fmt::Write as _;

use super::document::Clause;
use super::register::Register;

const HEAD: &str = "\
# Every clause of docs/format.md in its order: id, level, source, the section it stands in, text.
# Written by `cargo xtask spec`; `cargo xtask tidy` fails while it is not what the document says.
";

pub(super) fn render(register: &Register) -> String {
    let mut data = HEAD.to_owned();
    for entry in &register.entries {
        let Clause { id, level, source, section, text, .. } = &entry.clause;
        let [section, text] = [section, text].map(|text| quoted(text));
        write!(
            data,
            "\n[[clause]]\nid = \"{id}\"\nlevel = \"{level}\"\nsource = \"{source}\"\n\
             section = {section}\ntext = {text}\n"
        )
        .expect("a string takes all");
    }
    data
}

/// A text as TOML has it between quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_read_as_it_was() {
        let text = r#"\xNN, "quoted", `a|b` and ünïcode"#;
        let read: toml::Table = toml::from_str(&format!("text = {}", quoted(text))).unwrap();
        assert_eq!(read["text"].as_str(), Some(text));
    }
}
