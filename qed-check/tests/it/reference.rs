//! A slow checker to compare with: one pass after the other over a `HashMap`, no parallelism, no
//! bitmap, and no code of the library but the names of the findings.

use std::collections::HashMap;

use qed_check::{Finding, FindingKind as Kind, Place};
use qed_spec::{HostOffset, L1Index, L2Index};

use crate::image::{CLUSTER, TestImage};

/// All findings in the order that a report has them.
pub(crate) fn findings(image: &TestImage) -> Vec<Finding> {
    let len = image.bytes.len() as u64;
    let mut reference = Reference {
        image,
        whole: len / CLUSTER,
        clusters: len.div_ceil(CLUSTER),
        owners: HashMap::new(),
        findings: Vec::new(),
    };
    for cluster in 0..image.header_clusters {
        reference.owners.insert(cluster, Place::HeaderArea);
    }
    for cluster in image.header_clusters..image.metadata_end() {
        reference.owners.insert(cluster, Place::L1Table);
    }
    let tables = reference.tables();
    for (l1, first) in tables {
        reference.data(l1, first);
    }
    reference.unused();
    reference.findings
}

struct Reference<'a> {
    image: &'a TestImage,
    whole: u64,
    clusters: u64,
    owners: HashMap<u64, Place>,
    findings: Vec<Finding>,
}

impl Reference<'_> {
    fn tables(&mut self) -> Vec<(u64, u64)> {
        let mut tables: Vec<(u64, u64)> = Vec::new();
        let count = self.image.table_clusters;
        for l1 in 0..self.image.entries() {
            let at = self.image.l1_slot(l1);
            let value = self.image.get(at);
            let place = Place::L1Slot { l1: L1Index::new(l1), at: HostOffset::new(at) };
            if value == 0 {
                continue;
            }
            let first = value / CLUSTER;
            let range = first..first + count;
            let taken = range.clone().find_map(|cluster| self.owners.get(&cluster).copied());
            let mut add = |kind, first| self.findings.push(Finding { kind, place, value, first });
            if !value.is_multiple_of(CLUSTER) {
                add(Kind::L1Unaligned, None);
                continue;
            } else if range.end > self.clusters {
                add(Kind::L1PastEnd, None);
                continue;
            } else if first < self.image.header_clusters {
                add(Kind::L1IntoHeader, Some(Place::HeaderArea));
                continue;
            } else if first < self.image.metadata_end() {
                add(Kind::L1IntoL1Table, Some(Place::L1Table));
                continue;
            } else if taken.is_some() {
                let is_shared = tables.iter().any(|(_, other)| *other == first);
                let kind = if is_shared { Kind::L1SharedTable } else { Kind::L1OverlapsTable };
                add(kind, taken);
            } else {
                if range.end > self.whole {
                    add(Kind::L1InPartialTail, None);
                } else if l1 * self.image.entries() >= self.image.image_clusters() {
                    add(Kind::L1BeyondImage, None);
                }
                tables.push((l1, first));
            }
            for cluster in range {
                self.owners.entry(cluster).or_insert(place);
            }
        }
        tables
    }

    fn data(&mut self, l1: u64, first: u64) {
        let entries = self.image.entries();
        for l2 in 0..entries {
            let at = first * CLUSTER + l2 * 8;
            if at >= self.image.bytes.len() as u64 {
                continue;
            }
            let value = self.image.get(at);
            let place = Place::L2Slot {
                l1: L1Index::new(l1),
                l2: L2Index::new(l2),
                at: HostOffset::new(at),
            };
            let guest = l1 * entries + l2;
            let is_beyond =
                guest >= self.image.image_clusters() && l1 * entries < self.image.image_clusters();
            if let Some((kind, first)) = self.judge(value, place, is_beyond) {
                self.findings.push(Finding { kind, place, value, first });
            }
        }
    }

    fn judge(
        &mut self,
        value: u64,
        place: Place,
        is_beyond: bool,
    ) -> Option<(Kind, Option<Place>)> {
        let beyond = is_beyond.then_some((Kind::L2BeyondImage, None));
        let cluster = value / CLUSTER;
        match value {
            0 => return None,
            1 => return beyond,
            _ if !value.is_multiple_of(CLUSTER) => return Some((Kind::L2Unaligned, None)),
            _ if cluster >= self.clusters => return Some((Kind::L2PastEnd, None)),
            _ => {}
        }
        let owner = self.owners.get(&cluster).copied();
        match owner {
            Some(Place::HeaderArea) => Some((Kind::L2IntoHeader, owner)),
            Some(Place::L1Table) => Some((Kind::L2IntoL1Table, owner)),
            Some(Place::L1Slot { .. }) => Some((Kind::L2IntoL2Table, owner)),
            Some(_) => Some((Kind::L2Duplicate, owner)),
            None => {
                self.owners.insert(cluster, place);
                if cluster >= self.whole { Some((Kind::L2InPartialTail, None)) } else { beyond }
            }
        }
    }

    fn unused(&mut self) {
        let mut cluster = 0;
        while cluster < self.clusters {
            let is_free = |cluster: &u64| !self.owners.contains_key(cluster);
            let end = (cluster..self.clusters).find(|c| !is_free(c)).unwrap_or(self.clusters);
            let at_end = end == self.clusters;
            let whole = end.min(self.whole).max(cluster);
            let leak = if at_end { Kind::LeakAtEnd } else { Kind::LeakInside };
            for (kind, from, to) in [(leak, cluster, whole), (Kind::UnusedPartialTail, whole, end)]
            {
                if from < to {
                    let at = HostOffset::new(from * CLUSTER);
                    let place = Place::Clusters { at, count: to - from };
                    self.findings.push(Finding { kind, place, value: 0, first: None });
                }
            }
            cluster = (end..self.clusters).find(is_free).unwrap_or(self.clusters);
        }
    }
}
