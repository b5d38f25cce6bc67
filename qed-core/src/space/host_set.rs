//! A set of host clusters that gives up its members again: a bit each, in chunks that have any.
//!
//! One thread at a time. What a member means is up to the owner of the set.

use std::collections::BTreeMap;
use std::ops::Range;

use qed_layout::words;

/// Words of a chunk, of 64 clusters each.
const WORDS: usize = 64;
/// Clusters of a chunk.
const CHUNK: u64 = 64 * WORDS as u64;

/// The set. Memory: 528 bytes and a node of a map for each 4096 clusters that have a member.
#[derive(Debug, Default)]
pub(crate) struct HostSet {
    /// By the number of the chunk; none is empty.
    chunks: BTreeMap<u64, Box<Chunk>>,
    len: u64,
}

#[derive(Debug)]
struct Chunk {
    words: [u64; WORDS],
    members: u64,
}

impl HostSet {
    /// Members.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, cluster: u64) -> bool {
        self.word(cluster / 64) >> (cluster % 64) & 1 == 1
    }

    /// The members among clusters `64 * word..64 * (word + 1)`, one bit each.
    pub(crate) fn word(&self, word: u64) -> u64 {
        self.chunks.get(&(word / WORDS as u64)).map_or(0, |chunk| chunk.words[within(word)])
    }

    /// Adds clusters; those that are members stay.
    pub(crate) fn insert(&mut self, run: Range<u64>) {
        for (word, mask) in words(run) {
            self.insert_word(word, mask);
        }
    }

    /// Adds the clusters of `mask` in a word.
    pub(crate) fn insert_word(&mut self, word: u64, mask: u64) {
        if mask == 0 {
            return;
        }
        let chunk = self
            .chunks
            .entry(word / WORDS as u64)
            .or_insert_with(|| Box::new(Chunk { words: [0; WORDS], members: 0 }));
        let bits = &mut chunk.words[within(word)];
        let added = u64::from((mask & !*bits).count_ones());
        *bits |= mask;
        chunk.members += added;
        self.len += added;
    }

    /// Takes clusters out; those that are no members are ignored.
    pub(crate) fn remove(&mut self, run: Range<u64>) {
        for (word, mask) in words(run) {
            let number = word / WORDS as u64;
            let Some(chunk) = self.chunks.get_mut(&number) else { continue };
            let bits = &mut chunk.words[within(word)];
            let removed = u64::from((mask & *bits).count_ones());
            *bits &= !mask;
            chunk.members -= removed;
            self.len -= removed;
            if chunk.members == 0 {
                self.chunks.remove(&number);
            }
        }
    }

    /// Adds the members of another set.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for (number, chunk) in &other.chunks {
            for (word, bits) in (number * WORDS as u64..).zip(chunk.words) {
                self.insert_word(word, bits);
            }
        }
    }

    /// Takes the members out that another set has, too.
    pub(crate) fn take_common(&mut self, other: &Self) -> Self {
        let mut common = Self::default();
        for (number, chunk) in &other.chunks {
            for (word, bits) in (number * WORDS as u64..).zip(chunk.words) {
                common.insert_word(word, bits & self.word(word));
            }
        }
        common.runs().for_each(|run| self.remove(run));
        common
    }

    /// The first of the members that follow each other up to `end`, or `end`.
    pub(crate) fn start_of_run(&self, end: u64) -> u64 {
        let mut at = end;
        while at > 0 {
            let (word, bit) = ((at - 1) / 64, (at - 1) % 64);
            let ones = u64::from((self.word(word) << (63 - bit)).leading_ones());
            at -= ones;
            if ones <= bit {
                break;
            }
        }
        at
    }

    /// The lowest member.
    pub(crate) fn first(&self) -> Option<u64> {
        self.first_from(0)
    }

    /// Takes out the lowest run of members, or its first part of at most `count`.
    pub(crate) fn take(&mut self, count: u64) -> Option<Range<u64>> {
        let first = self.first()?;
        let run = first..self.end_of_run(first, first.saturating_add(count));
        self.remove(run.clone());
        Some(run)
    }

    /// Takes out the lowest `count` members that follow each other.
    pub(crate) fn take_together(&mut self, count: u64) -> Option<Range<u64>> {
        let mut first = self.first()?;
        loop {
            let wanted = first.checked_add(count)?;
            let end = self.end_of_run(first, wanted);
            if end == wanted {
                self.remove(first..end);
                return Some(first..end);
            }
            first = self.first_from(end)?;
        }
    }

    /// Forgets the members from `end` on.
    pub(crate) fn forget_from(&mut self, end: u64) {
        let last = self.chunks.last_key_value().map_or(0, |(number, _)| (number + 1) * CHUNK);
        if last > end {
            drop(self.chunks.split_off(&end.div_ceil(CHUNK)));
            self.len = self.chunks.values().map(|chunk| chunk.members).sum();
            self.remove(end..end.next_multiple_of(CHUNK));
        }
    }

    /// The runs of members, in order; one that ends with a word goes on in the next.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.first_from(at)?;
            at = self.end_of_run(first, u64::MAX);
            Some(first..at)
        })
    }

    /// The lowest member from `at` on.
    fn first_from(&self, at: u64) -> Option<u64> {
        for (number, chunk) in self.chunks.range(at / CHUNK..) {
            let base = number * CHUNK;
            let from = at.saturating_sub(base);
            let words = chunk.words.iter().enumerate().skip(within_chunk(from));
            for (index, bits) in words {
                let start = base + 64 * index as u64;
                let skipped = at.saturating_sub(start).min(64);
                let bits = bits & u64::MAX.checked_shl(u32::try_from(skipped).ok()?).unwrap_or(0);
                if bits != 0 {
                    return Some(start + u64::from(bits.trailing_zeros()));
                }
            }
        }
        None
    }

    /// The first cluster from `at` on, a member, that is none, or `end` if that comes first.
    fn end_of_run(&self, at: u64, end: u64) -> u64 {
        let mut at = at;
        while at < end {
            let bits = self.word(at / 64) >> (at % 64);
            let ones = u64::from(bits.trailing_ones());
            at += ones;
            if !at.is_multiple_of(64) || ones == 0 {
                break;
            }
        }
        at.min(end)
    }
}

fn within(word: u64) -> usize {
    usize::try_from(word % WORDS as u64).expect("below 64")
}

/// The word of a chunk that has the cluster `from` of it; past the last if it has none.
fn within_chunk(from: u64) -> usize {
    usize::try_from(from / 64).unwrap_or(WORDS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Numbers that look random and are the same each time.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 1_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        }
    }

    #[test]
    fn it_is_the_set_that_a_model_is() {
        let (mut set, mut model) = (HostSet::default(), BTreeSet::new());
        let mut number = numbers();
        for step in 0..20_000 {
            let first = number(3 * CHUNK);
            let run = first..first + number(if step % 7 == 0 { 2 * CHUNK } else { 130 });
            match number(8) {
                0..3 => {
                    set.insert(run.clone());
                    model.extend(run);
                }
                3..5 => {
                    set.remove(run.clone());
                    model.retain(|cluster| !run.contains(cluster));
                }
                5 => {
                    let count = 1 + number(100);
                    let taken = set.take(count);
                    let first = model.first().copied();
                    let expected = first.map(|first| {
                        let end = (first..first + count).find(|cluster| !model.contains(cluster));
                        first..end.unwrap_or(first + count)
                    });
                    assert_eq!(taken, expected);
                    model.retain(|cluster| !taken.iter().any(|taken| taken.contains(cluster)));
                }
                6 => {
                    let count = 1 + number(70);
                    let taken = set.take_together(count);
                    let fits =
                        |first: &&u64| (**first..**first + count).all(|c| model.contains(&c));
                    let first = model.iter().find(fits).copied();
                    assert_eq!(taken, first.map(|first| first..first + count));
                    model.retain(|cluster| !taken.iter().any(|taken| taken.contains(cluster)));
                }
                _ => {
                    let end = 2 * CHUNK + number(2 * CHUNK);
                    set.forget_from(end);
                    model.split_off(&end);
                }
            }
            assert_eq!(set.len(), model.len() as u64, "step {step}");
            assert_eq!(set.first(), model.first().copied());
            let end = number(4 * CHUNK);
            let start = (0..end).rev().take_while(|cluster| model.contains(cluster)).last();
            assert_eq!(set.start_of_run(end), start.unwrap_or(end));
        }
        let members: Vec<u64> = set.runs().flatten().collect();
        assert_eq!(members, model.iter().copied().collect::<Vec<_>>());
        let mut even = HostSet::default();
        (0..5 * CHUNK).step_by(2).for_each(|cluster| even.insert(cluster..cluster + 1));
        let common = even.take_common(&set);
        let is_common = |cluster: &u64| cluster.is_multiple_of(2) && model.contains(cluster);
        assert!((0..5 * CHUNK).all(|cluster| common.contains(cluster) == is_common(&cluster)));
        assert_eq!(even.len() + common.len(), 5 * CHUNK / 2);
        let mut both = HostSet::default();
        both.insert(5..6);
        both.absorb(&set);
        model.insert(5);
        assert_eq!(both.len(), model.len() as u64);
        assert!((0..5 * CHUNK).all(|cluster| both.contains(cluster) == model.contains(&cluster)));
    }
}
