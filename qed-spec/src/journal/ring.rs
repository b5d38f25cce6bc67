//! Place and state of the journal ring, as the superblock section has them.

use zerocopy::little_endian::U64;

use crate::addr::HostOffset;
use crate::header::Header;
use crate::journal::JournalSequence;
use crate::journal::error::JournalRingError;
use crate::journal::raw::{JOURNAL_BLOCK_LEN_BYTES, RawJournalRing};
use crate::len::wide;
use crate::parse;
use crate::superblock::dirty_bitmap::DirtyBitmap;

/// Where the ring of the journal lies, and which part of it recovery reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalRing {
    offset: HostOffset,
    len_bytes: u64,
    tail: JournalSequence,
    stable: JournalSequence,
}

impl JournalRing {
    /// Bytes of the payload.
    pub const LEN_BYTES: usize = size_of::<RawJournalRing>();
    /// Bytes of the smallest ring.
    pub const MIN_LEN_BYTES: u64 = 32 << 10;
    /// Bytes of the largest ring.
    pub const MAX_LEN_BYTES: u64 = 1 << 30;
    /// The largest tail sequence that is read, far beyond what any image gets to.
    pub const MAX_SEQUENCE: JournalSequence = JournalSequence::new(1 << 62);
    /// First byte behind the superblocks: no ring begins before it.
    const FIRST_BYTE: u64 = 16384;

    /// An empty ring of `len_bytes` at `offset`, whose first block gets the number `tail`.
    ///
    /// # Errors
    /// [`JournalRingError::Place`] for a place or a length that is not whole blocks, or too few or
    /// too many; [`JournalRingError::Sequence`] for a tail out of range.
    // spec: QED-JRN-01, QED-JRN-02
    pub fn new(
        offset: HostOffset,
        len_bytes: u64,
        tail: JournalSequence,
    ) -> Result<Self, JournalRingError> {
        Self { offset, len_bytes, tail, stable: tail.previous() }.checked()
    }

    /// Parses the payload of the section in an image with this header.
    ///
    /// # Errors
    /// The rule that it breaks.
    // spec: QED-JRN-01, QED-JRN-02, QED-JRN-03
    pub fn parse(payload: &[u8], header: &Header) -> Result<Self, JournalRingError> {
        let found = wide(payload.len());
        let raw = match parse::leaf::<RawJournalRing>(payload) {
            Ok(([], raw)) => raw,
            _ => return Err(JournalRingError::Length { found }),
        };
        let ring = Self {
            offset: HostOffset::new(raw.offset.get()),
            len_bytes: raw.len_bytes.get(),
            tail: JournalSequence::new(raw.tail_sequence.get()),
            stable: JournalSequence::new(raw.stable_sequence.get()),
        }
        .checked()?;
        let (offset, len_bytes, end) = (ring.offset, ring.len_bytes, ring.end().get());
        let overlaps = header.backing_name_overlaps(offset.get(), end);
        if end > header.header_area_len_bytes() || overlaps {
            return Err(JournalRingError::Place { offset, len_bytes });
        }
        Ok(ring)
    }

    /// The payload; [`JournalRing::parse`] gives back an equal value.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN_BYTES] {
        zerocopy::transmute!(RawJournalRing {
            offset: U64::new(self.offset.get()),
            len_bytes: U64::new(self.len_bytes),
            tail_sequence: U64::new(self.tail.get()),
            stable_sequence: U64::new(self.stable.get()),
        })
    }

    /// The same ring with another state: `tail` is the first block whose records may not be in
    /// the tables, `stable` the last one known to be durable.
    ///
    /// # Errors
    /// [`JournalRingError::Sequence`] when the two do not fit the ring.
    pub fn with_state(
        self,
        tail: JournalSequence,
        stable: JournalSequence,
    ) -> Result<Self, JournalRingError> {
        Self { tail, stable, ..self }.checked()
    }

    /// First byte of the ring in the file.
    #[must_use]
    pub const fn offset(&self) -> HostOffset {
        self.offset
    }

    /// Byte after the last one.
    #[must_use]
    pub const fn end(&self) -> HostOffset {
        HostOffset::new(self.offset.get().saturating_add(self.len_bytes))
    }

    /// Whether a byte of the ring is one of the dirty bitmap's too, which must not be.
    // spec: QED-JRN-02
    #[must_use]
    pub fn overlaps(&self, bitmap: &DirtyBitmap) -> bool {
        self.offset < HostOffset::new(bitmap.end()) && bitmap.offset() < self.end()
    }

    /// Bytes of the ring.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Blocks of the ring, 8 to 262144.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.len_bytes / BLOCK_LEN_BYTES
    }

    /// Blocks that a commit may have: half of the ring, and 256 at most.
    // spec: QED-JRN-09
    #[must_use]
    pub fn max_commit_blocks(&self) -> u64 {
        (self.blocks() / 2).min(256)
    }

    /// Whether so many numbers are used that the journal has to begin with the first one again, in
    /// another epoch. Half of them are left to the image while it is open.
    // spec: QED-JRN-03
    #[must_use]
    pub fn is_running_out(&self) -> bool {
        self.tail.get() > Self::MAX_SEQUENCE.get() / 2
    }

    /// The first block whose records may not be in the tables.
    #[must_use]
    pub const fn tail(&self) -> JournalSequence {
        self.tail
    }

    /// The last block that was known to be durable.
    #[must_use]
    pub const fn stable(&self) -> JournalSequence {
        self.stable
    }

    /// Where the block with this number lies in the file.
    // spec: QED-JRN-03
    #[must_use]
    pub fn offset_of(&self, sequence: JournalSequence) -> HostOffset {
        let blocks = self.blocks().max(1);
        let within = sequence.get().checked_rem(blocks).unwrap_or_default();
        HostOffset::new(self.offset.get().saturating_add(within.saturating_mul(BLOCK_LEN_BYTES)))
    }

    fn checked(self) -> Result<Self, JournalRingError> {
        let Self { offset, len_bytes, tail, stable } = self;
        let aligned = [offset.get(), len_bytes].iter().all(|it| it.is_multiple_of(BLOCK_LEN_BYTES));
        let in_range = (Self::MIN_LEN_BYTES..=Self::MAX_LEN_BYTES).contains(&len_bytes);
        let reachable = offset.get() >= Self::FIRST_BYTE && offset.get() <= u64::MAX >> 1;
        if !aligned || !in_range || !reachable {
            return Err(JournalRingError::Place { offset, len_bytes });
        }
        let tail_fits = (JournalSequence::FIRST..=Self::MAX_SEQUENCE).contains(&tail);
        let in_use = stable.plus(1).since(tail);
        if !tail_fits || stable < tail.previous() || in_use > self.blocks() {
            return Err(JournalRingError::Sequence { tail, stable });
        }
        Ok(self)
    }
}

/// Bytes of a block.
#[expect(clippy::as_conversions, reason = "a constant")]
const BLOCK_LEN_BYTES: u64 = JOURNAL_BLOCK_LEN_BYTES as u64;

const _: () = assert!(JournalRing::LEN_BYTES == 32);
