//! A kept corpus as one text file: a line for each input, its bytes in hexadecimal. Thousands of
//! files of a few bytes would be in everybody's way.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::folder;

/// The file of a target.
pub(super) fn path(name: &str) -> PathBuf {
    folder("corpus").join(name).with_extension("hex")
}

/// Writes the files of `from` into the pack of a target, short ones first; how many they are.
pub(super) fn pack(name: &str, from: &Path) -> Result<usize> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        inputs.push(fs::read(entry?.path())?);
    }
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let text: String = inputs.iter().map(|input| hex(input) + "\n").collect();
    fs::create_dir_all(folder("corpus"))?;
    fs::write(path(name), text).with_context(|| path(name).display().to_string())?;
    Ok(inputs.len())
}

/// Makes `to` a folder with the inputs of a target's pack, if it has one.
pub(super) fn unpack(name: &str, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    if !path(name).exists() {
        return Ok(());
    }
    let text = fs::read_to_string(path(name))?;
    for (number, line) in (1..).zip(text.lines()) {
        let place = || format!("{}, line {number}", path(name).display());
        fs::write(to.join(format!("{number}")), bytes(line).with_context(place)?)?;
    }
    Ok(())
}

/// Bytes as two digits each.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every text");
        text
    })
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).context("no hexadecimal digit");
    let pairs = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let &[high, low] = pair else { anyhow::bail!("half a byte") };
        Ok(u8::try_from(16 * digit(high)? + digit(low)?)?)
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_their_digits() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&hex(&all)).unwrap(), all);
        assert!(hex(&all).starts_with("000102"));
        for bad in ["0", "0g", "+1"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
