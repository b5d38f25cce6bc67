//! Checkpoints: what was committed goes home, then the tail moves, then its space is free.
//!
//! The order is that of docs/write-ordering.md, "Checkpoint". Needs no space in the ring.

use std::sync::Arc;
use std::thread;

use qed_spec::JournalSequence;

use crate::error::{JournalAction, JournalError};
use crate::home::{HomeFault, write_home};
use crate::journal::{Frozen, Journal, Phase};
use crate::owner::{HomeIsDurable, Owner, TailMove};

impl Journal {
    /// Writes home what was committed before the call, and frees its space in the ring. Commits go
    /// on meanwhile, as far as there is room.
    ///
    /// # Errors
    /// [`JournalError::Home`] when tables cannot be written: nothing is lost, and it can be tried
    /// again. The others end all writing.
    // spec: QED-JRN-17, QED-JRN-20
    pub fn checkpoint(&self, owner: &dyn Owner) -> Result<(), JournalError> {
        let target = self.locked().head;
        while let Some(turn) = self.begin_checkpoint(target)? {
            turn.run(owner)?;
        }
        Ok(())
    }

    /// A checkpoint of everything, after which JOURNAL_ACTIVE is cleared: the tables say it all, and
    /// programs that know no journal may write the image once the next flush has returned. Batches
    /// that were submitted and not committed are not in the tables.
    ///
    /// # Errors
    /// As [`Journal::checkpoint`].
    // spec: QED-JRN-16
    pub fn quiesce(&self, owner: &dyn Owner) -> Result<(), JournalError> {
        let _turn = self.turn()?;
        self.checkpoint(owner)?;
        {
            let mut state = self.locked();
            if let Phase::Idle = state.phase {
                return Ok(());
            }
            // From the submission of the write on the bit counts as clear.
            state.phase = Phase::Idle;
        }
        owner.clear_active().map_err(|source| self.fatal(JournalAction::ClearActive, source))
    }

    /// Waits until no other checkpoint runs; none when all before `target` is home by then.
    fn begin_checkpoint(
        &self,
        target: JournalSequence,
    ) -> Result<Option<RunningCheckpoint<'_>>, JournalError> {
        let mut state = self.locked();
        while state.checkpointing {
            state = self.wait(state);
        }
        state.check()?;
        if state.ring.tail() >= target {
            return Ok(None);
        }
        // What an earlier one could not write home is tried again as it was.
        let frozen = match state.frozen.take() {
            Some(frozen) => frozen,
            None => {
                Frozen { overlay: Arc::new(std::mem::take(&mut state.fresh)), head: state.head }
            }
        };
        state.frozen = Some(frozen.clone());
        state.checkpointing = true;
        Ok(Some(RunningCheckpoint { journal: self, frozen, was_panicking: thread::panicking() }))
    }
}

/// The one checkpoint that runs.
struct RunningCheckpoint<'a> {
    journal: &'a Journal,
    frozen: Frozen,
    was_panicking: bool,
}

impl RunningCheckpoint<'_> {
    fn run(self, owner: &dyn Owner) -> Result<(), JournalError> {
        let journal = self.journal;
        write_home(&*journal.storage, &self.frozen.overlay)
            .map_err(|HomeFault { at, source }| JournalError::Home { at, source })?;
        let home = HomeIsDurable::after(&*journal.storage)
            .map_err(|source| journal.fatal(JournalAction::Flush, source))?;
        let moved = owner
            .move_tail(self.tail_move(home))
            .map_err(|source| journal.fatal(JournalAction::MoveTail, source))?;
        journal.locked().tail_moved(moved);
        Ok(())
    }

    fn tail_move(&self, home: HomeIsDurable) -> TailMove {
        let state = self.journal.locked();
        let stable = state.head.previous();
        let ring = state.ring.with_state(self.frozen.head, stable);
        let ring = ring.expect("what is in use lies between tail and head and fits the ring");
        TailMove::new(ring, state.epoch, home)
    }
}

impl Drop for RunningCheckpoint<'_> {
    fn drop(&mut self) {
        let mut state = self.journal.locked();
        state.end_if_panicking(self.was_panicking);
        state.checkpointing = false;
        drop(state);
        self.journal.notify();
    }
}
