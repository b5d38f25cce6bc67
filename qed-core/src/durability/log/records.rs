//! From what a flush is to make durable to the records that say it. Knows no ring.

use std::num::NonZeroU32;

use qed_journal::Batch;
use qed_spec::{ClusterCount, Geometry, HostOffset, JournalRecord, L1Entry, L2Entry};

use crate::change::Batch as Changes;
use crate::map::cache::DirtySlice;
use crate::map::slice::SLICE_ENTRIES;

/// The batches that say `pending`, each of at most `max_records`; one without records where nothing
/// is pending.
///
/// Tables are linked before their slots are set, so batches may be committed apart: a table that
/// is linked early is all zeros.
// spec: QED-JRN-15
pub(super) fn batches(
    pending: &Changes,
    l1_offset: HostOffset,
    geometry: Geometry,
    physical_size: ClusterCount,
    max_records: usize,
) -> Vec<Batch> {
    let data = pending.order();
    let mut records: Vec<JournalRecord> = pending
        .links
        .iter()
        .map(|(slot, value)| JournalRecord::L1Set {
            at: slot_at(l1_offset, *slot),
            entry: L1Entry::decode(*value, geometry).expect("links of this session are legal"),
        })
        .collect();
    for slice in &pending.slices {
        records_of(slice, geometry, &mut records);
    }
    let batch = |records: &[JournalRecord]| Batch { records: records.into(), physical_size, data };
    if records.is_empty() {
        return vec![batch(&[])];
    }
    records.chunks(max_records).map(batch).collect()
}

/// Adds the changed slots of a slice, as few runs as can be.
fn records_of(slice: &DirtySlice, geometry: Geometry, records: &mut Vec<JournalRecord>) {
    let mut run: Option<Run> = None;
    for slot in changed_slots(slice) {
        let entry = L2Entry::decode(slice.copy.value(slot), geometry);
        let entry = entry.expect("what is published is legal");
        match &mut run {
            Some(run) if run.goes_on_with(slot, entry) => run.count += 1,
            _ => {
                let ended = run.replace(Run { slot, entry, count: 1 });
                records.extend(ended.map(|run| run.record(slice.copy.home)));
            }
        }
    }
    records.extend(run.map(|run| run.record(slice.copy.home)));
}

fn changed_slots(slice: &DirtySlice) -> impl Iterator<Item = u64> {
    let changed = &slice.copy.changed;
    (0..SLICE_ENTRIES).filter(move |slot| {
        let word = usize::try_from(slot / 64).expect("below 8");
        changed[word] >> (slot % 64) & 1 == 1
    })
}

/// Slots that follow each other with entries that one record says.
struct Run {
    slot: u64,
    entry: L2Entry,
    count: u32,
}

impl Run {
    fn goes_on_with(&self, slot: u64, entry: L2Entry) -> bool {
        let follows = match (self.entry, entry) {
            (L2Entry::Data(first), L2Entry::Data(next)) => {
                next.get().checked_sub(first.get()) == Some(self.count.into())
            }
            (first, next) => first == next,
        };
        follows && self.slot + u64::from(self.count) == slot
    }

    // spec: QED-JRN-07
    fn record(&self, home: HostOffset) -> JournalRecord {
        let at = slot_at(home, self.slot);
        let count = NonZeroU32::new(self.count).expect("a run has a first slot");
        match self.entry {
            L2Entry::Data(first) => JournalRecord::L2SetRun { at, count, first },
            L2Entry::Zero => JournalRecord::L2ZeroRun { at, count },
            L2Entry::Unallocated => JournalRecord::L2ClearRun { at, count },
        }
    }
}

fn slot_at(table: HostOffset, slot: u64) -> HostOffset {
    table.checked_add(slot * 8).expect("tables lie below 2^63")
}
