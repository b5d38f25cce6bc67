//! Bytes at a place, in the forms in which a vector may give them.

use serde::Deserialize;

/// Bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RunText")]
pub struct Run {
    /// Offset in the file.
    pub at: u64,
    /// What stands there.
    pub bytes: Bytes,
}

/// Bytes, given one by one or as a fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// Each of them.
    Literal(Vec<u8>),
    /// One byte, again and again.
    Fill {
        /// The byte.
        byte: u8,
        /// How often.
        len: u64,
    },
}

/// `{ byte = 0xa5, len = 4096 }`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FillText {
    byte: u8,
    len: u64,
}

/// The forms of bytes; exactly one is given.
#[derive(Debug, Default)]
pub(super) struct BytesText {
    pub(super) u64: Option<Vec<u64>>,
    pub(super) u32: Option<Vec<u32>>,
    pub(super) hex: Option<String>,
    pub(super) text: Option<String>,
    pub(super) fill: Option<FillText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunText {
    at: u64,
    u64: Option<Vec<u64>>,
    u32: Option<Vec<u32>>,
    hex: Option<String>,
    text: Option<String>,
    fill: Option<FillText>,
}

impl Bytes {
    /// How many they are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Literal(bytes) => bytes.len() as u64,
            Self::Fill { len, .. } => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TryFrom<RunText> for Run {
    type Error = String;

    fn try_from(run: RunText) -> Result<Self, String> {
        let RunText { at, u64, u32, hex, text, fill } = run;
        Ok(Self { at, bytes: BytesText { u64, u32, hex, text, fill }.bytes()? })
    }
}

impl BytesText {
    /// Whether no form is given.
    pub(super) fn is_absent(&self) -> bool {
        let literal = self.u64.is_some() || self.u32.is_some();
        !literal && self.hex.is_none() && self.text.is_none() && self.fill.is_none()
    }

    /// The bytes that the one form says.
    pub(super) fn bytes(self) -> Result<Bytes, String> {
        let forms = [
            self.u64.map(|list| list.iter().flat_map(|number| number.to_le_bytes()).collect()),
            self.u32.map(|list| list.iter().flat_map(|number| number.to_le_bytes()).collect()),
            self.hex.map(|hex| from_hex(&hex)).transpose()?,
            self.text.map(String::into_bytes),
        ];
        let fill = self.fill.map(|FillText { byte, len }| Bytes::Fill { byte, len });
        let mut given = forms.into_iter().flatten().map(Bytes::Literal).chain(fill);
        match (given.next(), given.next()) {
            (Some(bytes), None) if bytes.is_empty() => Err("there are no bytes in it".to_owned()),
            (Some(bytes), None) => Ok(bytes),
            _ => Err("bytes are given as one of u64, u32, hex, text and fill".to_owned()),
        }
    }
}

/// `51 45 44 00`, with spaces wherever they help.
pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|char| !char.is_whitespace())
        .map(|char| char.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0);
    let digits = digits.ok_or_else(|| format!("\"{text}\" is not pairs of hex digits"))?;
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
