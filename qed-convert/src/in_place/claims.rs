//! Which clusters of the file are in use, so that none gets two uses.

use crate::in_place::error::Refusal;
use qed_layout::ClusterSet;

/// Clusters of the longest file: half a gibibyte of bits.
const MAX_CLUSTERS: u64 = 1 << 32;

/// The clusters of a file.
#[derive(Debug)]
pub(super) struct Claims {
    clusters: ClusterSet,
    cluster_bits: u32,
}

impl Claims {
    /// Of a file of `len` bytes.
    pub(super) fn new(len: u64, cluster_bits: u32) -> Result<Self, Refusal> {
        let clusters = len.div_ceil(1 << cluster_bits);
        if clusters > MAX_CLUSTERS {
            return Err(Refusal::FileTooLong { len });
        }
        Ok(Self { clusters: ClusterSet::unlimited(clusters), cluster_bits })
    }

    /// Claims the clusters of `len` bytes at `at`; what lies past the end of the file is nobody's.
    pub(super) fn claim(&mut self, at: u64, len: u64, what: &'static str) -> Result<(), Refusal> {
        match self.mark(at, len) {
            Some(cluster) => Err(Refusal::Shared { at: cluster << self.cluster_bits, what }),
            None => Ok(()),
        }
    }

    /// Claims clusters that others of the same kind may share; the first that was claimed before.
    pub(super) fn mark(&mut self, at: u64, len: u64) -> Option<u64> {
        let end = at.saturating_add(len).div_ceil(1 << self.cluster_bits);
        let before = self.clusters.insert(at >> self.cluster_bits..end);
        before.expect("a set without a limit")
    }

    /// Where the first cluster lies that both have.
    pub(super) fn first_common(&self, other: &Self) -> Option<u64> {
        Some(self.clusters.first_common(&other.clusters)? << self.cluster_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_one_use() {
        let too_long = Claims::new((1 << 44) + 1, 12).unwrap_err();
        assert_eq!(too_long, Refusal::FileTooLong { len: (1 << 44) + 1 });
        let mut claims = Claims::new(200 << 12, 12).unwrap();
        claims.claim(0, 4096, "a").unwrap();
        claims.claim(64 << 12, 8193, "b").unwrap();
        let shared = claims.claim(66 << 12, 1, "c").unwrap_err();
        assert_eq!(shared, Refusal::Shared { at: 66 << 12, what: "c" });
        claims.claim(67 << 12, 4096, "d").unwrap();
        claims.claim(1 << 40, 4096, "past the end").unwrap();
        let mut other = Claims::new(200 << 12, 12).unwrap();
        other.mark(68 << 12, 4096);
        other.mark(68 << 12, 4096);
        assert_eq!(claims.first_common(&other), None);
        other.mark(67 << 12, 1);
        assert_eq!(claims.first_common(&other), Some(67 << 12));
    }
}
