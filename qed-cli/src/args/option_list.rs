//! `-o`: comma lists of `name=value`, a doubled comma being a comma in a value.
//!
//! Several lists read as one; a later value for a name replaces an earlier one. What names a
//! format knows is a table of [`OptionSpec`]; this file knows none of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use anyhow::{anyhow, bail};

use super::size::option_size;
use crate::failure::{shown, unsupported};

/// One option that a format knows.
#[derive(Debug)]
pub(crate) struct OptionSpec {
    pub(crate) name: &'static str,
    pub(crate) kind: OptionType,
    /// What an option that was not given counts as, and shows.
    pub(crate) default: Option<&'static str>,
    pub(crate) help: &'static str,
}

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionType {
    Size,
    Number,
    Switch,
    Text,
    /// Belongs to work that is not done: known by name and refused.
    Later,
    /// Of a new image alone: known by name and refused.
    CreateOnly,
}

/// The options of all `-o`, not yet held against a table.
#[derive(Debug, Default)]
pub(crate) struct OptionList {
    entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl OptionList {
    /// Splits the lists.
    pub(crate) fn parse(lists: &[OsString]) -> anyhow::Result<Self> {
        let mut entries = Vec::new();
        for list in lists {
            let items = split(list.as_bytes())
                .ok_or_else(|| anyhow!("Invalid option list: {}", shown(list)))?;
            entries.extend(items.into_iter().map(named));
        }
        Ok(Self { entries })
    }

    /// Whether `help` or `?` is among the options.
    pub(crate) fn asks_for_help(&self) -> bool {
        self.entries.iter().any(|(name, value)| {
            value.is_none() && (name.as_slice() == b"help" || name.as_slice() == b"?")
        })
    }

    /// The options as they were given; none for a name without a value.
    pub(crate) fn entries(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.entries
    }

    /// Holds the options against the table of a format.
    pub(crate) fn values(self, specs: &'static [OptionSpec]) -> anyhow::Result<OptionValues> {
        let mut values = OptionValues { specs, given: vec![None; specs.len()] };
        for (name, value) in self.entries {
            let (name, value) = match value {
                Some(value) => (name, value),
                // A switch without a value: `name` for on, `noname` for off.
                None => match name.strip_prefix(b"no") {
                    Some(name) => (name.to_vec(), b"off".to_vec()),
                    None => (name, b"on".to_vec()),
                },
            };
            values.set(&shown(std::ffi::OsStr::from_bytes(&name)), value)?;
        }
        Ok(values)
    }
}

/// The parts of a list between single commas; none if a part would be empty.
fn split(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = vec![Vec::new()];
    let mut bytes = list.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte == b',' && bytes.next_if_eq(&&b',').is_none() {
            items.push(Vec::new());
        } else if let Some(item) = items.last_mut() {
            item.push(*byte);
        }
    }
    items.iter().all(|item| !item.is_empty()).then_some(items)
}

fn named(item: Vec<u8>) -> (Vec<u8>, Option<Vec<u8>>) {
    match item.iter().position(|byte| *byte == b'=') {
        Some(at) => (item[..at].to_vec(), Some(item[at + 1..].to_vec())),
        None => (item, None),
    }
}

/// The options that were given, checked against a table for name and type.
#[derive(Debug)]
pub(crate) struct OptionValues {
    specs: &'static [OptionSpec],
    /// Beside each of `specs`: the value as it is shown.
    given: Vec<Option<Vec<u8>>>,
}

impl OptionValues {
    /// Sets one option; a size is kept as a number of bytes.
    pub(crate) fn set(&mut self, name: &str, value: Vec<u8>) -> anyhow::Result<()> {
        let Some(at) = self.specs.iter().position(|spec| spec.name == name) else {
            bail!("Invalid parameter '{name}'");
        };
        let text = || shown(std::ffi::OsStr::from_bytes(&value));
        let value = match self.specs[at].kind {
            OptionType::Size => option_size(name, &text())?.to_string().into_bytes(),
            OptionType::Number => match text().parse::<u64>() {
                Ok(number) => number.to_string().into_bytes(),
                Err(_) => bail!("Parameter '{name}' expects a number"),
            },
            OptionType::Switch if value != b"on" && value != b"off" => {
                bail!("Parameter '{name}' expects 'on' or 'off'")
            }
            OptionType::CreateOnly => {
                bail!(
                    "Invalid parameter '{name}'\nThis option is only supported for image creation"
                )
            }
            OptionType::Later => return Err(unsupported(format_args!("the option '{name}'"))),
            OptionType::Switch | OptionType::Text => value,
        };
        self.given[at] = Some(value);
        Ok(())
    }

    /// Whether the table has an option of this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.specs.iter().any(|spec| spec.name == name)
    }

    /// The bytes of an option that was given.
    pub(crate) fn given(&self, name: &str) -> Option<&[u8]> {
        let at = self.specs.iter().position(|spec| spec.name == name)?;
        self.given[at].as_deref()
    }

    /// The option as text: as given, or its default.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let at = self.specs.iter().position(|spec| spec.name == name)?;
        match &self.given[at] {
            Some(value) => Some(shown(std::ffi::OsStr::from_bytes(value))),
            None => self.specs[at].default.map(str::to_owned),
        }
    }

    /// A size or number, as given or by default.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.text(name).as_deref() == Some("on")
    }

    /// ` name=value` for each option that was given or has a default, in the table's order, commas
    /// in values doubled.
    pub(crate) fn summary(&self) -> Vec<u8> {
        let mut line = Vec::new();
        for (spec, given) in self.specs.iter().zip(&self.given) {
            let Some(value) = given.as_deref().or(spec.default.map(str::as_bytes)) else {
                continue;
            };
            line.push(b' ');
            line.extend_from_slice(spec.name.as_bytes());
            line.push(b'=');
            for byte in value {
                let copies = if *byte == b',' { 2 } else { 1 };
                line.extend(std::iter::repeat_n(*byte, copies));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec { name: "size", kind: OptionType::Size, default: None, help: "" },
        OptionSpec { name: "cluster", kind: OptionType::Size, default: Some("65536"), help: "" },
        OptionSpec { name: "lazy", kind: OptionType::Switch, default: None, help: "" },
        OptionSpec { name: "file", kind: OptionType::Text, default: None, help: "" },
        OptionSpec { name: "journal", kind: OptionType::Later, default: None, help: "" },
    ];

    fn summary(lists: &[&str]) -> Result<String, String> {
        let lists: Vec<OsString> = lists.iter().map(OsString::from).collect();
        let values = OptionList::parse(&lists).and_then(|list| list.values(SPECS));
        let line = values.map_err(|error| error.to_string())?.summary();
        Ok(String::from_utf8(line).unwrap().trim_start().to_owned())
    }

    #[test]
    fn lists_join_and_later_values_win() {
        let cases: &[(&[&str], &str)] = &[
            (&[], "cluster=65536"),
            (&["size=1M"], "size=1048576 cluster=65536"),
            (&["size=1M,size=2M"], "size=2097152 cluster=65536"),
            (&["cluster=4k", "size=1k", "cluster=8k"], "size=1024 cluster=8192"),
            (&["file=a,,b"], "cluster=65536 file=a,,b"),
            (&["file=a,,,lazy=on"], "cluster=65536 lazy=on file=a,,"),
            (&["file="], "cluster=65536 file="),
            (&["lazy"], "cluster=65536 lazy=on"),
            (&["nolazy"], "cluster=65536 lazy=off"),
        ];
        for (lists, line) in cases {
            assert_eq!(summary(lists).as_deref(), Ok(*line), "{lists:?}");
        }
    }

    #[test]
    fn bad_lists_and_options_are_refused() {
        let cases: &[(&str, &str)] = &[
            ("", "Invalid option list: "),
            (",", "Invalid option list: ,"),
            ("size=1,", "Invalid option list: size=1,"),
            ("foo=1", "Invalid parameter 'foo'"),
            ("nofoo", "Invalid parameter 'foo'"),
            ("=1", "Invalid parameter ''"),
            (" size=1", "Invalid parameter ' size'"),
            ("lazy=3", "Parameter 'lazy' expects 'on' or 'off'"),
            ("size=16E", "Value '16E' is out of range for parameter 'size'"),
            ("journal=on", "the option 'journal' is not supported yet"),
        ];
        for (list, text) in cases {
            assert_eq!(summary(&[list]), Err((*text).to_owned()), "{list}");
        }
        assert!(summary(&["size"]).unwrap_err().starts_with("Parameter 'size' expects"));
    }

    #[test]
    fn help_is_an_option_without_a_value() {
        let asks = |list: &str| OptionList::parse(&[list.into()]).unwrap().asks_for_help();
        assert!(asks("help") && asks("?") && asks("size=1,help"));
        assert!(!asks("size=help") && !asks("help=1"));
    }
}
