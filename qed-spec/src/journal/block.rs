//! One block of the journal ring: validated bytes to meaning, and back. Knows no other block.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::addr::ClusterCount;
use crate::crc::crc32c_of_seeded_block;
use crate::geometry::Geometry;
use crate::journal::JournalSequence;
use crate::journal::error::{JournalBlockError, JournalRecordError};
use crate::journal::raw::{JOURNAL_RECORDS_PER_BLOCK, RawJournalBlock, RawJournalRecord};
use crate::journal::record::JournalRecord;
use crate::len::wide;
use crate::parse;
use crate::superblock::{Epoch, Generation, ImageUuid};

/// What the checksums of one epoch's blocks begin with: image and epoch. So blocks that an earlier
/// epoch or another image left behind do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSeed([u8; 24]);

/// What a block says besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalBlockHead {
    /// The checksum of the block before this one.
    pub previous_crc32c: u32,
    /// The number of the block.
    pub sequence: JournalSequence,
    /// The last block known to be durable when this one was written.
    pub stable: JournalSequence,
    /// The superblock known to be durable when this block was written.
    pub generation: Generation,
    /// Clusters of the image file that the commit needs.
    pub physical_size: ClusterCount,
    /// The number of the block in its commit, from 0; less than `count`.
    pub index: u32,
    /// Blocks of the commit.
    pub count: u32,
}

/// A block that keeps every rule that can be told from the block alone.
#[derive(Debug, Clone, Copy)]
pub struct JournalBlock<'a> {
    head: JournalBlockHead,
    crc32c: u32,
    records: &'a [RawJournalRecord],
}

impl JournalSeed {
    /// The seed of an image and an epoch.
    // spec: QED-JRN-05
    #[must_use]
    pub fn new(uuid: ImageUuid, epoch: Epoch) -> Self {
        let mut bytes = [0; 24];
        let parts = uuid.as_bytes().iter().copied().chain(epoch.get().to_le_bytes());
        for (slot, byte) in bytes.iter_mut().zip(parts) {
            *slot = byte;
        }
        Self(bytes)
    }

    fn checksum(&self, raw: &RawJournalBlock) -> u32 {
        crc32c_of_seeded_block(&self.0, raw.as_bytes())
    }
}

impl<'a> JournalBlock<'a> {
    /// Parses the block at the front of `bytes`, of which it uses the first 4096.
    ///
    /// # Errors
    /// [`JournalBlockError::is_absent`] ones where no block of this image and epoch lies here;
    /// else the rule that the block breaks, whose checksum says that it was written so.
    // spec: QED-JRN-04, QED-JRN-05, QED-JRN-06
    pub fn parse(bytes: &'a [u8], seed: &JournalSeed) -> Result<Self, JournalBlockError> {
        let (_, raw) = parse::leaf::<RawJournalBlock>(bytes)
            .map_err(|_| JournalBlockError::Truncated { found: wide(bytes.len()) })?;
        if raw.magic != RawJournalBlock::MAGIC {
            return Err(JournalBlockError::Magic { found: raw.magic });
        }
        let (stored, computed) = (raw.crc32c.get(), seed.checksum(raw));
        if stored != computed {
            return Err(JournalBlockError::Checksum { stored, computed });
        }
        if raw.version.get() != RawJournalBlock::VERSION {
            return Err(JournalBlockError::Version { found: raw.version.get() });
        }
        let (index, count) = (raw.index.get(), raw.count.get());
        if index >= count {
            return Err(JournalBlockError::Index { index, count });
        }
        let generation =
            Generation::new(raw.generation.get()).ok_or(JournalBlockError::Generation)?;
        let head = JournalBlockHead {
            previous_crc32c: raw.previous_crc32c.get(),
            sequence: JournalSequence::new(raw.sequence.get()),
            stable: JournalSequence::new(raw.stable_sequence.get()),
            generation,
            physical_size: ClusterCount::new(raw.physical_size.get()),
            index,
            count,
        };
        if head.stable >= head.sequence {
            let JournalBlockHead { stable, sequence, .. } = head;
            return Err(JournalBlockError::Stable { stable, sequence });
        }
        Ok(Self { head, crc32c: stored, records: records(raw)? })
    }

    /// What the block says besides its records.
    #[must_use]
    pub const fn head(&self) -> &JournalBlockHead {
        &self.head
    }

    /// The checksum that the next block carries as that of the block before it.
    #[must_use]
    pub const fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// The records of the block in the order in which they apply.
    pub fn records(
        &self,
        geometry: Geometry,
    ) -> impl Iterator<Item = Result<JournalRecord, JournalRecordError>> + use<'a> {
        self.records.iter().map(move |raw| JournalRecord::parse(raw, geometry))
    }
}

impl JournalBlockHead {
    /// The block with this head and these records, checksum included.
    ///
    /// # Panics
    /// If there are more records than [`JOURNAL_RECORDS_PER_BLOCK`].
    // spec: QED-JRN-04, QED-JRN-05
    #[must_use]
    pub fn encode(&self, records: &[RawJournalRecord], seed: &JournalSeed) -> RawJournalBlock {
        assert!(records.len() <= JOURNAL_RECORDS_PER_BLOCK, "a block has room for 168 records");
        let mut area = [RawJournalRecord::default(); JOURNAL_RECORDS_PER_BLOCK];
        for (slot, record) in area.iter_mut().zip(records) {
            *slot = *record;
        }
        let used = records.len().saturating_mul(size_of::<RawJournalRecord>());
        let mut raw = RawJournalBlock {
            magic: RawJournalBlock::MAGIC,
            version: U32::new(RawJournalBlock::VERSION),
            crc32c: U32::ZERO,
            previous_crc32c: U32::new(self.previous_crc32c),
            sequence: U64::new(self.sequence.get()),
            stable_sequence: U64::new(self.stable.get()),
            generation: U64::new(self.generation.get()),
            physical_size: U64::new(self.physical_size.get()),
            index: U32::new(self.index),
            count: U32::new(self.count),
            used: U32::new(u32::try_from(used).expect("at most the length of a block")),
            reserved: U32::ZERO,
            records: area,
        };
        raw.crc32c = U32::new(seed.checksum(&raw));
        raw
    }
}

/// The records in use; behind them are zeros.
// spec: QED-JRN-06
fn records(raw: &RawJournalBlock) -> Result<&[RawJournalRecord], JournalBlockError> {
    let found = raw.used.get();
    let fault = JournalBlockError::Used { found };
    let used = usize::try_from(found).map_err(|_| fault)?;
    let (used, rest) = raw.records.as_bytes().split_at_checked(used).ok_or(fault)?;
    let records = <[RawJournalRecord]>::ref_from_bytes(used).map_err(|_| fault)?;
    let is_zero = raw.reserved == U32::ZERO && rest.iter().all(|byte| *byte == 0);
    if is_zero { Ok(records) } else { Err(JournalBlockError::Padding) }
}
