//! The stored format of the backing file, bound to the name it describes.
//!
//! The classic header can only say "raw". This says any format, and says it about one name, so a
//! program that changes the name without knowing of it makes it void rather than wrong.

use crate::backing_name::BackingName;
use crate::crc::crc32c;
use crate::len::wide;
use crate::superblock::error::BackingFormatError;

/// Longest stored backing format in bytes.
pub const MAX_BACKING_FORMAT_LEN_BYTES: usize = 32;

/// The format of the backing file with a name of a certain checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBackingFormat<'a> {
    name_crc32c: u32,
    format: &'a str,
}

impl<'a> StoredBackingFormat<'a> {
    /// The format of the backing file `name`, for example `qcow2`.
    ///
    /// # Errors
    /// The rule that `format` breaks: 1 to 32 bytes of a-z, 0-9, `-` and `_`.
    pub fn new(format: &'a str, name: BackingName<'_>) -> Result<Self, BackingFormatError> {
        Self::from_parts(crc32c(name.as_bytes()), format.as_bytes())
    }

    /// Parses the payload of a section.
    ///
    /// # Errors
    /// The rule that it breaks.
    // spec: QED-SB-15
    pub fn parse(payload: &'a [u8]) -> Result<Self, BackingFormatError> {
        let (crc, format) = payload
            .split_first_chunk()
            .ok_or(BackingFormatError::Truncated { found: wide(payload.len()) })?;
        Self::from_parts(u32::from_le_bytes(*crc), format)
    }

    /// The stored format if it describes `name`; none if it describes another.
    // spec: QED-SB-15
    #[must_use]
    pub fn format_of(&self, name: BackingName<'_>) -> Option<&'a str> {
        (crc32c(name.as_bytes()) == self.name_crc32c).then_some(self.format)
    }

    /// The format, whatever name it describes.
    #[must_use]
    pub const fn format(&self) -> &'a str {
        self.format
    }

    /// The CRC-32C of the name that the format describes.
    #[must_use]
    pub const fn name_crc32c(&self) -> u32 {
        self.name_crc32c
    }

    // spec: QED-SB-16
    pub(crate) fn from_parts(
        name_crc32c: u32,
        format: &'a [u8],
    ) -> Result<Self, BackingFormatError> {
        if format.is_empty() || format.len() > MAX_BACKING_FORMAT_LEN_BYTES {
            return Err(BackingFormatError::Length { found: wide(format.len()) });
        }
        let bad = (0..).zip(format).find(|(_, byte)| !is_format_byte(**byte));
        if let Some((at, found)) = bad {
            return Err(BackingFormatError::Byte { at, found: *found });
        }
        let format = core::str::from_utf8(format).expect("every byte is ASCII");
        Ok(Self { name_crc32c, format })
    }
}

const fn is_format_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
}
