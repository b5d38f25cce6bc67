//! Replay of the records that a dead process left in the pending log: judged as a whole, then published like
//! changes of this process, and flushed.

use qed_pending::Room;
use qed_spec::{GuestCluster, GuestOffset, L2Entry, PendingRecord, entry_in_row};

use crate::change::Change;
use crate::error::{OpenError, PendingLogError};
use crate::image::Image;
use crate::map::slice::SLICE_ENTRIES;
use crate::space::host_set::HostSet;

/// What is known of the entries of one slice: whether the value that an entry has is one of its chain.
type Chains = [Option<bool>; 512];

impl Image {
    /// Publishes what records that were judged make of the image in the end, and flushes. The log has them
    /// until that is done. No value that another one replaced: tables may have that already, durably, and
    /// what makes room here would put the older one in its place.
    // spec: QED-PEND-10
    pub(super) fn replay(&self, records: &[PendingRecord]) -> Result<(), OpenError> {
        for records in by_slice(records).chunk_by(|a, b| slice_of(a) == slice_of(b)) {
            let mut last: [Option<u64>; 512] = [None; 512];
            for record in records {
                for index in 0..u64::from(record.count) {
                    let value = entry_in_row(record.value, index, self.map.geometry);
                    last[slot_of(record.guest.get() + index)] = Some(value);
                }
            }
            self.publish_in(slice_of(records[0]) * SLICE_ENTRIES, &last)?;
            self.durability.make_room(self.cx())?;
        }
        Ok(self.durability.flush(self.cx())?)
    }

    /// Publishes values of the slice that begins with guest cluster `start`, each run of them in a row at once.
    fn publish_in(&self, start: u64, values: &[Option<u64>; 512]) -> Result<(), OpenError> {
        let mut rest = (start..).zip(values).peekable();
        while let Some((guest, value)) = rest.next() {
            let Some(first) = *value else { continue };
            let mut count = 1;
            let in_row = |count| Some(entry_in_row(first, count, self.map.geometry));
            while rest.next_if(|(_, value)| **value == in_row(count)).is_some() {
                count += 1;
            }
            let at = self.place_of(GuestCluster::new(guest))?;
            self.ensure_table(at)?;
            let change = Change::replayed(at, count, self.entry_of(first)?);
            change.publish(&self.map, &mut Room::none())?;
        }
        Ok(())
    }

    /// The records of clusters that the disk has. Others are of a resize that did not come to its end.
    // spec: QED-PEND-11
    pub(super) fn within_disk(&self, mut records: Vec<PendingRecord>) -> Vec<PendingRecord> {
        let clusters = self.map.geometry.clusters_for(self.image_size()).get();
        records.retain(|record| record.guest.get() < clusters);
        records
    }

    /// Whether all that records say may be said of this image; space that they name is handed out to nobody.
    // spec: QED-PEND-07
    pub(super) fn judge_records(&self, records: &[PendingRecord]) -> Result<(), PendingLogError> {
        let clusters = self.map.geometry.clusters_for(self.image_size()).get();
        let mut named = HostSet::default();
        for record in records {
            let (first, count) = (record.guest.get(), u64::from(record.count));
            let is_in_slice = first % SLICE_ENTRIES + count <= SLICE_ENTRIES;
            if !is_in_slice || first.checked_add(count).is_none_or(|end| end > clusters) {
                return Err(PendingLogError::NoEntry { guest: record.guest });
            }
            if let L2Entry::Data(host) = self.entry_of(record.value)? {
                let run = host.get()..host.get() + count;
                let before = named.len();
                let is_inside = self.space.owner.may_be_data(&run);
                if is_inside {
                    named.insert(run.clone());
                }
                if !is_inside || named.len() != before + count {
                    return Err(PendingLogError::Value { value: record.value });
                }
                self.space.alloc.end.not_below(run.end);
            }
        }
        self.judge_chains(records)
    }

    /// Whether each entry is what its first record found or what one of its records made of it: nobody else
    /// wrote it.
    fn judge_chains(&self, records: &[PendingRecord]) -> Result<(), PendingLogError> {
        for records in by_slice(records).chunk_by(|a, b| slice_of(a) == slice_of(b)) {
            let mut chains: Chains = [None; 512];
            for record in records {
                self.follow(record, &mut chains)?;
            }
            if let Some(slot) = chains.iter().position(|chain| *chain == Some(false)) {
                let guest = slice_of(records[0]) * SLICE_ENTRIES + slot as u64;
                return Err(PendingLogError::Foreign { guest: GuestCluster::new(guest) });
            }
        }
        Ok(())
    }

    /// Takes a record into what is known of its slice.
    fn follow(&self, record: &PendingRecord, chains: &mut Chains) -> Result<(), PendingLogError> {
        let geometry = self.map.geometry;
        for index in 0..u64::from(record.count) {
            let guest = GuestCluster::new(record.guest.get() + index);
            let stands = self.map.value(self.place_of(guest)?);
            let stands = stands.map_err(|_| PendingLogError::NoEntry { guest })?.unwrap_or(0);
            let slot = slot_of(guest.get());
            let is_before =
                chains[slot].unwrap_or(stands == entry_in_row(record.was, index, geometry));
            let is_after = stands == entry_in_row(record.value, index, geometry);
            chains[slot] = Some(is_before || is_after);
        }
        Ok(())
    }

    fn place_of(&self, guest: GuestCluster) -> Result<GuestOffset, PendingLogError> {
        let at = self.map.geometry.guest_cluster_offset(guest);
        at.ok_or(PendingLogError::NoEntry { guest })
    }

    fn entry_of(&self, value: u64) -> Result<L2Entry, PendingLogError> {
        let entry = L2Entry::decode(value, self.map.geometry);
        entry.map_err(|_| PendingLogError::Value { value })
    }
}

/// Records by slice; those of one slice stay in their order.
fn by_slice(records: &[PendingRecord]) -> Vec<&PendingRecord> {
    let mut by_slice: Vec<_> = records.iter().collect();
    by_slice.sort_by_key(|record| slice_of(record));
    by_slice
}

/// The number of the slice that a record lies in.
fn slice_of(record: &PendingRecord) -> u64 {
    record.guest.get() / SLICE_ENTRIES
}

/// The place of a guest cluster in its slice.
fn slot_of(guest: u64) -> usize {
    usize::try_from(guest % SLICE_ENTRIES).expect("below 512")
}
