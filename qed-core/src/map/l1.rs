//! The L1 table in memory: one slot per L2 table that the image size needs.
//!
//! At most 32 MiB: two levels of the largest tables map 2^63 bytes with 2^22 slots.

use std::sync::{PoisonError, RwLock};

use qed_io::Storage;
use qed_layout::{PieceBuffer, TableReader};
use qed_spec::{Geometry, Header, HostCluster, HostOffset, L1Entry, L1Index};
use zerocopy::IntoBytes;

use crate::error::{CorruptTable, ImageError, IoAction};
use crate::space::owner::TableRules;

/// Slots of the L1 table, as read from disk or changed since.
#[derive(Debug)]
pub(crate) struct L1Table {
    slots: RwLock<Vec<u64>>,
    rules: TableRules,
}

impl L1Table {
    /// Reads the slots that `header`'s image size needs.
    pub(crate) fn read(storage: &dyn Storage, header: &Header) -> Result<Self, ImageError> {
        let rules = TableRules::of(header);
        let count = rules.geometry.l1_entries_for(header.image_size());
        let slots = read_slots(storage, &rules, 0, count)?;
        Ok(Self { slots: RwLock::new(slots), rules })
    }

    /// The L2 table of a slot, if the slot is legal for a file of `file_len` bytes.
    pub(crate) fn table(
        &self,
        l1: L1Index,
        file_len: u64,
    ) -> Result<Option<HostCluster>, CorruptTable> {
        let value = self.value(l1);
        match L1Entry::decode(value, self.rules.geometry) {
            Ok(L1Entry::Unallocated) => Ok(None),
            Ok(L1Entry::Table(table)) => {
                let offset = self.rules.geometry.host_offset(table).get();
                if self.rules.allows(offset, self.rules.geometry.table_size_bytes(), file_len) {
                    Ok(Some(table))
                } else {
                    Err(CorruptTable::L1Entry { l1, value })
                }
            }
            Err(_) => Err(CorruptTable::L1Entry { l1, value }),
        }
    }

    /// Checks every slot and that no two tables share a cluster; gives the first bytes of all
    /// tables in ascending order.
    // spec: QED-TBL-02, QED-TBL-11
    pub(crate) fn all_tables(&self, file_len: u64) -> Result<Vec<u64>, CorruptTable> {
        let mut tables = Vec::new();
        for l1 in 0..self.len() {
            let l1 = L1Index::new(l1);
            if let Some(table) = self.table(l1, file_len)? {
                tables.push((self.rules.geometry.host_offset(table).get(), l1));
            }
        }
        tables.sort_unstable();
        let table_size = self.rules.geometry.table_size_bytes();
        for pair in tables.windows(2) {
            if pair[1].0 - pair[0].0 < table_size {
                let (first, second) = (pair[0].1.min(pair[1].1), pair[0].1.max(pair[1].1));
                return Err(CorruptTable::L1Overlap { first, second, value: self.value(second) });
            }
        }
        Ok(tables.into_iter().map(|(offset, _)| offset).collect())
    }

    /// First byte of the table.
    pub(crate) fn offset(&self) -> HostOffset {
        HostOffset::new(self.rules.l1_offset)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.rules.geometry
    }

    pub(crate) fn len(&self) -> u64 {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// How many slots from `first` on name no table, at most `most`.
    pub(crate) fn missing(&self, first: L1Index, most: u64) -> u64 {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(first.get()).unwrap_or(usize::MAX).min(slots.len());
        let count = slots[from..].iter().take_while(|slot| **slot == 0).count() as u64;
        count.min(most)
    }

    /// The slot that names the table at byte `place`.
    pub(crate) fn slot_of(&self, place: u64) -> Option<L1Index> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().position(|value| *value == place).map(|slot| L1Index::new(slot as u64))
    }

    /// The raw value of a slot; 0 past the last.
    pub(crate) fn value(&self, l1: L1Index) -> u64 {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(l1.get()).ok().and_then(|l1| slots.get(l1).copied()).unwrap_or(0)
    }

    /// Links a table, or unlinks it. The slot exists: requests are bounded by the image size.
    pub(crate) fn set_link(&self, l1: L1Index, entry: L1Entry) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = usize::try_from(l1.get()).ok().and_then(|l1| slots.get_mut(l1));
        *slot.expect("requests lie inside the image size") = entry.encode(self.rules.geometry);
    }

    /// Writes one slot home.
    pub(crate) fn write(
        &self,
        storage: &dyn Storage,
        slot: u64,
        value: u64,
    ) -> Result<(), ImageError> {
        let at = HostOffset::new(self.rules.l1_offset + slot * 8);
        storage
            .write_at(&value.to_le_bytes(), at.get())
            .map_err(ImageError::io(IoAction::WriteTable, at))
    }

    /// Reads the slots up to `count` that the image did not need before; which of them are linked.
    pub(crate) fn extend(
        &self,
        storage: &dyn Storage,
        count: u64,
    ) -> Result<Vec<L1Index>, ImageError> {
        let old = self.len();
        let more = read_slots(storage, &self.rules, old, count.saturating_sub(old))?;
        let linked = (old..).zip(&more).filter(|(_, value)| **value != 0);
        let linked = linked.map(|(l1, _)| L1Index::new(l1)).collect();
        self.slots.write().unwrap_or_else(PoisonError::into_inner).extend(more);
        Ok(linked)
    }

    /// The first slot in the file that is not 0 and past those that the disk needs.
    pub(crate) fn first_past_disk(
        &self,
        storage: &dyn Storage,
    ) -> Result<Option<CorruptTable>, ImageError> {
        let len = self.rules.geometry.table_size_bytes();
        let reader = TableReader::new(storage, self.rules.l1_offset + len, len);
        let pieces = reader.pieces_from(self.offset(), self.len());
        let mut first = None;
        reader.for_each(pieces, &mut PieceBuffer::default(), |slot, value| {
            first = first.or(Some(CorruptTable::L1PastDisk { l1: L1Index::new(slot), value }));
            Ok::<(), ImageError>(())
        })?;
        Ok(first)
    }

    /// Forgets the slots from `count` on.
    pub(crate) fn truncate(&self, count: u64) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }
}

fn read_slots(
    storage: &dyn Storage,
    rules: &TableRules,
    first: u64,
    count: u64,
) -> Result<Vec<u64>, ImageError> {
    let mut slots =
        vec![0_u64; usize::try_from(count).expect("an L1 table has at most 2^22 slots in use")];
    let at = HostOffset::new(rules.l1_offset + first * 8);
    storage
        .read_at(slots.as_mut_bytes(), at.get())
        .map_err(ImageError::io(IoAction::ReadTable, at))?;
    for slot in &mut slots {
        *slot = u64::from_le(*slot);
    }
    Ok(slots)
}
