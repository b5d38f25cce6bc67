//! A set of host clusters: one bit each, in chunks that are allocated when first touched.
//!
//! Inserting is atomic and takes no lock, so any number of threads share one set. Knows nothing
//! of tables; what a member means is up to the caller.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Directory slots at most: 6 MiB of memory however long the file is.
const MAX_CHUNKS_BITS: u32 = 18;
/// Clusters of the smallest chunk: 512 bytes of memory.
const MIN_CHUNK_BITS: u32 = 12;

type Chunk = Box<[AtomicU64]>;

/// Clusters `0..clusters`, each in the set or not.
///
/// Memory: a directory of 24 bytes per chunk plus one bit per cluster of each chunk that holds a
/// member, together never more than the budget by more than one chunk per thread.
#[derive(Debug)]
pub(crate) struct ClusterSet {
    chunks: Box<[OnceLock<Chunk>]>,
    chunk_bits: u32,
    clusters: u64,
    budget_bytes: u64,
    used_bytes: AtomicU64,
}

/// The set would cost more memory than its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverBudget {
    pub(crate) clusters: u64,
    pub(crate) budget_bytes: u64,
}

impl ClusterSet {
    pub(crate) fn new(clusters: u64, budget_bytes: u64) -> Self {
        let chunk_bits = chunk_bits(clusters);
        let chunks = usize::try_from(clusters.div_ceil(1 << chunk_bits))
            .expect("chunk_bits was chosen so that there are at most 2^18");
        Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            chunk_bits,
            clusters,
            budget_bytes,
            used_bytes: AtomicU64::new(0),
        }
    }

    /// The memory that the set of all of `clusters` costs, without the directory.
    pub(crate) const fn full_bytes(clusters: u64) -> u64 {
        let chunk_bits = chunk_bits(clusters);
        clusters.div_ceil(1 << chunk_bits) << (chunk_bits - 3)
    }

    pub(crate) const fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    pub(crate) const fn set_budget(&mut self, bytes: u64) {
        self.budget_bytes = bytes;
    }

    /// Inserts `run`; returns how many of its clusters were members before.
    ///
    /// Clusters at or past the set's end are ignored.
    pub(crate) fn insert(&self, run: Range<u64>) -> Result<u64, OverBudget> {
        let end = run.end.min(self.clusters);
        let mut at = run.start;
        let mut before = 0;
        while at < end {
            let chunk = self.chunk(at >> self.chunk_bits)?;
            let within = at & ((1 << self.chunk_bits) - 1);
            let (word, bit) = (within / 64, within % 64);
            let count = (end - at).min(64 - bit);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let old = chunk[word_index(word)].fetch_or(mask, Ordering::Relaxed);
            before += u64::from((old & mask).count_ones());
            at += count;
        }
        Ok(before)
    }

    pub(crate) fn contains(&self, cluster: u64) -> bool {
        if cluster >= self.clusters {
            return false;
        }
        let chunk = &self.chunks[word_index(cluster >> self.chunk_bits)];
        let within = cluster & ((1 << self.chunk_bits) - 1);
        chunk.get().is_some_and(|chunk| {
            chunk[word_index(within / 64)].load(Ordering::Relaxed) >> (within % 64) & 1 == 1
        })
    }

    /// Calls `each` with every maximal run of clusters below `end` that are no members, in order.
    pub(crate) fn for_each_gap(&self, end: u64, mut each: impl FnMut(Range<u64>)) {
        let end = end.min(self.clusters);
        let mut gap_start = 0;
        for (member, run) in self.runs(end) {
            if member {
                if gap_start < run.start {
                    each(gap_start..run.start);
                }
                gap_start = run.end;
            }
        }
        if gap_start < end {
            each(gap_start..end);
        }
    }

    /// The clusters below `end` as runs of members and others, in order; runs of one kind may
    /// follow each other.
    fn runs(&self, end: u64) -> impl Iterator<Item = (bool, Range<u64>)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let start = at;
            let chunk_size = 1 << self.chunk_bits;
            let Some(chunk) = self.chunks[word_index(at >> self.chunk_bits)].get() else {
                at = ((at & !(chunk_size - 1)).saturating_add(chunk_size)).min(end);
                return Some((false, start..at));
            };
            let within = at & (chunk_size - 1);
            let word = chunk[word_index(within / 64)].load(Ordering::Relaxed) >> (within % 64);
            let member = word & 1 == 1;
            let same = if member { word.trailing_ones() } else { word.trailing_zeros() };
            at = (at + u64::from(same).min(64 - within % 64)).min(end);
            Some((member, start..at))
        })
    }

    #[inline]
    fn chunk(&self, index: u64) -> Result<&Chunk, OverBudget> {
        let slot = &self.chunks[word_index(index)];
        match slot.get() {
            Some(chunk) => Ok(chunk),
            None => self.new_chunk(slot),
        }
    }

    #[cold]
    fn new_chunk<'a>(&self, slot: &'a OnceLock<Chunk>) -> Result<&'a Chunk, OverBudget> {
        let bytes = 1 << (self.chunk_bits - 3);
        let used = self.used_bytes.load(Ordering::Relaxed).saturating_add(bytes);
        if used > self.budget_bytes && self.budget_bytes < Self::full_bytes(self.clusters) {
            return Err(OverBudget { clusters: self.clusters, budget_bytes: self.budget_bytes });
        }
        Ok(slot.get_or_init(|| {
            self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
            (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
        }))
    }
}

const fn chunk_bits(clusters: u64) -> u32 {
    let bits = u64::BITS - clusters.leading_zeros();
    let needed = bits.saturating_sub(MAX_CHUNKS_BITS);
    if needed > MIN_CHUNK_BITS { needed } else { MIN_CHUNK_BITS }
}

#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits on every supported target")]
const fn word_index(index: u64) -> usize {
    index as usize
}
