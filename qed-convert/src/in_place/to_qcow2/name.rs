//! A second copy of the backing file name, where the header area of the QED image has nothing.

use std::ops::Range;

use crate::in_place::error::{InPlaceError, Refusal};
use crate::in_place::step::SECTOR;
use qed_spec::{ANCHOR_LEN_BYTES, Anchor, Header, SUPERBLOCK_LEN_BYTES, SuperblockCopy};

/// Where the header area may hold a bitmap or a journal from.
const STRUCTURES_AT: u64 = 16 << 10;

/// The name and its new place in the first cluster.
pub(super) struct NewName {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

impl NewName {
    /// Finds room behind sector 0, past which the header of QCOW2 does not reach.
    pub(super) fn place(
        header: &Header,
        name: &[u8],
        cluster_len: u64,
    ) -> Result<Self, InPlaceError> {
        let len = name.len() as u64;
        let taken = taken(header);
        let starts = taken.iter().map(|range| range.end).chain([SECTOR as u64]);
        let fits = |at: &u64| {
            let is_free = taken.iter().all(|range| at + len <= range.start || range.end <= *at);
            *at >= SECTOR as u64 && is_free && at + len <= cluster_len.min(STRUCTURES_AT)
        };
        let at = starts.filter(fits).min().ok_or(Refusal::NoRoomForName)?;
        Ok(Self { at, bytes: name.to_vec() })
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.at..self.at + self.bytes.len() as u64
    }
}

/// What the QED image may read of its first cluster until the commit.
fn taken(header: &Header) -> Vec<Range<u64>> {
    let of = |at: u64, len: usize| at..at + len as u64;
    let mut taken = Vec::new();
    if let Some((offset, len)) = header.backing_name_place() {
        taken.push(u64::from(offset)..u64::from(offset) + u64::from(len));
    }
    taken.push(of(Anchor::OFFSET.get(), ANCHOR_LEN_BYTES));
    for copy in [SuperblockCopy::A, SuperblockCopy::B] {
        taken.push(of(copy.offset().get(), SUPERBLOCK_LEN_BYTES));
    }
    taken
}
