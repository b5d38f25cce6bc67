//! The backing file name: bytes that name a file, never interpreted here.

use core::fmt;

use crate::error::BackingNameError;
use crate::len::wide;

/// Longest backing file name in bytes that QEMU writes and reads.
pub const MAX_BACKING_NAME_LEN_BYTES: usize = 4095;

/// A backing file name: 1 to 4095 bytes without NUL, in no particular encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackingName<'a>(&'a [u8]);

impl<'a> BackingName<'a> {
    /// The name with these bytes.
    ///
    /// # Errors
    /// The rule that `bytes` breaks.
    // spec: QED-BACK-03
    pub fn new(bytes: &'a [u8]) -> Result<Self, BackingNameError> {
        if bytes.is_empty() {
            return Err(BackingNameError::Empty);
        }
        if bytes.len() > MAX_BACKING_NAME_LEN_BYTES {
            return Err(BackingNameError::TooLong { found: wide(bytes.len()) });
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(BackingNameError::Nul { at: wide(at) });
        }
        Ok(Self(bytes))
    }

    /// The bytes of the name.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for BackingName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackingName(\"{}\")", self.0.escape_ascii())
    }
}

impl fmt::Display for BackingName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}
