//! The roots of an image: what its header names, so that no table may name it too. A table, a key or a
//! list that the header comes to name is added here, and every caller keeps clear of it.

use std::ops::Range;

use qed_spec::Header;

/// What a root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Header, superblocks, dirty bitmap, journal ring.
    HeaderArea,
    /// The L1 table.
    L1Table,
}

/// Where the roots of one image lie, in bytes of the file. Each is a whole number of clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    header_area_end: u64,
    l1_start: u64,
    l1_end: u64,
}

impl Roots {
    /// The roots that `header` names.
    #[must_use]
    pub const fn of(header: &Header) -> Self {
        let l1_start = header.fields().l1_table_offset.get();
        Self {
            header_area_end: header.header_area_len_bytes(),
            l1_start,
            l1_end: l1_start.saturating_add(header.geometry().table_size_bytes()),
        }
    }

    /// All of them, in the order in which a byte that two have belongs to one.
    #[must_use]
    pub const fn all(&self) -> [(Root, Range<u64>); 2] {
        [(Root::HeaderArea, 0..self.header_area_end), (Root::L1Table, self.l1_start..self.l1_end)]
    }

    /// The first root that has bytes of `range`, which is not empty.
    #[inline]
    #[must_use]
    pub const fn at(&self, range: &Range<u64>) -> Option<Root> {
        if range.start < self.header_area_end {
            Some(Root::HeaderArea)
        } else if range.start < self.l1_end && self.l1_start < range.end {
            Some(Root::L1Table)
        } else {
            None
        }
    }

    /// Byte after the last of all roots.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.header_area_end.max(self.l1_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::header;

    #[test]
    fn a_range_meets_the_root_that_has_one_of_its_bytes() {
        const CLUSTER: u64 = 4096;
        let roots = Roots::of(&header(0, 0));
        // A header area of five clusters, a gap of one, an L1 table of two.
        let cases = [
            (0..1, Some(Root::HeaderArea)),
            (5 * CLUSTER - 1..7 * CLUSTER, Some(Root::HeaderArea)),
            (5 * CLUSTER..6 * CLUSTER, None),
            (5 * CLUSTER..6 * CLUSTER + 1, Some(Root::L1Table)),
            (8 * CLUSTER - 1..8 * CLUSTER, Some(Root::L1Table)),
            (8 * CLUSTER..9 * CLUSTER, None),
        ];
        for (range, root) in cases {
            assert_eq!(roots.at(&range), root, "{range:?}");
        }
        let all = [(Root::HeaderArea, 0..5 * CLUSTER), (Root::L1Table, 6 * CLUSTER..8 * CLUSTER)];
        assert_eq!(roots.all(), all);
        assert_eq!(roots.end(), 8 * CLUSTER);
    }
}
