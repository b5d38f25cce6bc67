//! A panic ends what it happened in, and nothing else.
//!
//! A server has one thread scope for all: a panic that left a thread would end the server before its
//! disks are closed, and one that left the others of a connection waiting would keep it from ending. A
//! panic is a bug, of a disk for one; what it was doing there is the disk's to make good.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

/// What was called has panicked. The panic itself was told to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a bug: it panicked")]
pub(crate) struct Panicked;

/// Calls `work`; an error if it panics.
///
/// What it shares with others is disks, which have to stand a request that ends anywhere, and what this
/// crate keeps under locks: that is whole at each step, so nobody there asks for poison.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}
