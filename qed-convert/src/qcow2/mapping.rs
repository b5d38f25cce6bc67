//! From guest ranges to runs: the two-level lookup over cached slices. Reads tables, never data.

use std::sync::Arc;

use qed_io::Storage;
use qed_spec::{GuestOffset, HostOffset, L1Index, L2Index};

use super::entry::{EntryRules, Unit};
use super::error::{Qcow2Corruption, Qcow2EntryFault, Qcow2Part, Qcow2ReadError};
use super::geometry::Place;
use super::header::L1Place;
use super::slice_cache::SliceCache;

/// Entries of an L1 table that are read at once.
const L1_SLICE_ENTRIES: u64 = 512;

/// The mapping of an image or of one of its snapshots.
#[derive(Debug)]
pub(super) struct Mapping {
    storage: Arc<dyn Storage>,
    rules: EntryRules,
    l1: L1Place,
    l1_slices: SliceCache,
    l2_slices: SliceCache,
}

/// A run of guest bytes with one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Bytes.
    pub(super) len: u64,
    /// Of the first byte, not of the unit that holds it.
    pub(super) unit: Unit,
}

impl Mapping {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        rules: EntryRules,
        l1: L1Place,
        cache_limit_bytes: u64,
    ) -> Self {
        // An L1 slice leads to 512 L2 tables: a small share is plenty.
        let l1_share = cache_limit_bytes / 16;
        Self {
            storage,
            rules,
            l1,
            l1_slices: SliceCache::new(l1_share, L1_SLICE_ENTRIES * 8),
            l2_slices: SliceCache::new(cache_limit_bytes - l1_share, rules.geometry.slice_len()),
        }
    }

    /// The run from `at`, at most `len` bytes; it ends where a slice of a table does.
    ///
    /// A compressed run is the rest of one cluster.
    pub(super) fn run(&self, at: GuestOffset, len: u64) -> Result<Run, Qcow2ReadError> {
        let place = self.rules.geometry.place(at);
        if let Some(run) = self.l2_slices.look(place.slice, |words| self.scan(words, place, len)) {
            return Ok(run?);
        }
        let Some(table) = self.table(place.l1)? else {
            return self.without_table(at, place.l1, len);
        };
        let first = (place.l2 - place.slot) * self.rules.geometry.words_per_entry() * 8;
        let home = HostOffset::new(table.get() + first);
        let words = self.read(Qcow2Part::L2Table, home, self.rules.geometry.slice_len())?;
        let run = self.scan(&words, place, len);
        self.l2_slices.insert(place.slice, words);
        Ok(run?)
    }

    /// The L2 table of an L1 entry; entries past the end of the table name none.
    fn table(&self, l1: u64) -> Result<Option<HostOffset>, Qcow2ReadError> {
        self.with_l1_slice(l1, |words, slot| {
            let value = words.get(slot).copied().unwrap_or(0);
            let corrupt = |fault| Qcow2Corruption::L1Entry { l1: L1Index::new(l1), value, fault };
            Ok(self.rules.l2_table(value).map_err(corrupt)?)
        })
    }

    /// The unallocated run from `at`, whose L1 entry names no table, over all such entries of the
    /// L1 slice.
    fn without_table(&self, at: GuestOffset, l1: u64, len: u64) -> Result<Run, Qcow2ReadError> {
        let coverage = self.rules.geometry.l2_coverage();
        let empty = self.with_l1_slice(l1, |words, slot| {
            let rest = words.get(slot..).unwrap_or_default();
            match rest.iter().position(|value| *value != 0) {
                Some(empty) => Ok(empty.max(1) as u64),
                // The words end where the L1 table does, and nothing is mapped there.
                None => Ok(L1_SLICE_ENTRIES - slot as u64),
            }
        })?;
        let left = empty.saturating_mul(coverage) - (at.get() & (coverage - 1));
        Ok(Run { len: left.min(len), unit: Unit::Unallocated })
    }

    fn with_l1_slice<R>(
        &self,
        l1: u64,
        look: impl Fn(&[u64], usize) -> Result<R, Qcow2ReadError>,
    ) -> Result<R, Qcow2ReadError> {
        let (number, slot) = (l1 / L1_SLICE_ENTRIES, l1 % L1_SLICE_ENTRIES);
        let slot = usize::try_from(slot).expect("below 512");
        if let Some(found) = self.l1_slices.look(number, |words| look(words, slot)) {
            return found;
        }
        let first = number * L1_SLICE_ENTRIES;
        let count = u64::from(self.l1.entries).saturating_sub(first).min(L1_SLICE_ENTRIES);
        if count == 0 {
            return look(&[], slot);
        }
        let home = HostOffset::new(self.l1.offset + first * 8);
        let words = self.read(Qcow2Part::L1Table, home, count * 8)?;
        let found = look(&words, slot);
        self.l1_slices.insert(number, words);
        found
    }

    fn read(
        &self,
        what: Qcow2Part,
        at: HostOffset,
        len: u64,
    ) -> Result<Box<[u64]>, Qcow2ReadError> {
        let mut bytes = vec![0; usize::try_from(len).expect("a slice")];
        self.storage.read_at(&mut bytes, at.get()).map_err(Qcow2ReadError::io(what, at))?;
        let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("chunks of eight"));
        Ok(bytes.chunks_exact(8).map(word).collect())
    }

    /// The run from `place` in its slice. A bad entry ends a run that others began.
    fn scan(&self, words: &[u64], place: Place, len: u64) -> Result<Run, Qcow2Corruption> {
        let geometry = self.rules.geometry;
        let units_per_cluster = geometry.units_per_cluster();
        let unit_len = 1 << geometry.unit_bits();
        let first_unit = place.slot * units_per_cluster + place.subcluster;
        let end = geometry.slice_entries() * units_per_cluster;
        let at = |unit| self.unit(words, unit / units_per_cluster, unit % units_per_cluster);
        let first = at(first_unit).map_err(|fault| self.corrupt(words, place, fault))?;
        if let Unit::Compressed(_) = first {
            let within = place.subcluster * unit_len + place.within;
            return Ok(Run { len: (geometry.cluster_size() - within).min(len), unit: first });
        }
        let wanted = place.within.saturating_add(len).div_ceil(unit_len);
        let most = wanted.min(end - first_unit);
        let continues = |count: &u64| {
            at(first_unit + count).is_ok_and(|next| first.continues(next, *count, unit_len))
        };
        let count = 1 + (1..most).take_while(continues).count() as u64;
        let unit = match first {
            Unit::Data(start) => Unit::Data(HostOffset::new(start.get() + place.within)),
            other => other,
        };
        Ok(Run { len: (count * unit_len - place.within).min(len), unit })
    }

    fn unit(&self, words: &[u64], slot: u64, subcluster: u64) -> Result<Unit, Qcow2EntryFault> {
        self.rules.unit(self.entry(words, slot), subcluster)
    }

    fn entry<'a>(&self, words: &'a [u64], slot: u64) -> &'a [u64] {
        let per_entry = self.rules.geometry.words_per_entry();
        let start = usize::try_from(slot * per_entry).expect("inside a slice");
        let per_entry = usize::try_from(per_entry).expect("1 or 2");
        &words[start..start + per_entry]
    }

    fn corrupt(&self, words: &[u64], place: Place, fault: Qcow2EntryFault) -> Qcow2Corruption {
        Qcow2Corruption::L2Entry {
            l1: L1Index::new(place.l1),
            l2: L2Index::new(place.l2),
            value: self.entry(words, place.slot)[0],
            fault,
        }
    }
}
