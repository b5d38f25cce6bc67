//! Slices of tables in memory, within a limit and looked up by many threads at once.
//!
//! A slice never changes once read: nobody writes the image. Lookups hold a shard shared for the
//! time of the look; reading a slice from the file holds nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

const SHARDS: usize = 16;

#[derive(Debug)]
pub(super) struct SliceCache {
    shards: [RwLock<HashMap<u64, Slice>>; SHARDS],
    slices_per_shard: usize,
}

/// The words of a slice in the order of the file, decoded from big-endian.
#[derive(Debug)]
struct Slice {
    words: Box<[u64]>,
    /// Looked at since the last eviction.
    used: AtomicBool,
}

impl SliceCache {
    /// A cache of at most `limit_bytes` of slices of `slice_len` bytes, but never less than two
    /// slices a shard.
    pub(super) fn new(limit_bytes: u64, slice_len: u64) -> Self {
        let slices = usize::try_from(limit_bytes / slice_len).unwrap_or(usize::MAX);
        Self { shards: Default::default(), slices_per_shard: (slices / SHARDS).max(2) }
    }

    /// Looks at the slice with this number, if it is cached.
    pub(super) fn look<R>(&self, number: u64, look: impl FnOnce(&[u64]) -> R) -> Option<R> {
        let shard = self.shard(number).read().unwrap_or_else(PoisonError::into_inner);
        let slice = shard.get(&number)?;
        if !slice.used.load(Ordering::Relaxed) {
            slice.used.store(true, Ordering::Relaxed);
        }
        Some(look(&slice.words))
    }

    /// Keeps a slice that was just read.
    pub(super) fn insert(&self, number: u64, words: Box<[u64]>) {
        let mut shard = self.shard(number).write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= self.slices_per_shard {
            evict(&mut shard);
        }
        shard.insert(number, Slice { words, used: AtomicBool::new(false) });
    }

    fn shard(&self, number: u64) -> &RwLock<HashMap<u64, Slice>> {
        &self.shards[usize::try_from(number % SHARDS as u64).expect("below 16")]
    }
}

/// Drops the slices that nobody looked at since the last call; if all were looked at, half of them.
fn evict(slices: &mut HashMap<u64, Slice>) {
    let before = slices.len();
    slices.retain(|_, slice| slice.used.swap(false, Ordering::Relaxed));
    if slices.len() == before {
        let mut keep = false;
        slices.retain(|_, _| {
            keep = !keep;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_a_slice_in_use_outlives_others() {
        let cache = SliceCache::new(SHARDS as u64 * 4 * 4096, 4096);
        for number in 0..1000 {
            cache.insert(number * SHARDS as u64, Box::new([number]));
            assert_eq!(cache.look(0, |words| words[0]), Some(0), "after {number}");
        }
        let kept: usize = cache.shards.iter().map(|shard| shard.read().unwrap().len()).sum();
        assert!(kept <= 4, "{kept} slices");
    }
}
