//! A set of clusters of a file, one bit each.

use std::ops::Range;

/// Clusters by number. The file has a limit before it has a set.
#[derive(Debug)]
pub(super) struct ClusterSet(Vec<u64>);

impl ClusterSet {
    /// The empty set of a file of `clusters` clusters.
    pub(super) fn new(clusters: u64) -> Self {
        let words = usize::try_from(clusters.div_ceil(64)).expect("a file within its limit");
        Self(vec![0; words])
    }

    /// The first cluster that can be no member, at most 63 past the end of the file.
    pub(super) fn end(&self) -> u64 {
        self.0.len() as u64 * 64
    }

    /// Adds a cluster before [`Self::end`]; whether it is new.
    pub(super) fn insert(&mut self, cluster: u64) -> bool {
        let Some(word) = self.word(cluster) else { return false };
        let mask = 1 << (cluster % 64);
        let is_new = self.0[word] & mask == 0;
        self.0[word] |= mask;
        is_new
    }

    pub(super) fn contains(&self, cluster: u64) -> bool {
        self.word(cluster).is_some_and(|word| self.0[word] >> (cluster % 64) & 1 == 1)
    }

    /// The first cluster that both have.
    pub(super) fn first_common(&self, other: &Self) -> Option<u64> {
        let both = self.0.iter().zip(&other.0).map(|(ours, theirs)| ours & theirs);
        let (word, bits) = (0_u64..).zip(both).find(|(_, bits)| *bits != 0)?;
        Some(word * 64 + u64::from(bits.trailing_zeros()))
    }

    /// The first run of clusters at or after `from` and before `end` that are not in the set.
    pub(super) fn gap(&self, from: u64, end: u64) -> Option<Range<u64>> {
        let start = self.first(from, end, false)?;
        Some(start..self.first(start, end, true).unwrap_or(end))
    }

    /// The first cluster at or after `from` and before `end` that is a member, or none.
    fn first(&self, from: u64, end: u64, member: bool) -> Option<u64> {
        let mut at = from;
        while at < end {
            let word = self.word(at).map_or(0, |word| self.0[word]);
            let wanted = (if member { word } else { !word }) >> (at % 64);
            if wanted != 0 {
                let found = at + u64::from(wanted.trailing_zeros());
                return (found < end).then_some(found);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    fn word(&self, cluster: u64) -> Option<usize> {
        usize::try_from(cluster / 64).ok().filter(|word| *word < self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(clusters: &[u64]) -> ClusterSet {
        let mut set = ClusterSet::new(200);
        for &cluster in clusters {
            assert!(set.insert(cluster), "{cluster}");
            assert!(!set.insert(cluster) && set.contains(cluster), "{cluster}");
        }
        set
    }

    #[test]
    fn gaps_are_what_is_no_member() {
        let set = set(&[0, 1, 63, 64, 130, 199]);
        let gaps = std::iter::successors(set.gap(0, 200), |gap| set.gap(gap.end, 200));
        assert_eq!(gaps.collect::<Vec<_>>(), [2..63, 65..130, 131..199]);
        assert_eq!(set.gap(199, 200), None);
        assert_eq!(set.gap(190, 195), Some(190..195));
    }

    #[test]
    fn the_first_that_two_sets_have_is_the_lowest() {
        let first = |ours: &[u64], theirs: &[u64]| set(ours).first_common(&set(theirs));
        assert_eq!(first(&[1, 70], &[0, 71]), None);
        assert_eq!(first(&[1, 70, 199], &[0, 70, 199]), Some(70));
    }

    #[test]
    fn nothing_past_the_end_is_a_member() {
        let mut set = set(&[]);
        assert_eq!(set.end(), 256);
        assert!(set.insert(255));
        assert!(!set.insert(256) && !set.contains(256));
    }
}
