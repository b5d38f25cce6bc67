//! The manifest of the golden images as a value and as text. People write names and commands, the
//! task writes the rest; it keeps no comments but the head.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use anyhow::{Result, ensure};
use serde::Deserialize;

const HEAD: &str = "\
# Images that QEMU made. To add one write name, what and commands, then run
# `cargo xtask golden --bless`, which writes the rest of this file. Each command is run by `sh`, all
# of an image in one folder that is empty at first. Every file that they leave is kept as
# NAME.FILE.zst; one of them is image.qed.
#
# content: the digest of the virtual disk as qemu-img reads it; none where it does not, or where the
# disk is larger than 64 MiB.
";

/// Every golden image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The version of QEMU that made them.
    pub(super) qemu: String,
    pub(super) image: Vec<Image>,
}

/// One image, with the files beside it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    /// Lower case words joined with `-`.
    pub(super) name: String,
    /// What is special about it, one line.
    pub(super) what: String,
    pub(super) commands: Vec<String>,
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) files: Vec<File>,
}

/// One file, by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) sha256: String,
}

/// Reads the manifest.
///
/// # Errors
/// It is not of the form, or holds what cannot be written.
pub(super) fn parse(text: &str) -> Result<Manifest> {
    let manifest: Manifest = toml::from_str(text)?;
    let mut names = BTreeSet::new();
    for Image { name, what, commands, .. } in &manifest.image {
        let is_plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        ensure!(is_plain && !name.is_empty(), "{name:?} is no name");
        ensure!(names.insert(name), "{name} comes twice");
        ensure!(!commands.is_empty(), "{name} has no commands");
        let texts = commands.iter().chain([what]);
        let is_literal = |text: &String| !text.contains(['\'', '\n']);
        ensure!(texts.into_iter().all(is_literal), "{name}: no text holds ' or a line's end");
    }
    Ok(manifest)
}

/// The text of a manifest, as [`parse`] reads it.
///
/// # Errors
/// A string takes all that is written, so there are none.
pub(super) fn render(manifest: &Manifest) -> Result<String, fmt::Error> {
    let mut text = format!("{HEAD}\nqemu = '{}'\n", manifest.qemu);
    for image in &manifest.image {
        write!(text, "\n[[image]]\nname = '{}'\nwhat = '{}'\n", image.name, image.what)?;
        writeln!(text, "commands = [")?;
        for command in &image.commands {
            writeln!(text, "    '{command}',")?;
        }
        writeln!(text, "]")?;
        if let Some(content) = &image.content {
            writeln!(text, "content = '{content}'")?;
        }
        writeln!(text, "files = [")?;
        for File { name, len, sha256 } in &image.files {
            writeln!(text, "    {{ name = '{name}', len = {len}, sha256 = '{sha256}' }},")?;
        }
        writeln!(text, "]")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "qemu = '10'\n[[image]]\nname = 'a'\nwhat = 'b'\ncommands = ['x \"y\"']\n";

    #[test]
    fn what_is_rendered_reads_the_same() {
        let files = "content = 'c'\nfiles = [{ name = 'f', len = 1, sha256 = 'd' }]\n";
        let manifest = parse(&format!("{ONE}{files}")).unwrap();
        let once = render(&manifest).unwrap();
        let again = parse(&once).unwrap();
        assert_eq!(again.image[0].files, manifest.image[0].files);
        assert_eq!(again.image[0].content.as_deref(), Some("c"));
        assert_eq!(render(&again).unwrap(), once);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert!(parse(ONE).is_ok());
        for (from, to) in [("'a'", "'A b'"), ("['x \"y\"']", "[]"), ("'x \"y\"'", "\"x 'y'\"")] {
            assert!(parse(&ONE.replace(from, to)).is_err(), "{to}");
        }
        let (_, image) = ONE.split_once('\n').unwrap();
        assert!(parse(&format!("{ONE}{image}")).is_err());
    }
}
