//! Walks the ring from its tail, commit by commit, and tells a tail that a crash tore off from
//! blocks that were lost.
//!
//! Believes nothing: what a block says is checked here, what a record says by the caller. Reads the
//! ring in pieces and keeps one commit in memory.

use qed_io::Storage;
use qed_spec::{
    ClusterCount, JOURNAL_BLOCK_LEN_BYTES, JournalBlock, JournalBlockHead, JournalRecord,
    JournalRing, JournalSequence,
};

use crate::error::{JournalAction, JournalFault, RecoveryError};
use crate::setup::JournalSetup;

/// One commit of the ring, all blocks of which are intact.
#[derive(Debug)]
pub(crate) struct ScannedCommit {
    /// The number of its first block.
    pub(crate) first: JournalSequence,
    /// Clusters of the image file.
    pub(crate) physical_size: ClusterCount,
    /// In the order in which they apply.
    pub(crate) records: Vec<JournalRecord>,
}

/// A walk over the commits of a ring.
pub(crate) struct Scan<'a> {
    setup: &'a JournalSetup,
    reader: BlockReader<'a>,
    /// The number of the next commit's first block.
    next: JournalSequence,
    /// The checksum of the block before; none at the tail.
    previous_crc32c: Option<u32>,
    /// The last block that anything says is durable.
    stable: JournalSequence,
}

impl<'a> Scan<'a> {
    /// A walk from the tail.
    pub(crate) fn new(storage: &'a dyn Storage, setup: &'a JournalSetup) -> Self {
        Self {
            setup,
            reader: BlockReader::new(storage, setup),
            next: setup.ring.tail(),
            previous_crc32c: None,
            stable: setup.ring.stable(),
        }
    }

    /// The number of the block that comes next: at the end, the one to write next.
    pub(crate) fn next(&self) -> JournalSequence {
        self.next
    }

    /// The checksum of the last block that was given, where there was one.
    pub(crate) fn last_crc32c(&self) -> Option<u32> {
        self.previous_crc32c
    }

    /// The next commit; none at the end of the log.
    ///
    /// # Errors
    /// [`RecoveryError::Corrupt`] also when the log ends before a block that was durable.
    // spec: QED-JRN-09, QED-JRN-10, QED-JRN-11
    pub(crate) fn next_commit(&mut self) -> Result<Option<ScannedCommit>, RecoveryError> {
        let first = self.next;
        let mut commit =
            ScannedCommit { first, physical_size: ClusterCount::new(0), records: vec![] };
        let mut previous_crc32c = self.previous_crc32c;
        let mut meaningless = None;
        let (mut index, mut count) = (0, 1);
        while index < count {
            let sequence = first.plus(index.into());
            let Some(block) = self.reader.block(sequence)? else {
                return self.end_of_log(first, sequence).map(|()| None);
            };
            let corrupt = |fault| self.setup.corrupt(sequence, fault);
            let head = *block.head();
            self.stable = self.stable.max(head.stable);
            if index == 0 {
                (count, commit.physical_size) = (head.count, head.physical_size);
                check_count(&self.setup.ring, count).map_err(corrupt)?;
            }
            let follows = head.index == index
                && head.count == count
                && head.physical_size == commit.physical_size
                && previous_crc32c.is_none_or(|crc| crc == head.previous_crc32c);
            if !follows {
                return Err(corrupt(JournalFault::Chain));
            }
            for record in block.records(self.setup.geometry) {
                match record {
                    Ok(record) => commit.records.push(record),
                    // Of no account where a block of the commit is missing.
                    Err(error) => {
                        meaningless.get_or_insert(corrupt(JournalFault::Record(error)));
                    }
                }
            }
            previous_crc32c = Some(block.crc32c());
            index += 1;
        }
        if let Some(error) = meaningless {
            return Err(error);
        }
        self.next = first.plus(count.into());
        self.previous_crc32c = previous_crc32c;
        Ok(Some(commit))
    }

    /// The log ends before the commit from `first` on, which lacks the block `missing`. It was torn
    /// off by a crash unless a block of it was durable: the superblock says so, or any block that a
    /// later commit may have left behind it.
    // spec: QED-JRN-12
    fn end_of_log(
        &mut self,
        first: JournalSequence,
        missing: JournalSequence,
    ) -> Result<(), RecoveryError> {
        let ring = &self.setup.ring;
        let lap = ring.tail().plus(ring.blocks());
        let last = missing.plus(2 * ring.max_commit_blocks()).min(lap);
        let mut sequence = missing.plus(1);
        while self.stable < first && sequence < last {
            if let Some(block) = self.reader.block(sequence)? {
                self.stable = self.stable.max(block.head().stable);
            }
            sequence = sequence.plus(1);
        }
        if self.stable < first {
            return Ok(());
        }
        Err(self.setup.corrupt(missing, JournalFault::Lost { stable: self.stable }))
    }
}

/// Blocks of the ring, read in pieces.
struct BlockReader<'a> {
    storage: &'a dyn Storage,
    setup: &'a JournalSetup,
    piece: Vec<u8>,
    /// The number that the first block of the piece would have.
    first: JournalSequence,
}

/// Bytes of the ring that are read at a time.
const PIECE_LEN_BYTES: u64 = 256 << 10;
const BLOCK_LEN_BYTES: u64 = JOURNAL_BLOCK_LEN_BYTES as u64;

impl<'a> BlockReader<'a> {
    fn new(storage: &'a dyn Storage, setup: &'a JournalSetup) -> Self {
        let first = JournalSequence::default();
        Self { storage, setup, piece: Vec::new(), first }
    }

    /// The block with this number; none if no block of this epoch lies in its place, or one of an
    /// earlier lap.
    // spec: QED-JRN-06, QED-JRN-13
    fn block(
        &mut self,
        sequence: JournalSequence,
    ) -> Result<Option<JournalBlock<'_>>, RecoveryError> {
        let setup = self.setup;
        let corrupt = |fault| setup.corrupt(sequence, fault);
        let block = match JournalBlock::parse(self.bytes(sequence)?, &setup.seed()) {
            Ok(block) => block,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(corrupt(JournalFault::Block(error))),
        };
        let JournalBlockHead { sequence: found, generation, .. } = *block.head();
        if found != sequence {
            let laps_between = sequence.since(found) % setup.ring.blocks();
            let is_of_earlier_lap = found < sequence && laps_between == 0;
            return if is_of_earlier_lap {
                Ok(None)
            } else {
                Err(corrupt(JournalFault::Misplaced { found }))
            };
        }
        if generation > setup.generation {
            let current = setup.generation;
            return Err(corrupt(JournalFault::Newer { found: generation, current }));
        }
        Ok(Some(block))
    }

    /// The bytes where the block with this number lies.
    fn bytes(&mut self, sequence: JournalSequence) -> Result<&[u8], RecoveryError> {
        let held = self.piece.len() as u64 / BLOCK_LEN_BYTES;
        if sequence < self.first || sequence.since(self.first) >= held {
            let at = self.setup.ring.offset_of(sequence);
            let len = PIECE_LEN_BYTES.min(self.setup.ring.end().get() - at.get());
            self.piece.resize(to_index(len), 0);
            self.first = sequence;
            self.storage.read_at(&mut self.piece, at.get()).map_err(|source| {
                RecoveryError::Io { action: JournalAction::ReadRing, at, source }
            })?;
        }
        let within = to_index(sequence.since(self.first) * BLOCK_LEN_BYTES);
        Ok(&self.piece[within..within + JOURNAL_BLOCK_LEN_BYTES])
    }
}

impl JournalSetup {
    pub(crate) fn corrupt(&self, sequence: JournalSequence, fault: JournalFault) -> RecoveryError {
        RecoveryError::Corrupt { sequence, at: self.ring.offset_of(sequence), fault }
    }
}

fn check_count(ring: &JournalRing, count: u32) -> Result<(), JournalFault> {
    let max = ring.max_commit_blocks();
    if u64::from(count) > max {
        return Err(JournalFault::CommitTooLong { count, max });
    }
    Ok(())
}

fn to_index(len: u64) -> usize {
    usize::try_from(len).expect("at most the length of a piece")
}
