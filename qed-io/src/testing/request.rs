//! What a wrapped storage is asked for, as predicates see it.
//!
//! Owns the description of one request; knows nothing of what is done about it.

use std::ops::Range;

/// One request, before the wrapped storage sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How many requests came before it; the first is 0.
    pub number: u64,
    /// What is asked for.
    pub kind: RequestKind,
    /// The bytes it is about: `0..len` of [`RequestKind::SetLen`], empty at the place asked for of
    /// [`RequestKind::Run`], `0..0` of what concerns the whole storage.
    pub range: Range<u64>,
}

impl Request {
    /// Whether it is of `kind` and about at least one byte of `range`.
    #[must_use]
    pub fn touches(&self, kind: RequestKind, range: &Range<u64>) -> bool {
        self.kind == kind && self.range.start < range.end && range.start < self.range.end
    }
}

/// What a request asks for; one for each operation that can fail in a storage, locks aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// [`len`](crate::Storage::len) or [`is_empty`](crate::Storage::is_empty).
    Len,
    /// [`read_at`](crate::Storage::read_at).
    Read,
    /// [`write_at`](crate::Storage::write_at), or one slice of
    /// [`write_vectored_at`](crate::Storage::write_vectored_at).
    Write,
    /// [`set_len`](crate::Storage::set_len).
    SetLen,
    /// [`flush`](crate::Storage::flush).
    Flush,
    /// [`write_zeroes`](crate::Storage::write_zeroes).
    WriteZeroes,
    /// [`punch_hole`](crate::Storage::punch_hole).
    PunchHole,
    /// [`discard`](crate::Storage::discard).
    Discard,
    /// [`run_at`](crate::Storage::run_at).
    Run,
}

/// The bytes from `offset` that a buffer of `len` covers.
pub(super) fn span(offset: u64, len: usize) -> Range<u64> {
    offset..offset.saturating_add(len as u64)
}
