//! What an image says, worked out from its bytes by the shortest way: sets and lists, no caches, no
//! passes. What check, reader and repair say is held against it.
//!
//! Shares nothing with them but the header, which has an oracle of its own.

use std::collections::BTreeSet;
use std::ops::Range;

use qed_spec::Header;

use crate::sparse::SparseContent;

/// The tables of an image, judged entry by entry.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) header: Header,
    pub(crate) content: SparseContent,
    pub(crate) cluster: u64,
    /// Clusters of the file: the first number counts a last one that is there in part.
    clusters: u64,
    whole_clusters: u64,
    header_end: u64,
    pub(crate) image_size: u64,
    l1: Range<u64>,
    /// Clusters of a table, and guest bytes behind an L2 table.
    table_clusters: u64,
    pub(crate) coverage: u64,
    pub(crate) is_dirty: bool,
    /// L1 slots that are not 0.
    pub(crate) tables: Vec<Table>,
}

/// An L1 slot that is not 0, and the L2 table that it names, if it can.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) slot: u64,
    pub(crate) value: u64,
    /// First cluster of the table, or the number of the finding that keeps it from being one.
    pub(crate) start: Result<u64, u16>,
    /// The number of the finding where an earlier table has one of its clusters, too.
    overlap: Option<u16>,
    /// Slots that are not 0 with their values, as far as the file has them.
    pub(crate) entries: Vec<(u64, u64)>,
}

/// The findings of a check as (number, place in the file, value or clusters), and its counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) list: Vec<(u16, u64, u64)>,
    pub(crate) allocated: u64,
    pub(crate) fragmented: u64,
    pub(crate) zero: u64,
}

impl Reference {
    /// Reads the tables of an image whose header is `header`.
    pub(crate) fn new(header: &Header, content: SparseContent) -> Self {
        let (geometry, len) = (header.geometry(), content.len());
        let cluster = geometry.cluster_size_bytes();
        let table_clusters = geometry.table_size_clusters();
        let l1_start = header.fields().l1_table_offset.get() / cluster;
        let mut reference = Self {
            header: *header,
            cluster,
            clusters: len.div_ceil(cluster),
            whole_clusters: len / cluster,
            header_end: header.header_area_len_bytes() / cluster,
            image_size: header.image_size(),
            l1: l1_start..l1_start + table_clusters,
            table_clusters,
            coverage: table_clusters * cluster / 8 * cluster,
            is_dirty: header.features().contains(qed_spec::Features::NEED_CHECK),
            tables: Vec::new(),
            content,
        };
        let slots: Vec<_> = reference.words(l1_start).collect();
        for (slot, value) in slots {
            let table = reference.table(slot, value);
            reference.tables.push(table);
        }
        reference
    }

    /// The table of the next slot.
    fn table(&self, slot: u64, value: u64) -> Table {
        let start = self.judge_table(value);
        let overlap = start.ok().and_then(|start| self.overlap(start));
        let entries = start.map_or_else(|_| Vec::new(), |start| self.words(start).collect());
        Table { slot, value, start, overlap, entries }
    }

    /// How a table runs into those of earlier slots.
    fn overlap(&self, start: u64) -> Option<u16> {
        let run = start..start + self.table_clusters;
        let overlaps = |other: Range<u64>| other.start < run.end && run.start < other.end;
        let is_shared = |table: &Table| table.overlap.is_none() && table.start == Ok(start);
        let number = if self.tables.iter().any(is_shared) { 106 } else { 107 };
        self.table_runs().any(overlaps).then_some(number)
    }

    /// The words that are not 0 of the table that starts at a cluster.
    fn words(&self, start: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let range = start * self.cluster..(start + self.table_clusters) * self.cluster;
        self.content.words(range)
    }

    /// The cluster that an L1 entry names, or the finding; overlaps with other tables aside.
    fn judge_table(&self, value: u64) -> Result<u64, u16> {
        let start = value / self.cluster;
        if !value.is_multiple_of(self.cluster) {
            Err(101)
        } else if start + self.table_clusters > self.clusters {
            Err(102)
        } else if start < self.header_end {
            Err(104)
        } else if start < self.l1.end && self.l1.start < start + self.table_clusters {
            Err(105)
        } else {
            Ok(start)
        }
    }

    /// The cluster that an L2 entry names, or the finding; other references to it aside. None for
    /// a zero cluster.
    fn judge_data(&self, value: u64) -> Result<Option<u64>, u16> {
        let cluster = value / self.cluster;
        if value == 1 {
            Ok(None)
        } else if !value.is_multiple_of(self.cluster) {
            Err(201)
        } else if cluster >= self.clusters {
            Err(202)
        } else if cluster < self.header_end {
            Err(204)
        } else if self.l1.contains(&cluster) {
            Err(205)
        } else {
            Ok(Some(cluster))
        }
    }

    /// The cluster of a data entry whose bytes a repair keeps, if only in a copy; none for an entry
    /// that it clears or for zeros.
    pub(crate) fn kept_data(&self, value: u64) -> Option<u64> {
        self.judge_data(value).ok().flatten()
    }

    /// Whether a cluster is part of an L2 table.
    pub(crate) fn is_in_table(&self, cluster: u64) -> bool {
        self.table_runs().any(|run| run.contains(&cluster))
    }

    fn table_runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let starts = self.tables.iter().filter_map(|table| table.start.ok());
        starts.map(|start| start..start + self.table_clusters)
    }

    /// Slots of the L1 table that the virtual disk needs.
    pub(crate) fn l1_slots(&self) -> u64 {
        self.image_size.div_ceil(self.coverage)
    }

    /// What a check finds.
    pub(crate) fn findings(&self) -> Findings {
        let mut findings = Findings::default();
        for table in &self.tables {
            let number = match table.start {
                Err(number) => Some(number),
                Ok(start) => table
                    .overlap
                    .or((start + self.table_clusters > self.whole_clusters).then_some(103))
                    .or((table.slot >= self.l1_slots()).then_some(108)),
            };
            let place = self.l1.start * self.cluster + 8 * table.slot;
            findings.list.extend(number.map(|number| (number, place, table.value)));
        }
        let mut claimed = BTreeSet::new();
        for table in self.tables.iter().filter(|table| table.overlap.is_none()) {
            if let Ok(start) = table.start {
                self.judge_entries(table, start, &mut claimed, &mut findings);
            }
        }
        self.unused(&claimed, &mut findings);
        findings
    }

    fn judge_entries(
        &self,
        table: &Table,
        start: u64,
        claimed: &mut BTreeSet<u64>,
        findings: &mut Findings,
    ) {
        let before = table.slot * (self.coverage / self.cluster);
        let beyond_l1 = table.slot >= self.l1_slots();
        let mut last = None;
        for (slot, value) in &table.entries {
            let is_beyond = !beyond_l1 && before + slot >= self.image_size.div_ceil(self.cluster);
            let number = match self.judge_data(*value) {
                Err(number) => Some(number),
                Ok(None) => is_beyond.then_some(208),
                Ok(Some(cluster)) if self.is_in_table(cluster) => Some(206),
                Ok(Some(cluster)) if !claimed.insert(cluster) => Some(207),
                Ok(Some(cluster)) if cluster >= self.whole_clusters => Some(203),
                Ok(Some(_)) => is_beyond.then_some(208),
            };
            let place = start * self.cluster + 8 * slot;
            findings.list.extend(number.map(|number| (number, place, *value)));
            if *value == 1 {
                findings.zero += 1;
                continue;
            }
            findings.allocated += 1;
            let follows = |last: u64| last.wrapping_add(self.cluster) == *value;
            findings.fragmented += u64::from(last.is_some_and(|last| !follows(last)));
            last = Some(*value);
        }
    }

    /// The leaks and the tail.
    fn unused(&self, claimed: &BTreeSet<u64>, findings: &mut Findings) {
        let mut used: Vec<Range<u64>> = vec![0..self.header_end, self.l1.clone()];
        used.extend(self.table_runs());
        used.extend(claimed.iter().map(|cluster| *cluster..cluster + 1));
        used.push(self.clusters..self.clusters);
        used.sort_by_key(|run| (run.start, run.end));
        let mut end = 0;
        for run in used {
            let gap = end..run.start.min(self.clusters);
            if gap.start < gap.end {
                let whole_end = gap.end.min(self.whole_clusters);
                let number = if gap.end == self.clusters { 301 } else { 302 };
                let tail = whole_end.max(gap.start);
                for (number, from, to) in [(number, gap.start, whole_end), (303, tail, gap.end)] {
                    if from < to {
                        findings.list.push((number, from * self.cluster, to - from));
                    }
                }
            }
            end = end.max(run.end);
        }
    }

    /// Whether a run of clusters may be a table or data of an open image: inside the file in full,
    /// clear of header area and L1 table.
    pub(crate) fn is_open_to(&self, value: u64, clusters: u64) -> bool {
        let start = value / self.cluster;
        value.is_multiple_of(self.cluster)
            && start + clusters <= self.whole_clusters
            && start >= self.header_end
            && !(start < self.l1.end && self.l1.start < start + clusters)
    }

    /// Clusters of a table.
    pub(crate) fn table_clusters(&self) -> u64 {
        self.table_clusters
    }
}
