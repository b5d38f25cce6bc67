//! Commits: the thread that asks first leads, writes what all have submitted, and the others wait for it.
//!
//! The order is that of docs/write-ordering.md, "Commit". Knows blocks, not what records mean.

use std::collections::VecDeque;
use std::thread;

use qed_spec::{
    ClusterCount, JOURNAL_BLOCK_LEN_BYTES, JOURNAL_RECORDS_PER_BLOCK, JournalBlockHead,
    JournalRing, JournalSequence, RawJournalRecord,
};
use zerocopy::IntoBytes;

use crate::batch::{Batch, DataOrder, Ticket, fitting, max_records};
use crate::error::{JournalAction, JournalError};
use crate::journal::{Journal, Phase};
use crate::owner::{ActiveIsDurable, Owner};

/// Runs in memory above which a commit makes a checkpoint first: some 50 MiB.
const RUNS_MAX: usize = 1 << 20;

impl Journal {
    /// Waits until the batch of `ticket`, all batches before it, and every write to the storage
    /// that was complete when it was submitted are durable.
    ///
    /// Concurrent calls share one write and one flush.
    ///
    /// # Errors
    /// [`JournalError::Home`] when the ring is full and tables cannot be written: the batch stays
    /// queued, and any later commit tries again. After [`JournalError::Fatal`] and
    /// [`JournalError::Failed`] it is not known whether the batch is durable, and the journal takes
    /// no more commits.
    // spec: QED-JRN-18
    pub fn commit(&self, ticket: &Ticket, owner: &dyn Owner) -> Result<(), JournalError> {
        while let Some(turn) = self.turn_unless(ticket)? {
            turn.round(owner)?;
        }
        Ok(())
    }

    /// [`Journal::submit`] and [`Journal::commit`] in one.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    ///
    /// # Panics
    /// If the batch is larger than [`Journal::max_records`] allows.
    pub fn commit_batch(&self, batch: Batch, owner: &dyn Owner) -> Result<(), JournalError> {
        let ticket = self.submit(batch).expect("the caller keeps to `max_records`");
        self.commit(&ticket, owner)
    }

    /// Waits for the turn to write; none when the ticket is durable by then.
    fn turn_unless(&self, ticket: &Ticket) -> Result<Option<Turn<'_>>, JournalError> {
        let mut state = self.locked();
        loop {
            if state.queue.is_durable(ticket) {
                return Ok(None);
            }
            state.check()?;
            if !state.turn_taken {
                state.turn_taken = true;
                return Ok(Some(Turn::new(self)));
            }
            state = self.wait(state);
        }
    }

    /// Waits for the turn to write.
    pub(crate) fn turn(&self) -> Result<Turn<'_>, JournalError> {
        let mut state = self.locked();
        while state.turn_taken {
            state = self.wait(state);
        }
        state.check()?;
        state.turn_taken = true;
        Ok(Turn::new(self))
    }
}

/// The right to write commits: one thread has it at a time.
pub(crate) struct Turn<'a> {
    journal: &'a Journal,
    /// A leader that is dropped by a panic may still commit.
    was_panicking: bool,
}

impl<'a> Turn<'a> {
    fn new(journal: &'a Journal) -> Self {
        Self { journal, was_panicking: thread::panicking() }
    }

    /// Commits all that wait in the queue now; what comes later is for the next round, so that
    /// every flush here was submitted after the batches that it covers.
    fn round(&self, owner: &dyn Owner) -> Result<(), JournalError> {
        let mut batches = self.journal.locked().queue.take();
        let outcome = self.write(&mut batches, owner);
        self.journal.locked().queue.put_back(batches);
        outcome
    }

    // spec: QED-JRN-15
    fn write(&self, batches: &mut VecDeque<Batch>, owner: &dyn Owner) -> Result<(), JournalError> {
        let has_records = |batch: &Batch| !batch.records.is_empty();
        let data_first = |batch: &Batch| has_records(batch) && batch.data == DataOrder::First;
        if !batches.iter().any(has_records) || batches.iter().any(data_first) {
            self.flush()?;
        }
        let max_records = max_records(&self.journal.locked().ring);
        while !batches.is_empty() {
            let count = fitting(batches, max_records);
            let commit = batches.range(..count);
            let records = commit.clone().map(|batch| batch.records.len()).sum();
            if records > 0 {
                self.make_room(blocks_for(records), owner)?;
                let active = self.activate(owner)?;
                self.write_commit(commit, active)?;
            }
            batches.drain(..count);
            self.journal.locked().queue.done(count);
            self.journal.notify();
        }
        Ok(())
    }

    /// Waits until the ring has room for `blocks`. Commits need space, checkpoints do not, so this
    /// ends: a checkpoint that begins now frees all there is.
    // spec: QED-JRN-20, QED-JRN-21
    fn make_room(&self, blocks: u64, owner: &dyn Owner) -> Result<(), JournalError> {
        loop {
            {
                let state = self.journal.locked();
                state.check()?;
                if state.free_blocks() >= blocks && state.runs() <= RUNS_MAX {
                    return Ok(());
                }
            }
            self.journal.checkpoint(owner)?;
        }
    }

    /// JOURNAL_ACTIVE is durable before a commit is written.
    // spec: QED-JRN-16
    fn activate(&self, owner: &dyn Owner) -> Result<ActiveIsDurable, JournalError> {
        if let Phase::Active(proof) = self.journal.locked().phase {
            return Ok(proof);
        }
        let proof = ActiveIsDurable::by(owner)
            .map_err(|source| self.journal.fatal(JournalAction::SetActive, source))?;
        self.journal.locked().phase = Phase::Active(proof);
        Ok(proof)
    }

    /// One commit: its blocks in one write, two where the ring ends, then a flush. Only then are
    /// its slots written anywhere else.
    // spec: QED-JRN-17, QED-JRN-19
    fn write_commit<'b>(
        &self,
        batches: impl Iterator<Item = &'b Batch> + Clone,
        _: ActiveIsDurable,
    ) -> Result<(), JournalError> {
        let journal = self.journal;
        let commit = self.encode(batches.clone());
        for (at, bytes) in commit.writes() {
            let written = journal.storage.write_at(bytes, at);
            written.map_err(|source| journal.fatal(JournalAction::WriteRing, source))?;
        }
        self.flush()?;
        let mut state = journal.locked();
        state.head = commit.after.sequence;
        state.last_crc32c = commit.after.previous_crc32c;
        state.physical_size = commit.after.physical_size;
        for record in batches.flat_map(|batch| &batch.records) {
            if let Some(slots) = record.slots(journal.geometry()) {
                state.fresh.set(&slots);
            }
        }
        Ok(())
    }

    fn encode<'b>(&self, batches: impl Iterator<Item = &'b Batch> + Clone) -> Encoded {
        let journal = self.journal;
        let records: Vec<RawJournalRecord> = batches
            .clone()
            .flat_map(|batch| &batch.records)
            .map(|record| record.encode(journal.geometry()))
            .collect();
        let asked = batches.map(|batch| batch.physical_size).max().unwrap_or_default();
        let (ring, mut head) = self.first_head(asked, blocks_for(records.len()));
        let first = head.sequence;
        let mut bytes =
            Vec::with_capacity(to_index(u64::from(head.count)) * JOURNAL_BLOCK_LEN_BYTES);
        for part in records.chunks(JOURNAL_RECORDS_PER_BLOCK) {
            let block = head.encode(part, &journal.seed);
            bytes.extend_from_slice(block.as_bytes());
            head.previous_crc32c = block.crc32c.get();
            head.sequence = head.sequence.plus(1);
            head.index += 1;
        }
        Encoded { ring, first, after: head, bytes }
    }

    /// The head of a commit's first block.
    // spec: QED-JRN-14
    fn first_head(&self, asked: ClusterCount, blocks: u64) -> (JournalRing, JournalBlockHead) {
        let state = self.journal.locked();
        // In what a recovery would read the size never falls.
        let is_first = state.head == state.ring.tail();
        let physical_size = if is_first { asked } else { asked.max(state.physical_size) };
        let head = JournalBlockHead {
            previous_crc32c: state.last_crc32c,
            sequence: state.head,
            stable: state.head.previous(),
            generation: state.generation,
            physical_size,
            index: 0,
            count: u32::try_from(blocks).expect("at most 256"),
        };
        (state.ring, head)
    }

    fn flush(&self) -> Result<(), JournalError> {
        let flushed = self.journal.storage.flush();
        flushed.map_err(|source| self.journal.fatal(JournalAction::Flush, source))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.journal.locked();
        state.end_if_panicking(self.was_panicking);
        state.turn_taken = false;
        drop(state);
        self.journal.notify();
    }
}

/// The blocks of a commit.
struct Encoded {
    ring: JournalRing,
    first: JournalSequence,
    /// What the block after them would say.
    after: JournalBlockHead,
    bytes: Vec<u8>,
}

impl Encoded {
    /// The writes that put the blocks into the ring: offset and bytes.
    // spec: QED-JRN-03
    fn writes(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let at = self.ring.offset_of(self.first).get();
        let room = to_index(self.ring.end().get() - at);
        let (before, after) = self.bytes.split_at(room.min(self.bytes.len()));
        let writes = [(at, before), (self.ring.offset().get(), after)];
        writes.into_iter().filter(|(_, bytes)| !bytes.is_empty())
    }
}

/// Blocks that hold as many records.
fn blocks_for(records: usize) -> u64 {
    records.div_ceil(JOURNAL_RECORDS_PER_BLOCK) as u64
}

fn to_index(len: u64) -> usize {
    usize::try_from(len).expect("at most the length of a ring")
}
