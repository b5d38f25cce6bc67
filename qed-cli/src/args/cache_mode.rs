//! `-t` and `-T`: QEMU's names for how the page cache is used.

use std::ffi::OsStr;

/// A cache mode. Whatever the mode, output is durable before success is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheMode {
    /// Through the page cache.
    Cached,
    /// Past the page cache.
    Direct,
}

impl CacheMode {
    /// The mode with this name; cached where none is given.
    pub(crate) fn by_name(name: Option<&OsStr>) -> Option<Self> {
        match name.map(OsStr::as_encoded_bytes) {
            None | Some(b"writeback" | b"writethrough" | b"unsafe") => Some(Self::Cached),
            Some(b"none" | b"off" | b"directsync") => Some(Self::Direct),
            Some(_) => None,
        }
    }
}
