//! What a disk makes of a ring: a slow reading of the guest's bytes, one request at a time. Shares no code
//! with the server.

use crate::generators::virtqueue::{
    AVAILABLE, EVENT_FEATURE, INDIRECT_FEATURE, QueueCase, REGIONS, TABLE, USED,
};
use crate::size::usize_of;

/// The most descriptors of a chain, and runs of memory in it.
const MOST: u32 = 1024;
const PAGE: u64 = 4096;

/// A guest and its disk as they are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    memory: [Vec<u8>; 3],
    pub(crate) disk: Vec<u8>,
    /// Pages that the device wrote since this was last taken.
    pub(crate) pages: std::collections::BTreeSet<u64>,
    next: u16,
    used: u16,
    told: u16,
}

/// What a step has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    Served(u8),
    Broken,
}

/// Bytes of guest memory.
type Run = (u64, u64);

struct Chain {
    readable: Vec<Run>,
    writable: Vec<Run>,
}

impl World {
    pub(crate) fn new(case: &QueueCase, disk: Vec<u8>) -> Self {
        let memory = REGIONS.map(|(_, len)| vec![0; usize_of(len)]);
        let (next, used, told, pages) = (case.base, case.base, case.base, Default::default());
        let mut world = Self { memory, disk, pages, next, used, told };
        world.poke(AVAILABLE + 2, &case.base.to_le_bytes());
        world.poke(USED + 2, &case.base.to_le_bytes());
        world
    }

    /// Writes as the guest: what is not there takes nothing.
    pub(crate) fn poke(&mut self, at: u64, bytes: &[u8]) -> bool {
        let fits = self.get(at, bytes.len() as u64).is_some();
        if fits {
            for (place, byte) in (at..).zip(bytes) {
                let (region, offset) = place_of(place).expect("it fits");
                self.memory[region][offset] = *byte;
            }
        }
        fits
    }

    pub(crate) fn get(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        let end = at.checked_add(len)?;
        if len > 1 << 20 {
            return None;
        }
        (at..end).map(|place| place_of(place).map(|(region, at)| self.memory[region][at])).collect()
    }

    pub(crate) fn regions(&self) -> &[Vec<u8>; 3] {
        &self.memory
    }

    pub(crate) fn u16_at(&self, at: u64) -> u16 {
        let bytes = self.get(at, 2).expect("the ring is in memory");
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        assert!(self.poke(at, bytes), "only what was checked is written");
        let touched = (at..).zip(bytes).map(|(place, _)| place / PAGE);
        self.pages.extend(touched);
    }

    /// Serves the next request.
    pub(crate) fn step(&mut self, case: &QueueCase) -> Step {
        let waiting = self.u16_at(AVAILABLE + 2).wrapping_sub(self.next);
        if waiting == 0 {
            return Step::Nothing;
        }
        let slot = u64::from(self.next % case.size);
        let head = self.u16_at(AVAILABLE + 4 + slot * 2);
        if waiting > case.size || head >= case.size {
            return Step::Broken;
        }
        self.next = self.next.wrapping_add(1);
        let Some(mut chain) = self.chain(case, head) else { return Step::Broken };
        let Some(request) = self.take(&mut chain.readable, 16) else { return Step::Broken };
        let Some(status_at) = last(&mut chain.writable) else { return Step::Broken };
        let (status, written) = self.perform(case, &request, &mut chain);
        self.put(status_at, &[status]);
        let element = USED + 4 + u64::from(self.used % case.size) * 8;
        let head = u32::from(head).to_le_bytes();
        self.put(element, &[head, (written + 1).to_le_bytes()].concat());
        self.used = self.used.wrapping_add(1);
        self.put(USED + 2, &self.used.to_le_bytes());
        Step::Served(status)
    }

    /// Whether the driver wants to hear of what came back since it was last asked.
    pub(crate) fn wants_interrupt(&mut self, case: &QueueCase) -> bool {
        let (old, new) = (std::mem::replace(&mut self.told, self.used), self.used);
        if case.features & EVENT_FEATURE == 0 {
            return self.u16_at(AVAILABLE) & 1 == 0;
        }
        let event = self.u16_at(AVAILABLE + 4 + u64::from(case.size) * 2);
        (0..new.wrapping_sub(old)).any(|count| old.wrapping_add(count) == event)
    }

    fn chain(&self, case: &QueueCase, head: u16) -> Option<Chain> {
        let mut chain = Chain { readable: Vec::new(), writable: Vec::new() };
        let last = self.follow(TABLE, case.size.into(), head, &mut chain)?;
        if let Some((at, len)) = last {
            let is_table = len > 0 && len % 16 == 0 && case.features & INDIRECT_FEATURE != 0;
            let nested = self.follow(at, len / 16, 0, &mut chain).filter(|_| is_table)?;
            nested.is_none().then_some(())?;
        }
        Some(chain)
    }

    /// From a head to the end, or to a table.
    fn follow(
        &self,
        table: u64,
        entries: u32,
        head: u16,
        chain: &mut Chain,
    ) -> Option<Option<(u64, u32)>> {
        let mut index = u32::from(head);
        for _ in 0..entries.min(MOST) {
            let offset = u64::from(index) * 16;
            (index < entries).then_some(())?;
            let bytes = self.get(table.checked_add(offset)?, 16)?;
            let at = u64::from_le_bytes(bytes[..8].try_into().ok()?);
            let len = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
            let flags = u16::from_le_bytes([bytes[12], bytes[13]]);
            if flags & 4 != 0 {
                return (flags & 1 == 0).then_some(Some((at, len)));
            }
            if flags & 2 == 0 && !chain.writable.is_empty() {
                return None;
            }
            let runs = if flags & 2 == 0 { &mut chain.readable } else { &mut chain.writable };
            if len > 0 {
                self.get(at, len.into())?;
                runs.extend(cut((at, len.into())));
            }
            (chain.readable.len() + chain.writable.len() <= MOST as usize).then_some(())?;
            if flags & 1 == 0 {
                return Some(None);
            }
            index = u32::from(u16::from_le_bytes([bytes[14], bytes[15]]));
        }
        None
    }

    /// The first bytes of some runs.
    fn take(&self, runs: &mut Vec<Run>, count: u64) -> Option<Vec<u8>> {
        let mut taken = Vec::new();
        while (taken.len() as u64) < count {
            let (at, len) = *runs.first()?;
            let part = len.min(count - taken.len() as u64);
            taken.extend(self.get(at, part)?);
            runs[0] = (at + part, len - part);
            runs.retain(|run| run.1 > 0);
        }
        Some(taken)
    }

    /// The status, and the bytes that the guest got.
    fn perform(&mut self, case: &QueueCase, head: &[u8], chain: &mut Chain) -> (u8, u32) {
        const ERROR: (u8, u32) = (1, 0);
        let kind = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
        let sector = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
        let sum = |runs: &[Run]| runs.iter().map(|run| run.1).sum::<u64>();
        match kind {
            0 => {
                let Some(range) = self.range_of(sector, sum(&chain.writable)) else { return ERROR };
                let bytes = self.disk[range].to_vec();
                self.scatter(&chain.writable, &bytes);
                (0, u32::try_from(bytes.len()).expect("short"))
            }
            1 => {
                let len = sum(&chain.readable);
                let range = self.range_of(sector, len).filter(|_| !case.is_read_only);
                let Some(range) = range else { return ERROR };
                let bytes = self.take(&mut chain.readable, len).expect("they are there");
                self.disk[range].copy_from_slice(&bytes);
                (0, 0)
            }
            4 => (0, 0),
            8 => {
                let mut id = b"virtqueue".to_vec();
                id.resize(20, 0);
                id.truncate(usize_of(sum(&chain.writable)).min(20));
                self.scatter(&chain.writable, &id);
                (0, u32::try_from(id.len()).expect("short"))
            }
            11 | 13 => (self.change_ranges(case, kind, &mut chain.readable), 0),
            _ => (2, 0),
        }
    }

    /// Ranges to discard, which stay as they are on this disk, or to zero.
    fn change_ranges(&mut self, case: &QueueCase, kind: u32, readable: &mut Vec<Run>) -> u8 {
        let (most, sectors, flags) = if kind == 11 { (32, 4 << 20, 0) } else { (1, 512 << 10, 1) };
        let len: u64 = readable.iter().map(|run| run.1).sum();
        if len == 0 || !len.is_multiple_of(16) || len / 16 > most {
            return 2;
        }
        let bytes = self.take(readable, len).expect("they are there");
        let (ranges, _) = bytes.as_chunks::<16>();
        let word = |range: &[u8; 16], at: usize| {
            u32::from_le_bytes(range[at..at + 4].try_into().expect("four bytes"))
        };
        if ranges.iter().any(|range| word(range, 12) & !flags != 0) {
            return 2;
        }
        let mut found = Vec::new();
        for range in ranges {
            let sector = u64::from_le_bytes(range[..8].try_into().expect("eight bytes"));
            let count = word(range, 8);
            match self.range_of(sector, u64::from(count) * 512) {
                Some(place) if count <= sectors && !case.is_read_only => found.push(place),
                _ => return 1,
            }
        }
        if kind == 13 {
            found.into_iter().for_each(|place| self.disk[place].fill(0));
        }
        0
    }

    /// A range of whole sectors that the guest knows of.
    fn range_of(&self, sector: u64, len: u64) -> Option<std::ops::Range<usize>> {
        let at = sector.checked_mul(512)?;
        let end = at.checked_add(len)?;
        let known = self.disk.len() as u64 / 512 * 512;
        (len.is_multiple_of(512) && end <= known).then(|| usize_of(at)..usize_of(end))
    }

    fn scatter(&mut self, runs: &[Run], mut bytes: &[u8]) {
        for (at, len) in runs {
            let (now, later) = bytes.split_at(bytes.len().min(usize_of(*len)));
            self.put(*at, now);
            bytes = later;
        }
    }
}

fn place_of(at: u64) -> Option<(usize, usize)> {
    let inside = |(start, len): &(u64, u64)| at >= *start && at - start < *len;
    let region = REGIONS.iter().position(inside)?;
    Some((region, usize_of(at - REGIONS[region].0)))
}

/// A run that crosses from the first region to the second is two.
fn cut((at, len): Run) -> Vec<Run> {
    let seam = REGIONS[1].0;
    if at < seam && at + len > seam {
        vec![(at, seam - at), (seam, at + len - seam)]
    } else {
        vec![(at, len)]
    }
}

/// Takes the last byte off.
fn last(runs: &mut Vec<Run>) -> Option<u64> {
    let (at, len) = runs.pop()?;
    if len > 1 {
        runs.push((at, len - 1));
    }
    Some(at + len - 1)
}
