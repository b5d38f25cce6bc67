//! Which clusters of the file the entries name that were read, to see when two of them name one.
//!
//! Owns a bit for each cluster at the front of the file, as many as the limit allows, and the list of
//! what was found to be named twice. Knows neither the cache nor what is done about a cross-link.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use qed_layout::ClusterSet;

/// Clusters that there are bits for at least.
const MIN_CLUSTERS: u64 = 1 << 20;

/// Clusters that there are bits for, for each slice that is remembered: a file with longer tables and
/// less in them, as only a hostile one has, costs no more memory.
const CLUSTERS_PER_SLICE: u64 = 64;
/// Slices that are remembered at least.
const MIN_SLICES: u64 = 1 << 16;

/// What the slices that were read so far name, each as it was when it was first read.
#[derive(Debug)]
pub(crate) struct CrossLinks {
    /// Of the clusters at the front of the file.
    named: ClusterSet,
    /// Clusters that there are bits for.
    clusters: u64,
    /// Slices whose entries were claimed. What is in one that is read again are the same entries, or
    /// those of this session, which name new clusters.
    slices: Mutex<HashSet<u64>>,
    /// Of those no more; what comes after them is not claimed.
    max_slices: usize,
    /// Clusters that are named twice.
    crossed: RwLock<BTreeSet<u64>>,
    /// How often a cluster was added to them.
    generation: AtomicU64,
}

impl CrossLinks {
    /// For a file of so many clusters, in an eighth of `limit_bytes` of memory, or 128 KiB if that is
    /// more: of clusters behind those only a slice that names one twice is found.
    pub(crate) fn new(clusters: u64, limit_bytes: u64) -> Self {
        let clusters = clusters.min(limit_bytes.max(MIN_CLUSTERS));
        let max_slices = (clusters / CLUSTERS_PER_SLICE).max(MIN_SLICES);
        Self {
            named: ClusterSet::unlimited(clusters),
            clusters,
            slices: Mutex::default(),
            max_slices: usize::try_from(max_slices).unwrap_or(usize::MAX),
            crossed: RwLock::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Claims what a slice names, unless that was done before; whether anything in there was claimed
    /// already and so is crossed from now on.
    pub(crate) fn claim(&self, slice: u64, clusters: impl Iterator<Item = u64>) -> bool {
        if !self.remember(slice) {
            return false;
        }
        let mut found = Vec::new();
        let mut far = Vec::new();
        // Clusters mostly follow each other: a word of the map is changed once for all of its own.
        let (mut word, mut mask) = (0, 0);
        for cluster in clusters {
            if cluster >= self.clusters {
                far.push(cluster);
                continue;
            }
            if cluster / 64 != word {
                self.mark(word, mask, &mut found);
                (word, mask) = (cluster / 64, 0);
            }
            let bit = 1 << (cluster % 64);
            if mask & bit != 0 {
                found.push(cluster);
            }
            mask |= bit;
        }
        self.mark(word, mask, &mut found);
        far.sort_unstable();
        found.extend(far.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]));
        if found.is_empty() {
            return false;
        }
        self.crossed.write().unwrap_or_else(PoisonError::into_inner).extend(found);
        self.generation.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Whether a cluster is known to be named twice.
    pub(crate) fn has(&self, cluster: u64) -> bool {
        self.generation() != 0
            && self.crossed.read().unwrap_or_else(PoisonError::into_inner).contains(&cluster)
    }

    /// A number that grows when a cross-link is found; 0 while there is none.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The file was cut: nothing names the clusters from `end` on any more.
    pub(crate) fn forget_from(&self, end: u64) {
        self.crossed.write().unwrap_or_else(PoisonError::into_inner).split_off(&end);
    }

    /// Claims the clusters of `mask` in a word of the map; those that were claimed are added to `found`.
    fn mark(&self, word: u64, mask: u64, found: &mut Vec<u64>) {
        if mask == 0 {
            return;
        }
        let claimed = self.named.insert_word(word, mask).expect("a set without a limit");
        if claimed != 0 {
            let bits = (0..64).filter(|bit| claimed >> bit & 1 == 1);
            found.extend(bits.map(|bit| word * 64 + bit));
        }
    }

    /// Whether a slice is read for the first time and there is room to remember that.
    fn remember(&self, slice: u64) -> bool {
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        slices.len() < self.max_slices && slices.insert(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_endless_tables_costs_bounded_memory() {
        let links = CrossLinks::new(1 << 40, 0);
        for slice in 0..2 * MIN_SLICES {
            assert!(!links.claim(slice, std::iter::empty()));
        }
        assert_eq!(links.slices.lock().unwrap().len() as u64, MIN_SLICES);
        assert!(!links.claim(3 * MIN_SLICES, [7, 7].into_iter()), "it is not looked at");
    }

    #[test]
    fn a_cluster_is_crossed_when_a_second_entry_names_it() {
        // In the map, and behind all that the limit leaves room for.
        for base in [0, MIN_CLUSTERS] {
            let links = CrossLinks::new(2 * MIN_CLUSTERS, 0);
            let claim = |slice, clusters: &[u64]| {
                links.claim(slice, clusters.iter().map(|cluster| base + cluster))
            };
            assert!(!claim(0, &[5, 6, 7, 200, 64, 63]));
            assert!(!claim(0, &[5, 6, 7, 200, 64, 63]), "the same slice again");
            assert_eq!(links.generation(), 0);
            assert!(claim(1, &[300, 9, 301, 9]));
            assert!(claim(2, &[400, 400]));
            assert_eq!(claim(3, &[64, 500]), base == 0);
            let crossed = [9, 400, 64].map(|cluster| links.has(base + cluster));
            assert_eq!(crossed, [true, true, base == 0]);
            assert!(![5, 63, 300, 500].iter().any(|cluster| links.has(base + cluster)));
            links.forget_from(base + 64);
            assert!(links.has(base + 9) && !links.has(base + 400) && !links.has(base + 64));
        }
    }
}
