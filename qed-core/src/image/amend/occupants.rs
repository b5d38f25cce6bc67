//! What lies where a header area has to grow: found by reading every table, before anything moves.

use std::collections::BTreeMap;

use qed_io::Storage;
use qed_layout::{PieceBuffer, TableReader};
use qed_spec::{Geometry, Header, HostOffset, L1Index, L2Entry, L2Index};

use crate::error::{CorruptTable, ImageError};
use crate::map::l1::L1Table;
use crate::space::owner::TableRules;

/// What is named in the way of a header area that is to end at `end`.
pub(super) struct Occupants {
    /// Byte after the last of the header area to be.
    pub(super) end: u64,
    /// Data clusters, and the entries that name them.
    pub(super) data: BTreeMap<u64, HostOffset>,
    /// L2 tables, and the L1 slots that name them.
    pub(super) tables: Vec<(u64, L1Index)>,
    /// The L1 table is in the way too.
    pub(super) has_l1: bool,
    /// Bytes of the L1 table that the disk needs.
    pub(super) l1_len: u64,
}

impl Occupants {
    /// Finds what a header area of `wanted` clusters needs to be gone. Where a table lies across its
    /// end the area ends behind the table, so that no part of one is left over.
    ///
    /// # Errors
    /// Failed reads, and an entry that breaks a rule or an L1 slot past the end of the disk that is
    /// not 0: an image with one wants a check first.
    // spec: QED-TBL-07, QED-TBL-08, QED-TBL-09, QED-TBL-10
    pub(super) fn find(
        storage: &dyn Storage,
        header: &Header,
        wanted: u64,
        file_len: u64,
    ) -> Result<Self, ImageError> {
        let geometry = header.geometry();
        let l1 = L1Table::read(storage, header)?;
        if let Some(slot) = l1.first_past_disk(storage)? {
            return Err(slot.into());
        }
        let rules = TableRules::of(header);
        let scan = Scan { storage, rules, file_len, tables: l1.all_tables(file_len)? };
        let end = scan.end_behind_tables(wanted.saturating_mul(geometry.cluster_size_bytes()));
        let mut occupants = Self {
            end,
            data: BTreeMap::new(),
            tables: Vec::new(),
            has_l1: rules.l1_offset < end,
            l1_len: l1.len() * 8,
        };
        for slot in (0..l1.len()).map(L1Index::new) {
            if let Some(table) = l1.table(slot, file_len)? {
                let table = geometry.host_offset(table).get();
                scan.add_data(slot, table, &mut occupants)?;
                if table < end {
                    occupants.tables.push((table, slot));
                }
            }
        }
        Ok(occupants)
    }

    /// Clusters that take in what has to go.
    pub(super) fn clusters(&self, geometry: Geometry) -> u64 {
        let tables = self.tables.len() as u64 + u64::from(self.has_l1);
        self.data.len() as u64 + tables * geometry.table_size_clusters()
    }
}

/// An image whose tables are read.
struct Scan<'a> {
    storage: &'a dyn Storage,
    rules: TableRules,
    file_len: u64,
    /// First bytes of the L2 tables, ascending; no two share a cluster.
    tables: Vec<u64>,
}

impl Scan<'_> {
    /// The end of the table that lies across `end`, or else `end`.
    fn end_behind_tables(&self, end: u64) -> u64 {
        let len = self.rules.geometry.table_size_bytes();
        let mut starts = self.tables.iter().copied().chain([self.rules.l1_offset]);
        starts.find(|start| *start < end && end < start + len).map_or(end, |start| start + len)
    }

    /// Reads one L2 table; the clusters that it names below the end are added.
    fn add_data(
        &self,
        l1: L1Index,
        table: u64,
        occupants: &mut Occupants,
    ) -> Result<(), ImageError> {
        let geometry = self.rules.geometry;
        let reader = TableReader::new(self.storage, self.file_len, geometry.table_size_bytes());
        let pieces = reader.pieces(HostOffset::new(table));
        reader.for_each(pieces, &mut PieceBuffer::default(), |slot, value| {
            let corrupt = CorruptTable::L2Entry { l1, l2: L2Index::new(slot), value };
            let cluster = match L2Entry::decode(value, geometry) {
                Ok(L2Entry::Data(cluster)) => geometry.host_offset(cluster).get(),
                Ok(L2Entry::Unallocated | L2Entry::Zero) => return Ok(()),
                Err(_) => return Err(corrupt.into()),
            };
            let place = HostOffset::new(table + slot * 8);
            let is_new =
                cluster >= occupants.end || occupants.data.insert(cluster, place).is_none();
            if !self.may_hold_data(cluster) || !is_new {
                return Err(corrupt.into());
            }
            Ok(())
        })
    }

    fn may_hold_data(&self, cluster: u64) -> bool {
        let len = self.rules.geometry.cluster_size_bytes();
        let before = self.tables.partition_point(|table| *table <= cluster).checked_sub(1);
        let table_end =
            before.map_or(0, |at| self.tables[at] + self.rules.geometry.table_size_bytes());
        cluster >= table_end && self.rules.allows(cluster, len, self.file_len)
    }
}
