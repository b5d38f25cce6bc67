//! What the log of an image says, worked out from its bytes by the shortest way. What shows it and
//! what writes it into the tables is held against this.
//!
//! Shares nothing with them but header and superblock, which have oracles of their own.

mod judge;

use std::collections::BTreeMap;

use qed_spec::{Header, SectionType, Superblock, SuperblockChoice, SuperblockCopy};

use crate::crc32c::crc32c_of_seeded_block;
use crate::sparse::SparseContent;
use judge::Judge;

/// Table slots by their place in the file, and the length that the file has at least.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) commits: u64,
    pub(crate) slots: BTreeMap<u64, u64>,
    pub(crate) len: u64,
    /// No cluster of a table had another use before in this log, or an entry that it set.
    pub(crate) is_repeatable: bool,
}

/// The log of an image with JOURNAL_ACTIVE; none where a rule is broken and nothing is shown.
pub(crate) fn log_of(header: &Header, content: &SparseContent) -> Option<Log> {
    if !SuperblockCopy::both_fit(header) {
        return None;
    }
    let [a, b] = [8192, 12288].map(|at| content.bytes(at..at + 4096));
    let choice = SuperblockChoice::new(&a, &b).ok()?;
    let (_, superblock) = choice.current()?;
    let payload = |kind| superblock.section(kind).map(|section| section.payload().to_vec());
    if payload(SectionType::MODE)? != [2, 0, 0, 0] {
        return None;
    }
    let bitmap = payload(SectionType::TABLE_DIRTY)
        .filter(|_| header.fields().autoclear_features.bits() & 1 << 32 != 0);
    let ring = Ring::new(header, content, &superblock, &payload(SectionType::JOURNAL)?)?;
    if bitmap.and_then(|it| place_of_bitmap(header, &it)).is_some_and(|it| ring.overlaps(it)) {
        return None;
    }
    ring.log(header)
}

struct Ring<'a> {
    content: &'a SparseContent,
    seed: Vec<u8>,
    generation: u64,
    at: u64,
    blocks: u64,
    tail: u64,
    stable: u64,
}

/// What lies where a block was to be.
enum Found {
    Absent,
    /// It breaks a rule that no crash breaks.
    Broken,
    Intact(Block),
}

struct Block {
    crc: u64,
    previous: u64,
    stable: u64,
    size: u64,
    index: u64,
    count: u64,
    /// Kind, count, at and value.
    records: Vec<[u64; 4]>,
}

impl<'a> Ring<'a> {
    fn new(
        header: &Header,
        content: &'a SparseContent,
        superblock: &Superblock<'_>,
        payload: &[u8],
    ) -> Option<Self> {
        let [at, len, tail, stable] = numbers(payload)?;
        let end = at.checked_add(len)?;
        let is_place = at >= 16384 && at % 4096 == 0 && len % 4096 == 0;
        let is_long = (32 << 10..=1 << 30).contains(&len);
        let is_inside = end <= header.header_area_len_bytes() && !hits_name(header, at, end);
        let blocks = len / 4096;
        let is_numbered = (1..=1 << 62).contains(&tail)
            && stable >= tail - 1
            && stable.checked_sub(tail - 1)? <= blocks;
        let mut seed = superblock.uuid().as_bytes().to_vec();
        seed.extend(superblock.epoch().get().to_le_bytes());
        let generation = superblock.generation().get();
        (is_place && is_long && is_inside && is_numbered).then_some(Self {
            content,
            seed,
            generation,
            at,
            blocks,
            tail,
            stable,
        })
    }

    fn overlaps(&self, (start, end): (u64, u64)) -> bool {
        start < self.at + self.blocks * 4096 && self.at < end
    }

    fn log(&self, header: &Header) -> Option<Log> {
        let longest = (self.blocks / 2).min(256);
        let mut judge = Judge::new(header, self.content);
        let (mut next, mut before, mut stable) = (self.tail, None, self.stable);
        loop {
            let mut commit: Vec<Block> = Vec::new();
            while commit.first().is_none_or(|first| commit.len() as u64 != first.count) {
                let sequence = next + commit.len() as u64;
                let block = match self.find(sequence) {
                    Found::Broken => return None,
                    Found::Intact(block) => block,
                    Found::Absent => {
                        let last = (sequence + 2 * longest).min(self.tail + self.blocks);
                        for behind in sequence + 1..last {
                            match self.find(behind) {
                                Found::Absent => {}
                                Found::Broken => return None,
                                Found::Intact(block) => stable = stable.max(block.stable),
                            }
                        }
                        return if stable < next { judge.into_log() } else { None };
                    }
                };
                stable = stable.max(block.stable);
                let (count, size) =
                    commit.first().map_or((block.count, block.size), |it| (it.count, it.size));
                let follows = (block.index, block.count, block.size)
                    == (commit.len() as u64, count, size)
                    && before.is_none_or(|crc| crc == block.previous);
                if !follows || count > longest {
                    return None;
                }
                before = Some(block.crc);
                commit.push(block);
            }
            next += commit.len() as u64;
            judge.commit(commit[0].size, commit.iter().flat_map(|block| &block.records))?;
        }
    }

    fn find(&self, sequence: u64) -> Found {
        let at = self.at + sequence % self.blocks * 4096;
        let bytes = self.content.bytes(at..at + 4096);
        let [_, crc, generation, size] = [8, 8, 32, 40].map(|at| word(&bytes, at));
        let crc = crc & u64::from(u32::MAX);
        let computed = crc32c_of_seeded_block(&self.seed, &bytes);
        if bytes[..4] != *b"QEDJ" || crc != u64::from(computed) {
            return Found::Absent;
        }
        let half = |at| word(&bytes, at) & u64::from(u32::MAX);
        let (found, stable, used) = (word(&bytes, 16), word(&bytes, 24), half(56));
        let (index, count) = (half(48), half(52));
        let is_sound = half(4) == 1
            && index < count
            && generation > 0
            && stable < found
            && used % 24 == 0
            && used <= 4032
            && half(60) == 0
            && bytes[64..].iter().skip(usize::try_from(used).unwrap_or(0)).all(|byte| *byte == 0);
        if !is_sound {
            return Found::Broken;
        }
        if found != sequence {
            let is_older = found < sequence && (sequence - found).is_multiple_of(self.blocks);
            return if is_older { Found::Absent } else { Found::Broken };
        }
        if generation > self.generation {
            return Found::Broken;
        }
        let records = (64..).step_by(24).take(usize::try_from(used / 24).unwrap_or(0));
        let records =
            records.map(|at| [half(at), half(at + 4), word(&bytes, at + 8), word(&bytes, at + 16)]);
        let (previous, records) = (half(12), records.collect());
        Found::Intact(Block { crc, previous, stable, size, index, count, records })
    }
}

/// The bitmap, if it may lie where it says.
pub(crate) fn place_of_bitmap(header: &Header, payload: &[u8]) -> Option<(u64, u64)> {
    let [at, len, _] = numbers(payload)?;
    let end = at.checked_add(len)?;
    let is_sound = at >= 16384
        && at % 512 == 0
        && len % 512 == 0
        && end <= header.header_area_len_bytes()
        && !hits_name(header, at, end)
        && len * 8 >= header.geometry().l1_entries_for(header.image_size());
    is_sound.then_some((at, end))
}

fn hits_name(header: &Header, start: u64, end: u64) -> bool {
    let Some((at, len)) = header.backing_name_place() else { return false };
    u64::from(at) < end && start < u64::from(at) + u64::from(len)
}

/// The numbers of a payload that has so many.
fn numbers<const N: usize>(payload: &[u8]) -> Option<[u64; N]> {
    let words: Vec<u64> = payload.chunks(8).map(word_of).collect::<Option<_>>()?;
    words.try_into().ok()
}

fn word_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    word_of(&bytes[at..at + 8]).expect("eight bytes")
}
