//! What a conversion that has no room for notes in the file itself keeps beside it, and what of the
//! file a call after a crash may cut.
//!
//! Owns the bytes of a plan; knows no order of steps, and not where a plan lies.

use std::ops::Range;

use flate2::Crc;
use qed_io::{FileStorage, Storage};
use thiserror::Error;

use crate::in_place::error::{InPlaceError, Step, failed};
use crate::in_place::step::{self, SECTOR, Sector};
use crate::zero::is_zero;

const MAGIC: [u8; 8] = *b"QEDPLAN2";
/// Of earlier versions, without what [`Plan::made`] has.
const MAGIC_V1: [u8; 8] = *b"QEDPLAN1";
const V1_LEN: usize = 24 + 2 * SECTOR;
/// Bytes before the sectors.
const HEAD_LEN: usize = 48;
/// Where the plan's own checksum is.
const SUM: Range<usize> = 40..44;
/// Bytes that are read at a time.
const PIECE: u64 = 256 << 10;

/// Which way a conversion goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    RawToQed,
    QedToRaw,
}

/// What a call after a crash needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    /// Bytes of the raw file.
    pub(crate) raw_len: u64,
    /// Sector 0 before the commit.
    pub(crate) old: Sector,
    /// Sector 0 after the commit.
    pub(crate) new: Sector,
    /// Not in the plans of earlier versions.
    pub(crate) made: Option<Made>,
}

/// What tells the file from others, and what a conversion has behind the disk from anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// The inode; 0 of what is no file.
    pub(crate) inode: u64,
    pub(crate) tail: Tail,
}

/// What the QED image has behind the raw file: the checksum of each sector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Bytes.
    len: u64,
    sums: Vec<u32>,
}

impl Tail {
    /// Adds bytes; only the last that are added may be no whole sectors.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.sums.extend(bytes.chunks(SECTOR).map(checksum));
    }

    /// Adds a part of the file.
    pub(crate) fn add_file(
        &mut self,
        storage: &dyn Storage,
        range: Range<u64>,
    ) -> Result<(), InPlaceError> {
        for_each_piece(storage, range, |bytes| {
            self.add(bytes);
            true
        })
        .map(|_| ())
    }

    /// Whether this is what `storage` has behind byte `start`, to its end. While it was written or
    /// cut, a crash may have left zeros for some of the sectors.
    pub(crate) fn is_behind(
        &self,
        storage: &dyn Storage,
        start: u64,
    ) -> Result<bool, InPlaceError> {
        let end = step::len(storage)?;
        if start.checked_add(self.len) != Some(end) {
            return Ok(false);
        }
        let mut sums = self.sums.iter();
        for_each_piece(storage, start..end, |bytes| {
            let mut sectors = bytes.chunks(SECTOR).zip(sums.by_ref());
            sectors.all(|(sector, sum)| checksum(sector) == *sum || is_zero(sector))
        })
    }
}

/// Why a plan, or a file with a plan, is left alone.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanFault {
    /// The bytes are no plan.
    #[error("{plan} is not the plan of a conversion; if the file is sound, remove the plan")]
    NotAPlan {
        /// The plan in words.
        plan: String,
    },
    /// It is of another conversion or of another file, or the file's first sector has changed since.
    #[error("{plan} does not fit the file; if the file is sound, remove the plan")]
    OtherPlan {
        /// The plan in words.
        plan: String,
    },
    /// Somebody else changed the length of the file, or wrote behind the disk.
    #[error(
        "the file has {len} bytes, and what lies behind byte {raw_len} is not all of the conversion \
         that was interrupted: it is not cut. If all of the file is the disk, remove {plan}; if the \
         disk ends at byte {raw_len}, cut the file there (truncate -s {raw_len}) and call the \
         conversion again"
    )]
    Grown {
        /// The plan in words.
        plan: String,
        /// Bytes.
        len: u64,
        /// Bytes of the disk when the plan was made.
        raw_len: u64,
    },
    /// The file is shorter than its disk.
    #[error(
        "the file has {len} bytes, and had {raw_len} when the conversion began: bytes of the disk are \
         gone. If the file is sound, remove {plan}"
    )]
    Shrunk {
        /// The plan in words.
        plan: String,
        /// Bytes.
        len: u64,
        /// Bytes of the disk when the plan was made.
        raw_len: u64,
    },
}

impl Plan {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let way: u64 = match self.way {
            Way::RawToQed => 1,
            Way::QedToRaw => 2,
        };
        let made = self.made.as_ref().expect("plans of earlier versions are not written");
        let mut bytes = MAGIC.to_vec();
        for word in [way, self.raw_len, made.inode, made.tail.len, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.old);
        bytes.extend(self.new);
        bytes.extend(made.tail.sums.iter().flat_map(|sum| sum.to_le_bytes()));
        let sum = checksum(&bytes);
        bytes[SUM].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The plan in `bytes`, if it is one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        let sector = |at: usize| bytes.get(at..)?.first_chunk::<SECTOR>().copied();
        let way = match word(8)? {
            1 => Way::RawToQed,
            2 => Way::QedToRaw,
            _ => return None,
        };
        let is_v1 = bytes.starts_with(&MAGIC_V1) && bytes.len() == V1_LEN;
        let sectors = if is_v1 { V1_LEN - 2 * SECTOR } else { HEAD_LEN };
        let (old, new) = (sector(sectors)?, sector(sectors + SECTOR)?);
        let plan = Self { way, raw_len: word(16)?, old, new, made: None };
        if is_v1 {
            return Some(plan);
        }
        let mut unsummed = bytes.to_vec();
        unsummed[SUM].fill(0);
        let sum = u32::from_le_bytes(*bytes[SUM].first_chunk()?);
        let (sums, rest) = bytes[HEAD_LEN + 2 * SECTOR..].as_chunks();
        let sums: Vec<u32> = sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        let tail = Tail { len: word(32)?, sums };
        let is_whole = tail.len.div_ceil(SECTOR as u64) == tail.sums.len() as u64;
        let is_sound = sum == checksum(&unsummed) && rest.is_empty() && is_whole;
        let made = Some(Made { inode: word(24)?, tail });
        (bytes.starts_with(&MAGIC) && is_sound).then_some(Self { made, ..plan })
    }

    /// Whether the plan is of the file in `storage`, as far as it says.
    pub(crate) fn is_of(&self, storage: &dyn Storage) -> bool {
        self.made.as_ref().is_none_or(|made| made.inode == inode_of(storage))
    }
}

/// The number of the file; 0 of what is no file.
pub(crate) fn inode_of(storage: &dyn Storage) -> u64 {
    FileStorage::of(storage).map_or(0, |file| file.identity().inode)
}

/// Calls `look` with pieces of `range`, in order, as long as it says yes; whether it always did.
fn for_each_piece(
    storage: &dyn Storage,
    range: Range<u64>,
    mut look: impl FnMut(&[u8]) -> bool,
) -> Result<bool, InPlaceError> {
    let mut piece = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let len = PIECE.min(range.end - at);
        piece.resize(usize::try_from(len).expect("a small piece"), 0);
        storage.read_at(&mut piece, at).map_err(failed(Step::Read))?;
        if !look(&piece) {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written_and_nothing_else_is_one() {
        for way in [Way::RawToQed, Way::QedToRaw] {
            let mut tail = Tail::default();
            tail.add(&[5; 3 * SECTOR]);
            tail.add(&[6; 100]);
            let made = Some(Made { inode: 7, tail });
            let (old, new) = ([1; SECTOR], [2; SECTOR]);
            let plan = Plan { way, raw_len: 12_345, old, new, made };
            let bytes = plan.encode();
            assert_eq!(Plan::parse(&bytes), Some(plan));
            for at in 0..bytes.len() {
                assert_eq!(Plan::parse(&bytes[..at]), None, "{at}");
                let mut other = bytes.clone();
                other[at] ^= 0x40;
                assert_eq!(Plan::parse(&other), None, "{at}");
            }
        }
    }

    #[test]
    fn a_plan_of_an_earlier_version_is_read() {
        let mut bytes = [*b"QEDPLAN1", 2_u64.to_le_bytes(), 77_u64.to_le_bytes()].concat();
        bytes.extend([[1; SECTOR], [2; SECTOR]].concat());
        let (old, new) = ([1; SECTOR], [2; SECTOR]);
        let plan = Plan { way: Way::QedToRaw, raw_len: 77, old, new, made: None };
        assert_eq!(Plan::parse(&bytes), Some(plan));
        assert_eq!(Plan::parse(&bytes[..bytes.len() - 1]), None);
    }
}
