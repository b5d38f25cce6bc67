//! What a QED image refers to, as QCOW2 counts it: one bit per cluster of the new size.
//!
//! Reads mappings through `qed-core`, which vets each entry; knows nothing of what is written.

use std::ops::Range;

use qed_core::{ExtentKind, ImageError, ReadOnlyImage};
use qed_spec::GuestOffset;

use crate::in_place::to_qcow2::ToQcow2Error;

/// A set of clusters of the file, numbered by the new cluster size.
#[derive(Debug)]
pub(super) struct Claims(Vec<u64>);

impl Claims {
    /// The empty set of a file of `clusters` clusters.
    pub(super) fn new(clusters: u64) -> Self {
        let words = usize::try_from(clusters.div_ceil(64)).expect("a file that QCOW2 can count");
        Self(vec![0; words])
    }

    /// Adds one cluster; whether it is new.
    pub(super) fn claim(&mut self, cluster: u64) -> bool {
        let mask = 1 << (cluster % 64);
        let Some(word) = self.word(cluster) else { return false };
        let is_new = self.0[word] & mask == 0;
        self.0[word] |= mask;
        is_new
    }

    pub(super) fn contains(&self, cluster: u64) -> bool {
        self.word(cluster).is_some_and(|word| self.0[word] >> (cluster % 64) & 1 == 1)
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

/// What an L2 table of QCOW2 says of a run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Data(u64),
    Zero,
}

/// Calls `visit` with each mapped run of `range`, in order: where it is in the virtual disk, its
/// length, and where it is in the file.
pub(super) fn for_each_run<E: From<ImageError>>(
    image: &ReadOnlyImage,
    range: Range<u64>,
    mut visit: impl FnMut(u64, u64, Source) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = range.start;
    while at < range.end {
        let extent = image.map(GuestOffset::new(at), range.end - at)?;
        match extent.kind {
            ExtentKind::Data(host) => visit(at, extent.len, Source::Data(host.get()))?,
            ExtentKind::Zero => visit(at, extent.len, Source::Zero)?,
            ExtentKind::Unallocated => {}
        }
        at += extent.len;
    }
    Ok(())
}

/// All that the new image takes over: the clusters with data, each named once, and the number of L2
/// tables that map them.
pub(super) struct Found {
    pub(super) claims: Claims,
    pub(super) tables: u64,
}

impl Found {
    /// Reads every table of the image.
    pub(super) fn scan(
        image: &ReadOnlyImage,
        cluster_len: u64,
        file_clusters: u64,
    ) -> Result<Self, ToQcow2Error> {
        let mut found = Self { claims: Claims::new(file_clusters), tables: 0 };
        found.claims.claim(0);
        let reach = cluster_len / 8 * cluster_len;
        let mut last_table = None;
        for_each_run(image, 0..image.image_size(), |at, len, source| {
            for table in at / reach..(at + len).div_ceil(reach) {
                found.tables += u64::from(last_table.is_none_or(|last| last < table));
                last_table = Some(table);
            }
            let Source::Data(host) = source else { return Ok(()) };
            for cluster in host / cluster_len..(host + len).div_ceil(cluster_len) {
                if !found.claims.claim(cluster) {
                    return Err(ToQcow2Error::SharedCluster { host: cluster * cluster_len });
                }
            }
            Ok(())
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_was_not_claimed() {
        let mut claims = Claims::new(200);
        for cluster in [0, 1, 63, 64, 130, 199] {
            assert!(claims.claim(cluster), "{cluster}");
            assert!(!claims.claim(cluster) && claims.contains(cluster), "{cluster}");
        }
        assert!(!claims.claim(256) && !claims.contains(256));
        let gaps = std::iter::successors(claims.gap(0, 200), |gap| claims.gap(gap.end, 200));
        assert_eq!(gaps.collect::<Vec<_>>(), [2..63, 65..130, 131..199]);
        assert_eq!(claims.gap(199, 200), None);
        assert_eq!(claims.gap(190, 195), Some(190..195));
    }
}
