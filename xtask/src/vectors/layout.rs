//! An image in which every kind of cluster is next to another one, and what nothing names in it.
//!
//! In clusters: 2 of header area, 1 of data, 1 free, the L1 table, 1 free, the L2 table, free space
//! for one more table, and a part of a cluster.

use std::ops::Range;

use super::shape::Shape;
use super::vector::Header;

#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) shape: Shape,
}

/// Clusters of the header area.
const HEADER: u64 = 2;
/// The data cluster that entry 0 of the L2 table names.
pub(super) const DATA: u64 = 2;
/// The free cluster before the L1 table.
pub(super) const FREE: u64 = 3;
/// The first cluster of the L1 table.
pub(super) const L1: u64 = 4;
/// Bytes of the last cluster that the file has.
const PART: u64 = 512;

impl Layout {
    /// The free cluster between the tables.
    pub(super) fn gap(self) -> u64 {
        L1 + self.shape.table
    }

    /// The first cluster of the L2 table.
    pub(super) fn l2(self) -> u64 {
        self.gap() + 1
    }

    /// The first of the free clusters behind the L2 table.
    pub(super) fn spare(self) -> u64 {
        self.l2() + self.shape.table
    }

    /// The cluster of which the file has a part; also how many whole ones it has.
    pub(super) fn partial(self) -> u64 {
        self.spare() + self.shape.table
    }

    pub(super) fn file_len(self) -> u64 {
        self.offset(self.partial()) + PART
    }

    pub(super) fn offset(self, cluster: u64) -> u64 {
        cluster * self.shape.cluster
    }

    pub(super) fn header(self, image_size: u64) -> Header {
        Header {
            cluster_size: self.shape.cluster,
            table_size: self.shape.table,
            header_size: HEADER,
            l1_table_offset: self.offset(L1),
            image_size,
            ..Header::default()
        }
    }

    /// What is wrong with an L1 entry that names a table from this cluster on, beside the L2 table.
    pub(super) fn table_at(self, cluster: u64) -> Option<u16> {
        let table = cluster..cluster + self.shape.table;
        if table.end > self.partial() + 1 {
            Some(102)
        } else if cluster < HEADER {
            Some(104)
        } else if overlap(&table, &(L1..self.gap())) {
            Some(105)
        } else if cluster == self.l2() {
            Some(106)
        } else if overlap(&table, &(self.l2()..self.spare())) {
            Some(107)
        } else if table.end > self.partial() {
            Some(103)
        } else {
            None
        }
    }

    /// What is wrong with an L2 entry that names this cluster.
    pub(super) fn data_at(self, cluster: u64) -> Option<u16> {
        if cluster > self.partial() {
            Some(202)
        } else if cluster < HEADER {
            Some(204)
        } else if (L1..self.gap()).contains(&cluster) {
            Some(205)
        } else if (self.l2()..self.spare()).contains(&cluster) {
            Some(206)
        } else if cluster == DATA {
            Some(207)
        } else if cluster == self.partial() {
            Some(203)
        } else {
            None
        }
    }

    /// The findings for the clusters that nothing names, when `more` are named besides.
    pub(super) fn unused(self, more: &Range<u64>) -> Vec<u16> {
        let is_used = |cluster: &u64| {
            let free = [FREE, self.gap()].contains(cluster) || *cluster >= self.spare();
            !free || more.contains(cluster)
        };
        let mut findings = Vec::new();
        let mut clusters = (0..=self.partial()).peekable();
        while let Some(first) = clusters.next() {
            if is_used(&first) {
                continue;
            }
            let mut last = first;
            while let Some(next) = clusters.next_if(|next| !is_used(next)) {
                last = next;
            }
            let reaches_end = last == self.partial();
            if first < self.partial() {
                findings.push(if reaches_end { 301 } else { 302 });
            }
            findings.extend(reaches_end.then_some(303));
        }
        findings
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_clusters_are_runs() {
        let layout = Layout { shape: Shape::new(4096, 2) };
        assert_eq!((layout.gap(), layout.l2(), layout.spare(), layout.partial()), (6, 7, 9, 11));
        assert_eq!(layout.file_len(), 11 * 4096 + 512);
        for (more, expected) in [
            (0..0, vec![302, 302, 301, 303]),
            (3..4, vec![302, 301, 303]),
            (9..10, vec![302, 302, 301, 303]),
            (9..11, vec![302, 302, 303]),
            (10..11, vec![302, 302, 302, 303]),
            (11..12, vec![302, 302, 302]),
            (9..12, vec![302, 302]),
        ] {
            assert_eq!(layout.unused(&more), expected, "{more:?}");
        }
    }
}
