//! How an image keeps its tables consistent, as the section MODE says it.

use crate::len::wide;
use crate::superblock::error::ModeError;

/// How the tables of an image survive a crash. An image without the section is classic.
// spec: QED-MODE-01
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConsistencyMode {
    /// Tables are written in place, and the dirty bitmap says which of them a crash left in doubt.
    Compat,
    /// Changes of tables go to the journal first.
    Journal,
}

impl ConsistencyMode {
    /// Bytes of the payload.
    pub const LEN_BYTES: usize = 4;

    /// Parses the payload of a section.
    ///
    /// # Errors
    /// Another length than 4 bytes, or a mode that this crate does not know.
    // spec: QED-MODE-01
    pub fn parse(payload: &[u8]) -> Result<Self, ModeError> {
        let number = payload.try_into().map(u32::from_le_bytes);
        match number.map_err(|_| ModeError::Length { found: wide(payload.len()) })? {
            1 => Ok(Self::Compat),
            2 => Ok(Self::Journal),
            found => Err(ModeError::Unknown { found }),
        }
    }

    /// The payload; [`ConsistencyMode::parse`] gives back the mode.
    #[must_use]
    pub const fn encode(self) -> [u8; Self::LEN_BYTES] {
        match self {
            Self::Compat => 1_u32.to_le_bytes(),
            Self::Journal => 2_u32.to_le_bytes(),
        }
    }

    /// The name of the mode.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compat => "compat",
            Self::Journal => "journal",
        }
    }
}
