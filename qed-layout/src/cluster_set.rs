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
pub struct ClusterSet {
    chunks: Box<[OnceLock<Chunk>]>,
    chunk_bits: u32,
    clusters: u64,
    budget_bytes: u64,
    used_bytes: AtomicU64,
}

/// The set would cost more memory than its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBudget {
    /// Clusters that there could be members of.
    pub clusters: u64,
    /// Bytes.
    pub budget_bytes: u64,
}

impl ClusterSet {
    /// The empty set of members below `clusters`, which may take `budget_bytes` of memory.
    ///
    /// # Panics
    /// Never: there are at most 2^18 chunks.
    #[must_use]
    pub fn new(clusters: u64, budget_bytes: u64) -> Self {
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

    /// As [`ClusterSet::new`], with memory for all of `clusters`: inserting never fails.
    #[must_use]
    pub fn unlimited(clusters: u64) -> Self {
        Self::new(clusters, Self::full_bytes(clusters))
    }

    /// The memory that the set of all of `clusters` costs, without the directory.
    #[must_use]
    pub const fn full_bytes(clusters: u64) -> u64 {
        let chunk_bits = chunk_bits(clusters);
        clusters.div_ceil(1 << chunk_bits) << (chunk_bits - 3)
    }

    /// The memory that the set may take.
    #[must_use]
    pub const fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Lets the set take more memory, or less from now on.
    pub const fn set_budget(&mut self, bytes: u64) {
        self.budget_bytes = bytes;
    }

    /// Inserts `run`; returns the first of its clusters that was a member before.
    ///
    /// Clusters at or past the set's end are ignored.
    ///
    /// # Errors
    /// [`OverBudget`]; part of the run may then be in the set.
    pub fn insert(&self, run: Range<u64>) -> Result<Option<u64>, OverBudget> {
        let mut first = None;
        for (word, mask) in words(run.start..run.end.min(self.clusters)) {
            let before = self.insert_word(word, mask)?;
            if before != 0 && first.is_none() {
                first = Some(word * 64 + u64::from(before.trailing_zeros()));
            }
        }
        Ok(first)
    }

    /// Inserts the members of `part`, which must be of the same size; returns whether none of them
    /// was a member before.
    ///
    /// # Errors
    /// [`OverBudget`]; some of the members may then be in the set.
    pub fn absorb(&mut self, part: &LocalSet) -> Result<bool, OverBudget> {
        let chunk_words = word_index(1 << (self.chunk_bits - 6));
        let mut taken = 0;
        for (index, words) in part.words.chunks(chunk_words).enumerate() {
            if words.iter().all(|word| *word == 0) {
                continue;
            }
            self.chunk(index as u64)?;
            let chunk = self.chunks[index].get_mut().into_iter().flatten();
            for (word, mask) in chunk.zip(words) {
                let word = word.get_mut();
                taken |= *word & mask;
                *word |= mask;
            }
        }
        Ok(taken == 0)
    }

    /// Inserts the clusters of `mask` in word `word` of the set, which has them; returns those that were
    /// members.
    ///
    /// # Errors
    /// [`OverBudget`]; the set is as it was.
    pub fn insert_word(&self, word: u64, mask: u64) -> Result<u64, OverBudget> {
        let chunk = self.chunk(word >> (self.chunk_bits - 6))?;
        let within = word & ((1 << (self.chunk_bits - 6)) - 1);
        Ok(chunk[word_index(within)].fetch_or(mask, Ordering::Relaxed) & mask)
    }

    /// Whether nothing was ever inserted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.get().is_none())
    }

    /// Whether `cluster` is a member.
    #[must_use]
    pub fn contains(&self, cluster: u64) -> bool {
        if cluster >= self.clusters {
            return false;
        }
        let chunk = &self.chunks[word_index(cluster >> self.chunk_bits)];
        let within = cluster & ((1 << self.chunk_bits) - 1);
        chunk.get().is_some_and(|chunk| {
            chunk[word_index(within / 64)].load(Ordering::Relaxed) >> (within % 64) & 1 == 1
        })
    }

    /// The maximal runs of clusters below `end` that are no members, in order.
    pub fn gaps(&self, end: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut runs = self.runs(end.min(self.clusters)).peekable();
        std::iter::from_fn(move || {
            let mut gap = runs.find(|(member, _)| !member)?.1;
            while let Some((_, run)) = runs.next_if(|(member, _)| !member) {
                gap.end = run.end;
            }
            Some(gap)
        })
    }

    /// The first cluster that this set and one of the same size both have.
    #[must_use]
    pub fn first_common(&self, other: &Self) -> Option<u64> {
        let chunks = (0_u64..).zip(self.chunks.iter().zip(&other.chunks));
        let mut shared = chunks.filter_map(|(index, (a, b))| Some((index, a.get()?, b.get()?)));
        shared.find_map(|(index, a, b)| {
            let words = (index << (self.chunk_bits - 6)..).zip(a.iter().zip(b));
            let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
            let mut both = words.map(|(word, (a, b))| (word, load(a) & load(b)));
            let (word, bits) = both.find(|(_, bits)| *bits != 0)?;
            Some(word * 64 + u64::from(bits.trailing_zeros()))
        })
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
            at += u64::from(same).min(64 - within % 64);
            let whole = if member { u64::MAX } else { 0 };
            let rest = chunk.get(word_index(at & (chunk_size - 1)) / 64..).unwrap_or_default();
            if at % 64 == 0 && at & (chunk_size - 1) != 0 {
                let same = rest.iter().take_while(|word| word.load(Ordering::Relaxed) == whole);
                at += 64 * same.count() as u64;
            }
            at = at.min(end);
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
        // A budget for all of the set suffices, also where two threads count one chunk that both make.
        if used > self.budget_bytes && self.budget_bytes < Self::full_bytes(self.clusters) {
            return Err(OverBudget { clusters: self.clusters, budget_bytes: self.budget_bytes });
        }
        Ok(slot.get_or_init(|| {
            self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
            (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
        }))
    }
}

/// A set of host clusters for one thread at a time: no atomic operations, allocated as a whole.
///
/// Threads that insert scattered clusters into one [`ClusterSet`] spend their time passing cache
/// lines to each other; each fills one of these instead, to be absorbed at the end.
#[derive(Debug)]
pub struct LocalSet {
    words: Vec<u64>,
}

impl LocalSet {
    /// The empty set of members below `clusters`.
    #[must_use]
    pub fn new(clusters: u64) -> Self {
        Self { words: vec![0; word_index(clusters.div_ceil(64))] }
    }

    /// Inserts `count` clusters, 1 to 64, from `first`; returns whether none of them was a member
    /// before. Clusters past the last word of the set are ignored.
    #[inline(always)]
    pub fn insert(&mut self, first: u64, count: u64) -> bool {
        let mask = u64::MAX >> (64 - count);
        let was_free = self.insert_word(first / 64, mask << (first % 64));
        if first % 64 + count <= 64 {
            return was_free;
        }
        self.insert_word(first / 64 + 1, mask >> (64 - first % 64)) & was_free
    }

    #[inline(always)]
    fn insert_word(&mut self, word: u64, mask: u64) -> bool {
        match self.words.get_mut(word_index(word)) {
            Some(word) => {
                let old = *word;
                *word = old | mask;
                old & mask == 0
            }
            None => true,
        }
    }
}

/// A run of clusters as words of 64 clusters: the number of each word and the bits in it.
#[inline]
pub fn words(run: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let mut at = run.start;
    std::iter::from_fn(move || {
        if at >= run.end {
            return None;
        }
        let (word, bit) = (at / 64, at % 64);
        let count = (run.end - at).min(64 - bit);
        at += count;
        Some((word, (u64::MAX >> (64 - count)) << bit))
    })
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

#[cfg(test)]
mod tests;
