//! Whether what a journal claims can be so in this image: records set slots of tables and name no
//! table.
//!
//! Believes neither the journal nor the tables in the file, which may be older than the journal or
//! as new as parts of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use qed_io::Storage;
use qed_journal::Claim;
use qed_layout::{PieceBuffer, TableReader};
use qed_spec::{ClusterCount, Header, HostOffset, JournalRecord, L1Entry, L1Index};

use crate::error::ImageError;
use crate::map::l1::L1Table;
use crate::space::owner::TableRules;

/// The tables as the claims so far have them.
pub(super) struct Judge {
    storage: Arc<dyn Storage>,
    rules: TableRules,
    /// Tables by slot, and slots by table: first bytes in the file.
    by_slot: BTreeMap<u64, u64>,
    by_place: BTreeMap<u64, u64>,
    /// Slots that the disk needs; those behind it are read when a record asks for them, as those
    /// of a disk that was about to grow do.
    slots: u64,
    has_read_all: bool,
    /// Bytes that the file has by the last claim.
    end: u64,
}

impl Judge {
    pub(super) fn new(storage: Arc<dyn Storage>, header: &Header) -> Result<Self, ImageError> {
        let l1 = L1Table::read(&*storage, header)?;
        let mut judge = Self {
            storage,
            rules: TableRules::of(header),
            by_slot: BTreeMap::new(),
            by_place: BTreeMap::new(),
            slots: l1.len(),
            has_read_all: false,
            end: u64::MAX,
        };
        for slot in 0..judge.slots {
            judge.note(slot, l1.value(L1Index::new(slot)));
        }
        Ok(judge)
    }

    /// Whether a claim can be so; from then on it is.
    // spec: QED-JRN-08, QED-TBL-07, QED-TBL-08
    pub(super) fn allows(&mut self, claim: Claim) -> Result<bool, ImageError> {
        let record = match claim {
            Claim::PhysicalSize(size) => {
                self.end = self.bytes_of(size);
                return Ok(self.l1_end() <= self.end);
            }
            Claim::Record(record) => record,
        };
        Ok(match record {
            JournalRecord::L1Set { at, entry } => self.link(at, entry),
            JournalRecord::L2SetRun { .. }
            | JournalRecord::L2ZeroRun { .. }
            | JournalRecord::L2ClearRun { .. } => {
                self.is_in_table(&record)? && self.names_no_table(&record)
            }
            JournalRecord::FreeRun { .. } => true,
        })
    }

    /// Whether a file of this size has all tables.
    pub(super) fn all_fit(&self, size: ClusterCount) -> bool {
        let end = self.bytes_of(size);
        self.by_place.last_key_value().is_none_or(|(table, _)| table + self.table_len() <= end)
    }

    /// Takes an L1 entry over, if slot and table may be what they say.
    fn link(&mut self, at: HostOffset, entry: L1Entry) -> bool {
        let within = at.get().checked_sub(self.rules.l1_offset);
        let Some(within) = within.filter(|within| *within < self.table_len()) else {
            return false;
        };
        let slot = within / 8;
        let value = entry.encode(self.rules.geometry);
        let own = self.by_slot.get(&slot).copied();
        if value != 0 {
            let is_clear = self.rules.allows(value, self.table_len(), self.end)
                && self.tables_in(value, value + self.table_len()).all(|table| own == Some(table));
            if !is_clear {
                return false;
            }
        }
        if let Some(own) = self.by_slot.remove(&slot) {
            self.by_place.remove(&own);
        }
        self.note(slot, value);
        true
    }

    fn is_in_table(&mut self, record: &JournalRecord) -> Result<bool, ImageError> {
        if self.has_slots(record) {
            return Ok(true);
        }
        if !self.has_read_all {
            self.read_rest()?;
        }
        Ok(self.has_slots(record))
    }

    fn has_slots(&self, record: &JournalRecord) -> bool {
        record.slots(self.rules.geometry).is_none_or(|slots| {
            let table = self.by_place.range(..=slots.at().get()).next_back();
            table.is_some_and(|(table, _)| slots.end().get() <= table + self.table_len())
        })
    }

    fn names_no_table(&self, record: &JournalRecord) -> bool {
        let geometry = self.rules.geometry;
        record.clusters(geometry).is_none_or(|(first, count)| {
            let start = geometry.host_offset(first).get();
            let len = count.get().saturating_mul(geometry.cluster_size_bytes());
            self.rules.allows(start, len, self.end)
                && self.tables_in(start, start.saturating_add(len)).next().is_none()
        })
    }

    /// The tables that have bytes in `start..end`.
    fn tables_in(&self, start: u64, end: u64) -> impl Iterator<Item = u64> {
        let from = start.saturating_sub(self.table_len() - 1);
        self.by_place.range(from..end).map(|(table, _)| *table)
    }

    /// Reads the slots of the L1 table behind those that the disk needs.
    fn read_rest(&mut self) -> Result<(), ImageError> {
        self.has_read_all = true;
        let storage = self.storage.clone();
        let reader = TableReader::new(&*storage, self.l1_end(), self.table_len());
        let pieces = reader.pieces_from(HostOffset::new(self.rules.l1_offset), self.slots);
        reader.for_each(pieces, &mut PieceBuffer::default(), |slot, value| {
            if !self.by_slot.contains_key(&slot) {
                self.note(slot, value);
            }
            Ok(())
        })
    }

    /// Remembers the table that a slot names; a slot that names none is left for the open.
    fn note(&mut self, slot: u64, value: u64) {
        let geometry = self.rules.geometry;
        if let Ok(L1Entry::Table(table)) = L1Entry::decode(value, geometry)
            && self.rules.allows(value, self.table_len(), u64::MAX)
        {
            let place = geometry.host_offset(table).get();
            self.by_slot.insert(slot, place);
            self.by_place.insert(place, slot);
        }
    }

    fn bytes_of(&self, size: ClusterCount) -> u64 {
        size.get().saturating_mul(self.rules.geometry.cluster_size_bytes())
    }

    fn table_len(&self) -> u64 {
        self.rules.geometry.table_size_bytes()
    }

    fn l1_end(&self) -> u64 {
        self.rules.l1_offset.saturating_add(self.table_len())
    }
}
