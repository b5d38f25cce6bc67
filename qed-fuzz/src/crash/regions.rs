//! Where metadata of the images lies that crash.
//!
//! Knows the places by heart, so that no code of the libraries speaks for them.

use std::ops::Range;

use super::states::CrashPoint;
use super::workload::Mode;
use crate::size::usize_of;
use crate::sparse::{SECTOR, Sector, SparseContent};

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    Header,
    /// Of the header area, what is none of the others.
    Names,
    Superblock,
    Bitmap,
    Ring,
    L1,
    L2,
    Data,
}

/// Where metadata lies, or lay or will lie if one state or another of a crash point survives.
pub(crate) struct Regions {
    mode: Mode,
    header_end: u64,
    l1: Range<u64>,
    /// First bytes of L2 tables.
    tables: Vec<u64>,
}

pub(super) const CLUSTER: u64 = 4096;
const TABLE: u64 = 2 * CLUSTER;
pub(super) const SUPERBLOCKS: Range<u64> = 8192..16384;

impl Regions {
    pub(crate) fn of(point: &CrashPoint, mode: Mode) -> Self {
        let durable = &point.durable;
        let l1_start = word(&durable.sector(0), 40);
        let l1 = l1_start..l1_start + TABLE;
        let mut tables = Vec::new();
        let mut add = |sector: &Sector| {
            tables.extend((0..64).map(|slot| word(sector, slot * 8)).filter(|slot| *slot != 0));
        };
        for number in l1.start / SECTOR..l1.end / SECTOR {
            add(&durable.sector(number));
        }
        for (number, versions) in &point.sectors {
            if l1.contains(&(number * SECTOR)) {
                versions.iter().for_each(&mut add);
            }
        }
        tables.sort_unstable();
        tables.dedup();
        Self { mode, header_end: header_end(durable), l1, tables }
    }

    pub(crate) fn region(&self, sector: u64) -> Region {
        let at = sector * SECTOR;
        let is_extended = self.header_end > SUPERBLOCKS.end;
        if at == 0 {
            Region::Header
        } else if is_extended && SUPERBLOCKS.contains(&at) {
            Region::Superblock
        } else if is_extended && (SUPERBLOCKS.end..self.header_end).contains(&at) {
            if self.mode == Mode::Journal { Region::Ring } else { Region::Bitmap }
        } else if at < self.header_end {
            Region::Names
        } else if self.l1.contains(&at) {
            Region::L1
        } else if self.tables.iter().any(|table| (*table..table + TABLE).contains(&at)) {
            Region::L2
        } else {
            Region::Data
        }
    }
}

pub(super) fn header_end(content: &SparseContent) -> u64 {
    u64::from(half(&content.sector(0), 12)) * CLUSTER
}

pub(super) fn word(sector: &Sector, at: u64) -> u64 {
    let bytes = sector[usize_of(at)..].first_chunk().expect("inside the sector");
    u64::from_le_bytes(*bytes)
}

fn half(sector: &Sector, at: u64) -> u32 {
    let bytes = sector[usize_of(at)..].first_chunk().expect("inside the sector");
    u32::from_le_bytes(*bytes)
}
