//! How the program ends: exit codes, the errors that carry more than a text, and error texts.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// What the program hands to the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    /// Done.
    pub(crate) const SUCCESS: Self = Self(0);
    /// Any error, usage included.
    pub(crate) const FAILURE: Self = Self(1);
    /// Nobody reads standard output any more: 128 and the number of SIGPIPE.
    pub(crate) const CLOSED_OUTPUT: Self = Self(141);
}

/// A command line that says nothing the program could do.
#[derive(Debug)]
pub(crate) struct UsageError {
    /// Who complains: `qemu-img`, or `qemu-img create` for options that do not parse.
    pub(crate) by_option_parser: bool,
    pub(crate) text: String,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for UsageError {}

/// A usage error found after the options were parsed.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    UsageError { by_option_parser: false, text: text.into() }.into()
}

/// SIGINT or SIGTERM asked the program to stop, and it stopped at a safe point.
#[derive(Debug)]
pub(crate) struct Interrupted {
    pub(crate) signal: i32,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by signal {}", self.signal)
    }
}

impl Error for Interrupted {}

/// An option, value or subcommand that belongs to work that is not done.
pub(crate) fn unsupported(what: impl fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{what} is not supported yet")
}

/// The text of an error and its sources, joined by colons, as one line of `qemu-img` has it.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    chain_text(error.chain())
}

/// As [`error_text`], of an error of a library.
pub(crate) fn source_text(error: &(dyn Error + 'static)) -> String {
    chain_text(anyhow::Chain::new(error))
}

fn chain_text(chain: anyhow::Chain<'_>) -> String {
    let parts: Vec<String> = chain.map(part_text).collect();
    // Some texts have two lines.
    let lines: Vec<String> = parts.join(": ").lines().map(tame).collect();
    lines.join("\n")
}

/// The text of one error of a chain.
pub(crate) fn part_text(error: &(dyn Error + 'static)) -> String {
    error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), io_error_text)
}

/// The operating system's words without Rust's error number behind them.
pub(crate) fn io_error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => text.trim_end_matches(&format!(" (os error {number})")).to_owned(),
        None => text,
    }
}

/// A file name inside an error text: bytes that are not UTF-8, and what a terminal would take for a
/// command, show as `\xNN`.
pub(crate) fn shown(name: impl AsRef<OsStr>) -> String {
    let mut text = String::new();
    for chunk in name.as_ref().as_bytes().utf8_chunks() {
        text.push_str(&tame(chunk.valid()));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A name from an image as a line for people: as [`shown`], but bytes that are not UTF-8 are kept.
pub(crate) fn printed(name: &[u8]) -> Vec<u8> {
    let chunks = name.utf8_chunks();
    chunks.flat_map(|chunk| [tame(chunk.valid()).as_bytes(), chunk.invalid()].concat()).collect()
}

/// The text without control characters: an image may hold any, and a user who asks what it is must
/// not have the terminal obey it.
fn tame(text: &str) -> String {
    let escaped = |char: char| format!("\\x{:02x}", u32::from(char));
    let tamed = |char: char| if char.is_control() { escaped(char) } else { char.to_string() };
    text.chars().map(tamed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_lose_their_number() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(io_error_text(&error), "No such file or directory");
        assert_eq!(io_error_text(&io::Error::other("own words")), "own words");
    }

    #[test]
    fn names_that_are_not_utf8_are_escaped() {
        assert_eq!(shown(OsStr::from_bytes(b"a\xff\xc3\xa9")), "a\\xff\u{e9}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let name = b"a\x1b[2J\nb\xc2\x9b\xff";
        assert_eq!(shown(OsStr::from_bytes(name)), "a\\x1b[2J\\x0ab\\x9b\\xff");
        assert_eq!(printed(name), b"a\\x1b[2J\\x0ab\\x9b\xff");
    }
}
