//! One record of the journal: a run of table slots and what they are to hold, or a note.
//!
//! Knows the shape of the image, not where its tables lie: whether a slot is one, the reader asks.

use core::num::NonZeroU32;

use zerocopy::little_endian::{U32, U64};

use crate::addr::{ClusterCount, HostCluster, HostOffset};
use crate::entry::{L1Entry, L2Entry};
use crate::geometry::Geometry;
use crate::journal::error::JournalRecordError;
use crate::journal::raw::RawJournalRecord;

/// What a record of the journal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalRecord {
    /// A slot of the L1 table gets this entry.
    L1Set {
        /// Where the slot lies.
        at: HostOffset,
        /// What it is to hold.
        entry: L1Entry,
    },
    /// Slots of an L2 table get clusters that follow each other.
    L2SetRun {
        /// Where the first slot lies.
        at: HostOffset,
        /// Slots.
        count: NonZeroU32,
        /// The cluster of the first slot.
        first: HostCluster,
    },
    /// Slots of an L2 table become zero clusters.
    L2ZeroRun {
        /// Where the first slot lies.
        at: HostOffset,
        /// Slots.
        count: NonZeroU32,
    },
    /// Slots of an L2 table become unallocated.
    L2ClearRun {
        /// Where the first slot lies.
        at: HostOffset,
        /// Slots.
        count: NonZeroU32,
    },
    /// A note: clusters that no table names any more. It changes no slot.
    FreeRun {
        /// The first of them.
        first: HostCluster,
        /// How many.
        count: NonZeroU32,
    },
}

/// Table slots that follow each other, and what they are to hold: a first value, and what each
/// next one has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRun {
    at: HostOffset,
    count: NonZeroU32,
    first: u64,
    step: u64,
}

/// Kinds of records.
mod kind {
    pub(super) const L1_SET: u32 = 1;
    pub(super) const L2_SET_RUN: u32 = 2;
    pub(super) const L2_ZERO_RUN: u32 = 3;
    pub(super) const L2_CLEAR_RUN: u32 = 4;
    pub(super) const FREE_RUN: u32 = 5;
}

impl JournalRecord {
    /// The meaning of a record.
    ///
    /// All slots and clusters of the run can be told in 64 bits. Whether they lie inside the file,
    /// and whether the slots are those of a table, is not asked.
    ///
    /// # Errors
    /// The rule that it breaks.
    // spec: QED-JRN-07, QED-JRN-08
    pub fn parse(raw: &RawJournalRecord, geometry: Geometry) -> Result<Self, JournalRecordError> {
        let (at, value) = (raw.at.get(), raw.value.get());
        let found = raw.count.get();
        let count = NonZeroU32::new(found).ok_or(JournalRecordError::Count { found })?;
        let record = match raw.kind.get() {
            kind::L1_SET => {
                let entry = L1Entry::decode(value, geometry)
                    .map_err(|_| JournalRecordError::Value { value })?;
                Self::L1Set { at: slots(at, NonZeroU32::MIN)?, entry }
            }
            kind::L2_SET_RUN => {
                let first = clusters(value, count, geometry);
                let first = first.ok_or(JournalRecordError::Value { value })?;
                Self::L2SetRun { at: slots(at, count)?, count, first }
            }
            kind::L2_ZERO_RUN => Self::L2ZeroRun { at: slots(at, count)?, count },
            kind::L2_CLEAR_RUN => Self::L2ClearRun { at: slots(at, count)?, count },
            kind::FREE_RUN => {
                let first = clusters(at, count, geometry);
                Self::FreeRun { first: first.ok_or(JournalRecordError::Place { at })?, count }
            }
            found => return Err(JournalRecordError::Kind { found }),
        };
        // What a kind leaves out is 1 or 0, so a record that says more is none of ours.
        let same = record.encode(geometry) == *raw;
        if same { Ok(record) } else { Err(JournalRecordError::Unused) }
    }

    /// The 24 bytes of the record; [`JournalRecord::parse`] is the exact inverse.
    #[must_use]
    pub fn encode(&self, geometry: Geometry) -> RawJournalRecord {
        let offset = |cluster| geometry.host_offset(cluster).get();
        let (kind, count, at, value) = match *self {
            Self::L1Set { at, entry } => {
                (kind::L1_SET, NonZeroU32::MIN, at.get(), entry.encode(geometry))
            }
            Self::L2SetRun { at, count, first } => {
                (kind::L2_SET_RUN, count, at.get(), offset(first))
            }
            Self::L2ZeroRun { at, count } => (kind::L2_ZERO_RUN, count, at.get(), 0),
            Self::L2ClearRun { at, count } => (kind::L2_CLEAR_RUN, count, at.get(), 0),
            Self::FreeRun { first, count } => (kind::FREE_RUN, count, offset(first), 0),
        };
        RawJournalRecord {
            kind: U32::new(kind),
            count: U32::new(count.get()),
            at: U64::new(at),
            value: U64::new(value),
        }
    }

    /// The slots that the record sets; none for a note.
    #[must_use]
    pub fn slots(&self, geometry: Geometry) -> Option<SlotRun> {
        let run = |at, count, first, step| Some(SlotRun { at, count, first, step });
        match *self {
            Self::L1Set { at, entry } => run(at, NonZeroU32::MIN, entry.encode(geometry), 0),
            Self::L2SetRun { at, count, first } => {
                let first = L2Entry::Data(first).encode(geometry);
                run(at, count, first, geometry.cluster_size_bytes())
            }
            Self::L2ZeroRun { at, count } => run(at, count, L2Entry::Zero.encode(geometry), 0),
            Self::L2ClearRun { at, count } => {
                run(at, count, L2Entry::Unallocated.encode(geometry), 0)
            }
            Self::FreeRun { .. } => None,
        }
    }

    /// The clusters of the image file that the record names: the first, and how many.
    #[must_use]
    pub fn clusters(&self, geometry: Geometry) -> Option<(HostCluster, ClusterCount)> {
        match *self {
            Self::L1Set { entry: L1Entry::Table(first), .. } => {
                Some((first, ClusterCount::new(geometry.table_size_clusters())))
            }
            Self::L2SetRun { first, count, .. } | Self::FreeRun { first, count } => {
                Some((first, ClusterCount::new(count.get().into())))
            }
            _ => None,
        }
    }
}

impl SlotRun {
    /// Where the first slot lies, a multiple of 8.
    #[must_use]
    pub const fn at(&self) -> HostOffset {
        self.at
    }

    /// Slots.
    #[must_use]
    pub const fn count(&self) -> NonZeroU32 {
        self.count
    }

    /// What the first slot is to hold.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// What each next slot has more than the one before it.
    #[must_use]
    pub const fn step(&self) -> u64 {
        self.step
    }

    /// Byte after the last slot.
    #[must_use]
    pub fn end(&self) -> HostOffset {
        HostOffset::new(self.at.get().saturating_add(len_bytes(self.count)))
    }
}

/// Bytes of a slot.
const SLOT_LEN_BYTES: u64 = 8;

fn len_bytes(count: NonZeroU32) -> u64 {
    u64::from(count.get()).saturating_mul(SLOT_LEN_BYTES)
}

/// The place of `count` slots, whole ones and inside what a file offset reaches.
// spec: QED-JRN-08
fn slots(at: u64, count: NonZeroU32) -> Result<HostOffset, JournalRecordError> {
    let end = at.checked_add(len_bytes(count));
    let reachable = end.is_some_and(|end| end <= FILE_LEN_MAX);
    if !at.is_multiple_of(SLOT_LEN_BYTES) || !reachable {
        return Err(JournalRecordError::Place { at });
    }
    Ok(HostOffset::new(at))
}

/// The first of `count` clusters from `at`, all of them inside what a file offset reaches.
// spec: QED-JRN-08
fn clusters(at: u64, count: NonZeroU32, geometry: Geometry) -> Option<HostCluster> {
    let len = u64::from(count.get()).checked_mul(geometry.cluster_size_bytes())?;
    at.checked_add(len).filter(|end| *end <= FILE_LEN_MAX)?;
    geometry.host_cluster(HostOffset::new(at))
}

/// Bytes of the largest file that there can be.
const FILE_LEN_MAX: u64 = 1 << 63;
