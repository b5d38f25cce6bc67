//! The open journal: its state, the commit leader, and reading tables through it.
//!
//! Owns the lock and what it guards. How a commit is written is `commit.rs`, how the ring is emptied
//! `checkpoint.rs`.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use qed_io::Storage;
use qed_spec::{
    ClusterCount, Epoch, Generation, Geometry, HostOffset, JournalRing, JournalSeed,
    JournalSequence,
};

use crate::batch::{Batch, Queue, Ticket, max_records};
use crate::error::{BatchTooLarge, JournalAction, JournalError};
use crate::overlay::Overlay;
use crate::owner::{ActiveIsDurable, TailMoved};
use crate::setup::JournalSetup;

/// The journal of an image that is open for writing, shared by any number of threads.
///
/// Starts no thread: a commit is written by the thread that asks for it, a checkpoint too. A commit
/// that finds the ring full makes a checkpoint first, or waits for the one that is under way; a
/// checkpoint needs no space in the ring.
pub struct Journal {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) seed: JournalSeed,
    /// The image as it was when the journal was opened.
    setup: JournalSetup,
    state: Mutex<State>,
    /// Some batch is durable, the turn is free, or a checkpoint has ended.
    changed: Condvar,
}

/// How full the ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalUsage {
    /// Blocks of the ring.
    pub blocks: u64,
    /// Blocks that are not free.
    pub used_blocks: u64,
    /// The number that the next block gets.
    pub head: JournalSequence,
    /// The first block that a recovery would read.
    pub tail: JournalSequence,
    /// Runs of slots in memory that the tables do not hold yet.
    pub runs: usize,
    /// Whether JOURNAL_ACTIVE is set.
    pub active: bool,
}

/// What the lock guards.
pub(crate) struct State {
    /// As the durable superblock has it.
    pub(crate) ring: JournalRing,
    pub(crate) epoch: Epoch,
    /// Of the durable superblock.
    pub(crate) generation: Generation,
    /// The number of the next block.
    pub(crate) head: JournalSequence,
    /// The checksum of the last block.
    pub(crate) last_crc32c: u32,
    /// Clusters as the last commit had them.
    pub(crate) physical_size: ClusterCount,
    pub(crate) phase: Phase,
    pub(crate) queue: Queue,
    /// What was committed since the last checkpoint began.
    pub(crate) fresh: Overlay,
    /// What a checkpoint is writing home, or failed to.
    pub(crate) frozen: Option<Frozen>,
    /// Some thread has the turn to write commits.
    pub(crate) turn_taken: bool,
    /// Some thread makes a checkpoint.
    pub(crate) checkpointing: bool,
    /// Counts the checkpoints that have dropped what they wrote home.
    homed: u64,
}

/// What JOURNAL_ACTIVE is, as far as commits are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Phase {
    /// Not known to be set.
    Idle,
    /// Set, durably.
    Active(ActiveIsDurable),
    /// Something failed: nothing is written any more.
    Failed,
}

/// What a checkpoint writes home.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) overlay: Arc<Overlay>,
    /// The first block that is not in it.
    pub(crate) head: JournalSequence,
}

impl Journal {
    /// The journal of an image that was closed cleanly, or has just got one ([`crate::format`]):
    /// JOURNAL_ACTIVE is clear.
    ///
    /// # Errors
    /// [`JournalError::NotEmpty`] when the superblock says that blocks are not in the tables,
    /// [`JournalError::RunningOut`] when the ring has to begin anew in another epoch.
    pub fn open_clean(
        storage: Arc<dyn Storage>,
        setup: &JournalSetup,
    ) -> Result<Self, JournalError> {
        let (tail, stable) = (setup.ring.tail(), setup.ring.stable());
        if stable >= tail {
            return Err(JournalError::NotEmpty { tail, stable });
        }
        if setup.ring.is_running_out() {
            return Err(JournalError::RunningOut { tail });
        }
        let JournalSetup { ring, epoch, generation, .. } = *setup;
        Ok(Self::with_phase(storage, setup, TailMoved { ring, epoch, generation }, Phase::Idle))
    }

    /// The journal of an image that was recovered, with the bit still set.
    pub(crate) fn active(storage: Arc<dyn Storage>, setup: JournalSetup, moved: TailMoved) -> Self {
        Self::with_phase(storage, &setup, moved, Phase::Active(ActiveIsDurable::found()))
    }

    fn with_phase(
        storage: Arc<dyn Storage>,
        setup: &JournalSetup,
        TailMoved { ring, epoch, generation }: TailMoved,
        phase: Phase,
    ) -> Self {
        let state = State {
            ring,
            epoch,
            generation,
            head: ring.tail(),
            last_crc32c: 0,
            physical_size: ClusterCount::new(0),
            phase,
            queue: Queue::default(),
            fresh: Overlay::default(),
            frozen: None,
            turn_taken: false,
            checkpointing: false,
            homed: 0,
        };
        let seed = JournalSeed::new(setup.uuid, epoch);
        let setup = *setup;
        Self { storage, seed, setup, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Queues a batch behind all that were submitted before. It is lost in a crash before
    /// [`Journal::commit`] has returned for its ticket or a later one.
    ///
    /// Takes no I/O, so a caller that changes slots under a lock submits under the same lock and
    /// commits without it.
    ///
    /// # Errors
    /// [`BatchTooLarge`] for more records than one commit takes ([`Journal::max_records`]).
    ///
    /// # Panics
    /// If a record sets or names what lies in the header area or past the physical size of the
    /// batch: recovery would refuse it.
    // spec: QED-JRN-08
    pub fn submit(&self, batch: Batch) -> Result<Ticket, BatchTooLarge> {
        let end = self.setup.image_len(batch.physical_size);
        let inside = |record| end.is_some_and(|end| self.setup.contains(record, end));
        assert!(batch.records.iter().all(inside), "records stay inside the image: {batch:?}");
        let (records, max) = (batch.records.len(), self.max_records());
        if records > max {
            return Err(BatchTooLarge { records, max });
        }
        Ok(self.locked().queue.push(batch))
    }

    /// Records that one commit, and so one batch, takes at most.
    #[must_use]
    pub fn max_records(&self) -> usize {
        max_records(&self.locked().ring)
    }

    /// Reads from the image file what is there or was committed: `buf` and `at` are multiples of 8.
    ///
    /// # Errors
    /// The error of the storage.
    ///
    /// # Panics
    /// If `at` or the length of `buf` is not a multiple of 8.
    pub fn read_at(&self, buf: &mut [u8], at: HostOffset) -> io::Result<()> {
        loop {
            let homed = self.locked().homed;
            self.storage.read_at(buf, at.get())?;
            let state = self.locked();
            // Else a checkpoint may have written home after the read and dropped it before this.
            if state.homed == homed {
                if let Some(frozen) = &state.frozen {
                    frozen.overlay.patch(buf, at);
                }
                state.fresh.patch(buf, at);
                return Ok(());
            }
        }
    }

    /// How full the ring is. At half or more a checkpoint is due, before commits have to wait.
    #[must_use]
    pub fn usage(&self) -> JournalUsage {
        let state = self.locked();
        JournalUsage {
            blocks: state.ring.blocks(),
            used_blocks: state.head.since(state.ring.tail()),
            head: state.head,
            tail: state.ring.tail(),
            runs: state.runs(),
            active: matches!(state.phase, Phase::Active(_)),
        }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.setup.geometry
    }

    // A writer that panics ends all writing as it goes: see `State::end_if_panicking`.
    pub(crate) fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Ends all writing.
    // spec: QED-JRN-27
    pub(crate) fn fatal(&self, action: JournalAction, source: io::Error) -> JournalError {
        self.locked().phase = Phase::Failed;
        JournalError::Fatal { action, source }
    }
}

impl State {
    /// Blocks that a commit may use.
    // spec: QED-JRN-20
    pub(crate) fn free_blocks(&self) -> u64 {
        self.ring.blocks() - self.head.since(self.ring.tail())
    }

    /// Runs in memory.
    pub(crate) fn runs(&self) -> usize {
        self.fresh.runs() + self.frozen.as_ref().map_or(0, |frozen| frozen.overlay.runs())
    }

    pub(crate) fn check(&self) -> Result<(), JournalError> {
        match self.phase {
            Phase::Failed => Err(JournalError::Failed),
            Phase::Idle | Phase::Active(_) => Ok(()),
        }
    }

    /// Ends all writing when the thread that gives up its turn panics, and did not when it took it:
    /// batches that it had taken are gone, and what it wrote of them nobody knows.
    pub(crate) fn end_if_panicking(&mut self, was_panicking: bool) {
        if thread::panicking() && !was_panicking {
            self.phase = Phase::Failed;
        }
    }

    /// Takes over a tail that is durable; what was written home before it is dropped.
    pub(crate) fn tail_moved(&mut self, TailMoved { ring, epoch, generation }: TailMoved) {
        (self.ring, self.epoch, self.generation) = (ring, epoch, generation);
        self.frozen = None;
        self.homed += 1;
    }
}

impl Debug for Journal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
