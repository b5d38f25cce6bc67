//! From guest ranges to extents: the two-level lookup over the L1 table and the slice cache.
//!
//! Believes what `space` lets an entry name. Reads tables, never data; what is published and linked here
//! comes from a `Change`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qed_io::Storage;
use qed_journal::{DataOrder, Journal};
use qed_spec::{
    Geometry, GuestCluster, GuestOffset, HostCluster, HostOffset, L1Index, L2Entry, L2Index, Lookup,
};

use crate::error::{CorruptTable, ImageError, IoAction};
use crate::map::cache::L2Cache;
use crate::map::l1::L1Table;
use crate::map::mapping::{EntryAt, Extent, ExtentKind, NamedBy};
use crate::map::slice::{BadSlots, SLICE_ENTRIES, SLICE_LEN_BYTES, Slice, Slot};
use crate::space::owner::{SpaceMap, Written};

/// The mapping of an open image.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) geometry: Geometry,
    pub(crate) l1: L1Table,
    pub(crate) cache: L2Cache,
    /// Of a writable image in journal mode: what is committed and not in the tables yet.
    journal: Option<Arc<Journal>>,
    space: Arc<SpaceMap>,
    validation: Validation,
    /// A slot that breaks a rule was met.
    is_corrupt: AtomicBool,
}

/// When the tables are validated.
#[derive(Debug)]
pub(crate) enum Validation {
    /// For reading: a bad slot is reported when a request meets it.
    Lazy {
        /// An entry past the end reads as unallocated: the image was not closed cleanly.
        dangling_reads_unallocated: bool,
    },
    /// For writing: every L1 slot was checked, so what stands there now is of this session or good.
    Eager,
}

/// A guest cluster as the cache sees it; its table slots are worked out when they are needed.
#[derive(Debug, Clone, Copy)]
struct Place {
    cluster: GuestCluster,
    /// Number of the slice in the cache, and the slot in it.
    slice: u64,
    slot: u64,
}

impl Tables {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        l1: L1Table,
        cache_limit_bytes: u64,
        journal: Option<Arc<Journal>>,
        space: Arc<SpaceMap>,
        validation: Validation,
    ) -> Self {
        Self {
            storage,
            geometry: l1.geometry(),
            l1,
            cache: L2Cache::new(cache_limit_bytes),
            journal,
            space,
            validation,
            is_corrupt: AtomicBool::new(false),
        }
    }

    /// The longest run from `at` with one mapping, at most `len` bytes, within the virtual disk;
    /// it ends where a slice ends, or an L2 table that does not exist.
    // spec: QED-MAP-01
    pub(crate) fn run(&self, at: GuestOffset, len: u64) -> Result<Extent, ImageError> {
        let place = self.place(at);
        let clusters = self.geometry.clusters_for(self.within_cluster(at) + len).get();
        match self.look(place, |slice| self.scan(slice, place, clusters))? {
            Some((count, kind)) => {
                let within = self.within_cluster(at);
                let run_len = (count << self.geometry.cluster_bits()) - within;
                let kind = match kind {
                    ExtentKind::Data(start) => {
                        ExtentKind::Data(start.checked_add(within).expect("inside a cluster"))
                    }
                    other => other,
                };
                Ok(Extent { len: run_len.min(len), kind })
            }
            None => {
                let coverage = self.geometry.l2_coverage_bytes();
                let left = coverage - (at.get() & (coverage - 1));
                Ok(Extent { len: left.min(len), kind: ExtentKind::Unallocated })
            }
        }
    }

    /// Bytes of an unallocated run from `at`, of which `len` are known: it goes on over L2 tables that
    /// do not exist, as most do not in a disk that claims to be huge. At most `max_len`.
    pub(crate) fn unallocated_len(&self, at: GuestOffset, len: u64, max_len: u64) -> u64 {
        let coverage = self.geometry.l2_coverage_bytes();
        let next = at.get() + len;
        if len == max_len || !next.is_multiple_of(coverage) {
            return len;
        }
        let most = (max_len - len).div_ceil(coverage);
        let missing = self.l1.missing(L1Index::new(next / coverage), most);
        coverage.saturating_mul(missing).saturating_add(len).min(max_len)
    }

    /// The entries of up to `count` clusters from the one at `at`, as far as `wanted` takes them;
    /// none where there is no L2 table. Stops at the end of a slice.
    pub(crate) fn entries(
        &self,
        at: GuestOffset,
        count: u64,
        mut wanted: impl FnMut(L2Entry) -> bool,
    ) -> Result<Option<u64>, ImageError> {
        let place = self.place(at);
        self.look(place, |slice| {
            let end = (place.slot + count).min(SLICE_ENTRIES);
            let mut taken = 0;
            for slot in place.slot..end {
                if !wanted(self.entry(slice, place, slot)?) {
                    break;
                }
                taken += 1;
            }
            Ok(taken)
        })
    }

    /// Publishes entries for the clusters from `at`, after `log` was given the values of these entries and
    /// of those behind them; all lie in one slice whose table exists.
    pub(crate) fn set_entries(
        &self,
        at: GuestOffset,
        entries: impl Iterator<Item = L2Entry> + Clone,
        order: DataOrder,
        mut log: impl FnMut(&mut dyn Iterator<Item = u64>),
    ) -> Result<(), ImageError> {
        let Place { slice, slot, .. } = self.place(at);
        let how = (order, self.geometry);
        while !self.cache.publish(slice, slot, entries.clone(), how, &mut log) {
            self.load(self.place(at))?;
        }
        Ok(())
    }

    /// The value of the entry of a cluster, good or bad; none where there is no table.
    pub(crate) fn value(&self, at: GuestOffset) -> Result<Option<u64>, ImageError> {
        let place = self.place(at);
        self.look(place, |slice| Ok(slice.value(place.slot)))
    }

    /// The L1 slot that maps `at`.
    pub(crate) fn l1_index(&self, at: GuestOffset) -> L1Index {
        self.lookup(self.place(at)).l1
    }

    /// Clusters from the one at `at` to the end of its slice.
    pub(crate) fn clusters_left_in_slice(&self, at: GuestOffset) -> u64 {
        SLICE_ENTRIES - self.place(at).slot
    }

    /// Byte of `at` in its cluster.
    pub(crate) fn within_cluster(&self, at: GuestOffset) -> u64 {
        at.get() & (self.geometry.cluster_size_bytes() - 1)
    }

    /// The table of an L1 slot; none if it does not exist.
    pub(crate) fn table(&self, l1: L1Index) -> Result<Option<HostCluster>, ImageError> {
        // Tables of this session lie past the end at open; they were never read from disk.
        match self.l1.table(l1, self.table_limit()) {
            Err(CorruptTable::L1Entry { value, .. })
                if self.is_dangling(value, self.geometry.table_size_bytes()) =>
            {
                Ok(None)
            }
            other => other.map_err(|error| self.corrupt(error)),
        }
    }

    /// Whether a request met corruption.
    pub(crate) fn is_corrupt(&self) -> bool {
        self.is_corrupt.load(Ordering::Relaxed)
    }

    /// Takes note of corruption that was met.
    pub(crate) fn corrupt(&self, error: CorruptTable) -> ImageError {
        self.is_corrupt.store(true, Ordering::Relaxed);
        error.into()
    }

    fn table_limit(&self) -> u64 {
        match self.validation {
            Validation::Eager => u64::MAX,
            Validation::Lazy { .. } => self.space.end_at_open(),
        }
    }

    /// Looks at a slice, loading it as often as it is evicted; none if its table does not exist.
    fn look<R>(
        &self,
        place: Place,
        mut look: impl FnMut(&Slice) -> Result<R, ImageError>,
    ) -> Result<Option<R>, ImageError> {
        loop {
            if let Some(found) = self.cache.look(place.slice, &mut look) {
                return found.map(Some);
            }
            if !self.load(place)? {
                return Ok(None);
            }
        }
    }

    /// Brings a slice into the cache; false if its table does not exist.
    fn load(&self, place: Place) -> Result<bool, ImageError> {
        let lookup = self.lookup(place);
        let Some(table) = self.table(lookup.l1)? else {
            return Ok(false);
        };
        let first_slot = lookup.l2.get() - place.slot;
        let home = self.geometry.host_offset(table).checked_add(first_slot * 8);
        let home = home.expect("a legal table lies inside the file");
        let known = self.space.cross_links_found();
        self.cache.load(place.slice, |written| {
            let slice = self.read_slice(lookup.l1, home, written);
            slice.inspect(|slice| self.find_cross_links(place.slice, slice))
        })?;
        // What another thread found meanwhile it looked for in the cache, where the slice was not.
        if known != self.space.cross_links_found() {
            self.cache.look(place.slice, |slice| self.spoil_crossed(slice));
        }
        Ok(true)
    }

    /// Makes the entries of a slice that was read bad which name what another entry names, and those
    /// of slices in the cache that it names, too.
    // spec: QED-TBL-11
    fn find_cross_links(&self, number: u64, slice: &Slice) {
        if self.space.claim(number, slice.clusters(self.geometry)) {
            self.is_corrupt.store(true, Ordering::Relaxed);
            self.cache.for_each(|cached| self.spoil_crossed(cached));
        }
        if self.space.cross_links_found() > 0 {
            self.spoil_crossed(slice);
        }
    }

    fn spoil_crossed(&self, slice: &Slice) {
        slice.spoil(self.geometry, |cluster| self.space.is_crossed(cluster));
    }

    fn read_slice(
        &self,
        l1: L1Index,
        home: HostOffset,
        written: Option<BadSlots>,
    ) -> Result<Slice, ImageError> {
        let mut bytes = [0; SLICE_LEN_BYTES];
        let read = match &self.journal {
            Some(journal) => journal.read_at(&mut bytes, home),
            None => self.storage.read_at(&mut bytes, home.get()),
        };
        read.map_err(ImageError::io(IoAction::ReadTable, home))?;
        // Slots that were bad when the slice was first read are none of this session.
        let state = if written.is_some() { Written::InSession } else { Written::BeforeOpen };
        let judge = self.space.judge(l1, state);
        let bad = written.unwrap_or_default();
        Ok(Slice::decode(&bytes, home, self.geometry, bad, |at| judge.may_name(at)))
    }

    /// Whether an entry names `len` bytes that a crash kept the file from covering.
    // spec: QED-CONS-05
    fn is_dangling(&self, value: u64, len: u64) -> bool {
        matches!(self.validation, Validation::Lazy { dangling_reads_unallocated: true })
            && self.geometry.host_cluster(HostOffset::new(value)).is_some()
            && value.saturating_add(len) > self.space.end_at_open()
    }

    /// The run of up to `clusters` clusters from `place` with one mapping.
    fn scan(
        &self,
        slice: &Slice,
        place: Place,
        clusters: u64,
    ) -> Result<(u64, ExtentKind), ImageError> {
        let first = self.entry(slice, place, place.slot)?;
        let end = place.slot.saturating_add(clusters).min(SLICE_ENTRIES);
        let mut count = 1;
        while place.slot + count < end {
            let continues = match (first, self.entry(slice, place, place.slot + count)) {
                (L2Entry::Data(first), Ok(L2Entry::Data(next))) => {
                    next.get().checked_sub(first.get()) == Some(count)
                }
                (first, Ok(next)) => first == next,
                (_, Err(_)) => false,
            };
            if !continues {
                break;
            }
            count += 1;
        }
        Ok((count, self.kind(first)))
    }

    fn kind(&self, entry: L2Entry) -> ExtentKind {
        match entry {
            L2Entry::Unallocated => ExtentKind::Unallocated,
            L2Entry::Zero => ExtentKind::Zero,
            L2Entry::Data(cluster) => ExtentKind::Data(self.geometry.host_offset(cluster)),
        }
    }

    // spec: QED-TBL-10
    fn entry(&self, slice: &Slice, place: Place, slot: u64) -> Result<L2Entry, ImageError> {
        match slice.slot(slot, self.geometry) {
            Slot::Entry(entry) => Ok(entry),
            Slot::Bad(value) if self.is_dangling(value, self.geometry.cluster_size_bytes()) => {
                Ok(L2Entry::Unallocated)
            }
            Slot::Bad(value) => {
                let lookup = self.lookup(place);
                let l2 = L2Index::new(lookup.l2.get() - place.slot + slot);
                Err(self.bad_entry(EntryAt { l1: lookup.l1, l2 }, value))
            }
        }
    }

    /// The error of an entry that was met.
    pub(crate) fn bad_entry(&self, EntryAt { l1, l2 }: EntryAt, value: u64) -> ImageError {
        let cluster = self.geometry.host_cluster(HostOffset::new(value));
        self.corrupt(match cluster {
            Some(cluster) if self.space.is_crossed(cluster.get()) => {
                CorruptTable::L2Shared { l1, l2, value }
            }
            _ => CorruptTable::L2Entry { l1, l2, value },
        })
    }

    /// The error of a cluster that is named twice, by one entry of those that name the clusters from
    /// `first` on.
    // spec: QED-TBL-11
    pub(crate) fn named_twice(&self, by: NamedBy, first: u64, cluster: u64) -> ImageError {
        self.corrupt(match by {
            NamedBy::L1(l1) => CorruptTable::L1Entry { l1, value: self.l1.value(l1) },
            NamedBy::L2(EntryAt { l1, l2 }) => CorruptTable::L2Shared {
                l1,
                l2: L2Index::new(l2.get() + (cluster - first)),
                value: cluster << self.geometry.cluster_bits(),
            },
        })
    }

    pub(crate) fn space(&self) -> &SpaceMap {
        &self.space
    }

    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref()
    }

    fn place(&self, at: GuestOffset) -> Place {
        let cluster = self.geometry.guest_cluster(at);
        let number = cluster.get();
        Place { cluster, slice: number / SLICE_ENTRIES, slot: number % SLICE_ENTRIES }
    }

    /// The table slots of a cluster.
    fn lookup(&self, place: Place) -> Lookup {
        let at = self.geometry.guest_cluster_offset(place.cluster);
        let lookup = at.and_then(|at| self.geometry.lookup(at));
        lookup.expect("requests lie inside the image size")
    }
}
