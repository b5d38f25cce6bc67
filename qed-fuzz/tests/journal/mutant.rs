//! Variants that break one rule each: around the storage and the owner, the journal itself is the
//! one that ships.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use qed_io::Storage;
use qed_journal::{Owner, TailMove, TailMoved, TestImage};
use qed_spec::{Generation, JournalBlockHead, JournalSeed, JournalSequence, RawJournalBlock};
use zerocopy::{FromBytes, IntoBytes};

use crate::session::RING_BLOCKS;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// R1: tables are written before the record is durable.
    HomeBeforeRecord,
    /// A commit is acknowledged before its flush.
    CommitWithoutFlush,
    /// R3: a commit writes the block before it once more.
    BlockWrittenTwice,
    /// R5: the tail moves before the tables are durable.
    TailBeforeHome,
    /// R5: ring space is used again before the tail move is durable.
    ReuseBeforeTail,
    /// R6: recovery moves the tail before the tables are durable.
    RecoveryWithoutFlush,
    /// R7: recovery goes on in the old epoch.
    SameEpoch,
    /// R9: the first commit does not wait for JOURNAL_ACTIVE.
    ActiveWithoutFlush,
    /// Blocks are believed whatever their checksum.
    NoChecksum,
    /// R12: nothing says which blocks were durable.
    NothingStable,
}

impl Mutant {
    /// Those that a crash convicts; the others need a disk that loses what was durable.
    pub(crate) const CRASHING: [Self; 9] = [
        Self::HomeBeforeRecord,
        Self::CommitWithoutFlush,
        Self::BlockWrittenTwice,
        Self::TailBeforeHome,
        Self::ReuseBeforeTail,
        Self::RecoveryWithoutFlush,
        Self::SameEpoch,
        Self::ActiveWithoutFlush,
        Self::NoChecksum,
    ];
}

/// The owner, with the steps that a mutant leaves out.
pub(crate) struct MutantOwner<'a> {
    image: &'a TestImage,
    mutant: Mutant,
}

impl<'a> MutantOwner<'a> {
    pub(crate) fn new(image: &'a TestImage, mutant: Mutant) -> Self {
        Self { image, mutant }
    }

    fn write_tail(&self, to: &TailMove) -> io::Result<Generation> {
        let mut builder = self.image.superblock()?;
        builder.set_epoch(to.epoch());
        let mut ring = *to.ring();
        if self.mutant == Mutant::NothingStable {
            ring =
                ring.with_state(ring.tail(), ring.tail().previous()).map_err(io::Error::other)?;
        }
        let generation = self.image.write_superblock(builder, &ring)?;
        if self.mutant != Mutant::ReuseBeforeTail {
            self.image.storage().flush()?;
        }
        Ok(generation)
    }
}

impl Owner for MutantOwner<'_> {
    fn set_active(&self) -> io::Result<()> {
        if self.mutant != Mutant::ActiveWithoutFlush {
            return self.image.set_active();
        }
        // The write of the whole, without the flush behind it.
        let quiet = Arc::new(Mutated::new(self.image.storage().clone(), Mutant::None));
        quiet.state.lock().unwrap().swallow = true;
        TestImage::open(quiet)?.set_active()
    }

    fn clear_active(&self) -> io::Result<()> {
        self.image.clear_active()
    }

    fn move_tail(&self, to: TailMove) -> io::Result<TailMoved> {
        let generation = self.write_tail(&to)?;
        Ok(to.durable(generation))
    }
}

/// A storage that does what a mutant does.
#[derive(Debug)]
pub(crate) struct Mutated {
    inner: Arc<dyn Storage>,
    mutant: Mutant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was written since the last flush.
    ring: bool,
    home: bool,
    /// Tables are written by a recovery until the first block is.
    committing: bool,
    /// Every flush is swallowed.
    swallow: bool,
    /// Checksums as the journal knows them and as they are on disk.
    resealed: HashMap<u32, u32>,
}

const RING: Range<u64> = 16384..16384 + RING_BLOCKS * 4096;

impl Mutated {
    pub(crate) fn new(inner: Arc<dyn Storage>, mutant: Mutant) -> Self {
        Self { inner, mutant, state: Mutex::default() }
    }

    /// Whether the flush that is asked for now is the one that the mutant drops.
    fn swallows(&self) -> bool {
        let state = self.state.lock().unwrap();
        match self.mutant {
            Mutant::CommitWithoutFlush => state.ring,
            Mutant::TailBeforeHome => state.home && state.committing,
            Mutant::RecoveryWithoutFlush => state.home && !state.committing,
            _ => state.swallow,
        }
    }

    fn rewrite_block_before(&self, offset: u64) -> io::Result<()> {
        if offset == RING.start {
            return Ok(());
        }
        let mut block = [0; 4096];
        self.inner.read_at(&mut block, offset - 4096)?;
        self.inner.write_at(&block, offset - 4096)
    }

    fn seed(&self) -> io::Result<JournalSeed> {
        let setup = TestImage::open(self.inner.clone())?.setup()?;
        Ok(JournalSeed::new(setup.uuid, setup.epoch))
    }

    /// The blocks with nothing in them that says which ones are durable.
    fn without_stable(&self, blocks: &[u8]) -> io::Result<Vec<u8>> {
        let seed = self.seed()?;
        let mut state = self.state.lock().unwrap();
        let mut bytes = Vec::new();
        for block in blocks.chunks(4096) {
            let raw = RawJournalBlock::ref_from_bytes(block).unwrap();
            let previous = raw.previous_crc32c.get();
            let mut head = head(raw);
            head.previous_crc32c = state.resealed.get(&previous).copied().unwrap_or(previous);
            head.stable = JournalSequence::default();
            let changed = head.encode(&raw.records[..raw.used.get() as usize / 24], &seed);
            state.resealed.insert(raw.crc32c.get(), changed.crc32c.get());
            bytes.extend_from_slice(changed.as_bytes());
        }
        Ok(bytes)
    }

    /// Puts checksums right that are wrong, so that nobody minds them.
    fn believe(&self, buf: &mut [u8]) -> io::Result<()> {
        let seed = self.seed()?;
        let mut previous = None;
        for block in buf.chunks_mut(4096) {
            let raw = RawJournalBlock::read_from_bytes(block).unwrap();
            let used = raw.used.get() as usize / 24;
            if raw.magic != RawJournalBlock::MAGIC || used > 168 || raw.generation.get() == 0 {
                continue;
            }
            let mut head = head(&raw);
            head.previous_crc32c = previous.unwrap_or(head.previous_crc32c);
            let changed = head.encode(&raw.records[..used], &seed);
            previous = Some(changed.crc32c.get());
            block.copy_from_slice(changed.as_bytes());
        }
        Ok(())
    }
}

fn head(raw: &RawJournalBlock) -> JournalBlockHead {
    JournalBlockHead {
        previous_crc32c: raw.previous_crc32c.get(),
        sequence: JournalSequence::new(raw.sequence.get()),
        stable: JournalSequence::new(raw.stable_sequence.get()),
        generation: Generation::new(raw.generation.get()).unwrap(),
        physical_size: qed_spec::ClusterCount::new(raw.physical_size.get()),
        index: raw.index.get(),
        count: raw.count.get(),
    }
}

impl Storage for Mutated {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)?;
        if self.mutant == Mutant::NoChecksum && RING.contains(&offset) {
            self.believe(buf)?;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if RING.contains(&offset) {
            let mut state = self.state.lock().unwrap();
            (state.ring, state.committing) = (true, true);
        } else if offset >= RING.end {
            self.state.lock().unwrap().home = true;
        }
        match self.mutant {
            Mutant::BlockWrittenTwice if RING.contains(&offset) => {
                self.rewrite_block_before(offset)?;
                self.inner.write_at(buf, offset)
            }
            Mutant::NothingStable if RING.contains(&offset) => {
                self.inner.write_at(&self.without_stable(buf)?, offset)
            }
            _ => self.inner.write_at(buf, offset),
        }
    }

    fn flush(&self) -> io::Result<()> {
        let swallows = self.swallows();
        let mut state = self.state.lock().unwrap();
        (state.ring, state.home) = (false, false);
        drop(state);
        if swallows { Ok(()) } else { self.inner.flush() }
    }

    qed_io::forward_storage!(inner: len set_len write_zeroes punch_hole run_at growth lock);
}
