//! The journal on disk: where its ring lies, what a block of it holds, what a record says.
//!
//! Bytes to meaning and back, one block at a time. Which blocks make up a commit, and what is done
//! with their records, is asked elsewhere.

pub(crate) mod block;
pub(crate) mod error;
pub(crate) mod raw;
pub(crate) mod record;
pub(crate) mod ring;

use core::fmt;

/// The number of a journal block: each block has the number of the one before it plus one, and no
/// number comes twice in one epoch.
///
/// 0 stands for "none yet": it is the number before that of the first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct JournalSequence(u64);

impl JournalSequence {
    /// The number of the first block of a new ring.
    pub const FIRST: Self = Self(1);

    /// The sequence with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number `blocks` further on. No writer gets near the last number, which is where this
    /// stays.
    #[must_use]
    pub const fn plus(self, blocks: u64) -> Self {
        Self(self.0.saturating_add(blocks))
    }

    /// The number of the block before; that of none is none.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many numbers lie from `first` up to this one, without it; 0 where it comes before.
    #[must_use]
    pub const fn since(self, first: Self) -> u64 {
        self.0.saturating_sub(first.0)
    }
}

impl fmt::Display for JournalSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
