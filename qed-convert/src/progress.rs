//! What a long operation tells its caller while it runs, and how the caller stops it.

use std::error::Error;

/// The caller's side of a conversion or comparison; every method is called from any of its threads.
pub trait Progress: Sync {
    /// `done` of `total` bytes of the virtual disk are behind; holes count as soon as they are
    /// passed. Never goes back.
    fn advanced(&self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// `len` bytes at `offset` of the source could not be read and become zeros.
    fn unreadable(&self, offset: u64, len: u64, error: &(dyn Error + 'static)) {
        let _ = (offset, len, error);
    }

    /// Whether to stop; asked about once per half MiB copied.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Says nothing and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
