//! What keeps a reader from reading: the storage's error with its place. What is wrong with the bytes
//! is said by the errors of qed-spec.

use std::io;
use std::ops::Range;

use qed_io::Storage;
use qed_spec::{ErrorKind, HostOffset};
use thiserror::Error;

/// Reading a part of the image file failed.
#[derive(Debug, Error)]
#[error("reading {len} bytes at {at} failed")]
pub struct ReadError {
    /// Where.
    pub at: HostOffset,
    /// Bytes.
    pub len: u64,
    /// The storage's error.
    #[source]
    pub source: io::Error,
}

impl ReadError {
    /// What the storage's error is about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        (&self.source).into()
    }

    pub(crate) fn new(range: Range<u64>, source: io::Error) -> Self {
        Self { at: HostOffset::new(range.start), len: range.end - range.start, source }
    }
}

/// Reads exactly `buf` from byte `at` of the file.
///
/// # Errors
/// The storage's, with its place.
pub fn read(storage: &dyn Storage, buf: &mut [u8], at: u64) -> Result<(), ReadError> {
    let end = at.saturating_add(buf.len() as u64);
    storage.read_at(buf, at).map_err(|source| ReadError::new(at..end, source))
}
