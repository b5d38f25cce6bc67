//! Sizes and numbers as `qemu-img` reads them: bytes, or K M G T P E with powers of 1024, also
//! with a fraction (`1.5G`) or in hexadecimal without a suffix (`0x1000`).

use std::ffi::OsStr;
use std::ops::RangeInclusive;

use anyhow::{anyhow, bail};

use crate::failure::shown;

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeError {
    /// Not a number with an optional suffix.
    Invalid,
    /// Negative, or 2^64 and above.
    OutOfRange,
}

/// Reads a size in bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let size = parse_unsigned(text);
    match size {
        Err(SizeError::Invalid) => Err(SizeError::Invalid),
        // Zero with a sign is out of range too, as long as nothing follows the digits.
        _ if negative && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(SizeError::OutOfRange)
        }
        Ok(0) if negative => Err(SizeError::Invalid),
        _ if negative => Err(SizeError::OutOfRange),
        size => size,
    }
}

fn parse_unsigned(text: &str) -> Result<u64, SizeError> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return parse_hexadecimal(digits);
    }
    let (whole, rest) = split_digits(text);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(SizeError::Invalid);
    }
    let unit = unit(suffix).ok_or(SizeError::Invalid)?;
    if unit == 1 && fraction.bytes().any(|digit| digit != b'0') {
        return Err(SizeError::Invalid);
    }
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| SizeError::OutOfRange)?,
    };
    let whole = whole.checked_mul(unit).ok_or(SizeError::OutOfRange)?;
    whole.checked_add(fraction_of(unit, fraction)).ok_or(SizeError::OutOfRange)
}

fn parse_hexadecimal(digits: &str) -> Result<u64, SizeError> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(SizeError::Invalid);
    }
    u64::from_str_radix(digits, 16).map_err(|_| SizeError::OutOfRange)
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn unit(suffix: &str) -> Option<u64> {
    let power = match suffix {
        "" | "b" | "B" => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        "p" | "P" => 5,
        "e" | "E" => 6,
        _ => return None,
    };
    Some(1 << (10 * power))
}

/// The bytes that the digits after the point add, rounded to the nearest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the fraction is in 0..=1 and the unit a power of two up to 2^60"
)]
fn fraction_of(unit: u64, digits: &str) -> u64 {
    let fraction: f64 = format!("0.{digits}0").parse().unwrap_or(0.0);
    (fraction * unit as f64 + 0.5) as u64
}

/// A size or count for the thing called `what`, which has to lie in `range`.
pub(crate) fn number_in(
    text: &OsStr,
    what: &str,
    range: RangeInclusive<u64>,
) -> anyhow::Result<u64> {
    match text.to_str().ok_or(SizeError::Invalid).and_then(parse_size) {
        Err(SizeError::Invalid) => bail!("Invalid {what} specified: '{}'.", shown(text)),
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(_) | Err(SizeError::OutOfRange) => bail!(
            "Invalid {what} specified. Must be between {} and {}.",
            range.start(),
            range.end()
        ),
    }
}

/// The value of a size option such as `cluster_size=64k`.
pub(crate) fn option_size(name: &str, text: &str) -> anyhow::Result<u64> {
    parse_size(text).map_err(|error| match error {
        SizeError::OutOfRange => {
            anyhow!("Value '{text}' is out of range for parameter '{name}'")
        }
        SizeError::Invalid => anyhow!(
            "Parameter '{name}' expects a non-negative number below 2^64\n\
             Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
             and exabytes, respectively."
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_qemu_img_reads_them() {
        let cases: &[(&str, u64)] = &[
            ("0", 0),
            ("010", 10),
            ("1000", 1000),
            (" 1", 1),
            ("+1", 1),
            ("1b", 1),
            ("1B", 1),
            ("64k", 65536),
            ("64K", 65536),
            ("1.5k", 1536),
            ("1.1k", 1126),
            ("0.7k", 717),
            ("0.1k", 102),
            (".5M", 524_288),
            ("1.", 1),
            ("1.k", 1024),
            ("1.0", 1),
            ("0.0001k", 0),
            ("1.999999999999999999k", 2048),
            ("1.7M", 1_782_579),
            ("2.2T", 2_418_925_581_107),
            ("1.23456789012345678901234567890G", 1_325_607_178),
            ("7.9999999999999999E", 9_223_372_036_854_775_680),
            ("1e", 1 << 60),
            ("0xFFFF", 65535),
            ("0x8b", 139),
            ("0x8E", 142),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, size) in cases {
            assert_eq!(parse_size(text), Ok(*size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_as_qemu_img_refuses_it() {
        let invalid = [
            "", ".", ".k", ".5", "1.5", "1.5b", "1 ", "1kk", "1Y", "1s", "64MB", "64X", "inf",
            "nan", "1e3", "1.5e2k", "5e+3", "0x", "0x10M", "0x1.8k", "0b11", "1_000", "1,5k",
            "+ 1", "- 1", "-0k", "1.5.5k", "\u{ff11}",
        ];
        for text in invalid {
            assert_eq!(parse_size(text), Err(SizeError::Invalid), "{text}");
        }
        let out_of_range =
            ["-1", "-0", "16E", "18446744073709551616", "18446744073709551615k", "-1M"];
        for text in out_of_range {
            assert_eq!(parse_size(text), Err(SizeError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn numbers_name_what_they_are_for() {
        let text = |value: &str| number_in(value.as_ref(), "image size", 0..=9).unwrap_err();
        assert_eq!(text("x").to_string(), "Invalid image size specified: 'x'.");
        let range = "Invalid image size specified. Must be between 0 and 9.";
        assert_eq!(text("10").to_string(), range);
        assert_eq!(text("-1").to_string(), range);
        assert_eq!(number_in("9".as_ref(), "image size", 0..=9).unwrap(), 9);
    }
}
