//! `-t` and `-T`: QEMU's names for how the page cache is used.

use std::ffi::OsStr;

/// A cache mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheMode {
    /// Through the page cache; output is durable before success is reported.
    Cached,
    /// Through the page cache; a new image is left there, durable when the system writes it.
    Unsafe,
    /// Past the page cache; output is durable before success is reported.
    Direct,
}

impl CacheMode {
    /// The mode with this name; cached where none is given.
    pub(crate) fn by_name(name: Option<&OsStr>) -> Option<Self> {
        match name.map(OsStr::as_encoded_bytes) {
            None | Some(b"writeback" | b"writethrough") => Some(Self::Cached),
            Some(b"unsafe") => Some(Self::Unsafe),
            Some(b"none" | b"off" | b"directsync") => Some(Self::Direct),
            Some(_) => None,
        }
    }

    /// Whether the mode with this name makes each write durable before it is done.
    pub(crate) fn is_write_through(name: Option<&OsStr>) -> bool {
        let name = name.map(OsStr::as_encoded_bytes);
        matches!(name, Some(b"writethrough" | b"directsync"))
    }
}
