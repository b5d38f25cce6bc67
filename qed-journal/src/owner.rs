//! What the journal leaves to the image it belongs to: sector 0 and the superblock.
//!
//! The journal decides when; the values here let it, and the compiler, see that the order is kept.

use std::io;

use qed_spec::{Epoch, Generation, JournalRing};

/// The image that a journal belongs to, which alone writes sector 0 and superblocks.
///
/// Called by the thread that commits or checkpoints, without a lock of the journal, and never
/// twice at a time for `set_active` and `clear_active`. An implementation must not wait for a
/// lock that a caller of [`crate::Journal::commit`] or [`crate::Journal::checkpoint`] may hold.
pub trait Owner {
    /// Sets JOURNAL_ACTIVE in sector 0. It is durable on return.
    ///
    /// # Errors
    /// Whatever kept it from being durable; the journal then takes no more commits.
    fn set_active(&self) -> io::Result<()>;

    /// Clears JOURNAL_ACTIVE in sector 0, durable after some later flush.
    ///
    /// # Errors
    /// As [`Owner::set_active`].
    fn clear_active(&self) -> io::Result<()>;

    /// Writes the next superblock with the section and the epoch of `to`, makes it durable, and
    /// says so: `Ok(to.durable(generation))`.
    ///
    /// # Errors
    /// As [`Owner::set_active`].
    fn move_tail(&self, to: TailMove) -> io::Result<TailMoved>;
}

/// A new tail of the ring, to be made durable in the superblock: all before it is home and
/// durable.
#[derive(Debug)]
#[must_use = "ring space is free when the superblock with this is durable"]
pub struct TailMove {
    ring: JournalRing,
    epoch: Epoch,
}

/// A new tail that is durable: the ring space before it is free.
#[derive(Debug)]
#[must_use = "the journal waits for it"]
pub struct TailMoved {
    pub(crate) ring: JournalRing,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
}

impl TailMove {
    pub(crate) fn new(ring: JournalRing, epoch: Epoch, _: HomeIsDurable) -> Self {
        Self { ring, epoch }
    }

    /// The payload of the section JOURNAL.
    #[must_use]
    pub fn ring(&self) -> &JournalRing {
        &self.ring
    }

    /// The epoch of the superblock: another one than before after a recovery.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Says that the superblock of `generation`, which has this section and epoch, is durable.
    pub fn durable(self, generation: Generation) -> TailMoved {
        TailMoved { ring: self.ring, epoch: self.epoch, generation }
    }
}

/// Proof that JOURNAL_ACTIVE is durable: what writing a commit asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActiveIsDurable(());

impl ActiveIsDurable {
    /// Asks the owner.
    pub(crate) fn by(owner: &dyn Owner) -> io::Result<Self> {
        owner.set_active().map(|()| Self(()))
    }

    /// The bit was found set when the image was opened.
    pub(crate) fn found() -> Self {
        Self(())
    }
}

/// Proof that every slot before some block is written home and flushed: what moving the tail asks
/// for.
#[derive(Debug)]
pub(crate) struct HomeIsDurable(());

impl HomeIsDurable {
    /// Flushes what was written home.
    pub(crate) fn after(storage: &dyn qed_io::Storage) -> io::Result<Self> {
        storage.flush().map(|()| Self(()))
    }
}
