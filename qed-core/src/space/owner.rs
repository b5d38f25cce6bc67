//! What an entry that is read from the file may name: the one answer for L1 and L2 slots.
//!
//! Metadata lies in the header area, the L1 table and the L2 tables; all else below the end may hold
//! guest data of one entry. Knows no table's content: the reader of entries tells which tables there are and
//! which clusters are named.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use qed_layout::{DirtyBits, Roots};
use qed_spec::{Geometry, Header, HostOffset, L1Index};

use crate::space::cross_links::CrossLinks;
use crate::space::device::DeviceEnd;

/// Where an L2 table or a data cluster may lie, by the header alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableRules {
    pub(crate) geometry: Geometry,
    roots: Roots,
    /// First byte of the L1 table.
    pub(crate) l1_offset: u64,
}

/// Where an entry stood when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// In a slice as the image had it when it was opened.
    BeforeOpen,
    /// In a slice that this session wrote: it names space that was handed out since.
    InSession,
}

/// What the tables of L1 slots without a dirty bit may name, where only marked tables were checked after a crash:
/// it tells the tables of this program from those that another one wrote since. The bits are those that
/// the crash left.
#[derive(Debug)]
pub(crate) struct ForeignLimit(pub(crate) DirtyBits);

/// Whose each cluster is, as far as entries may name it.
#[derive(Debug)]
pub(crate) struct SpaceMap {
    rules: TableRules,
    /// File length when the image was opened: what is on disk from before names nothing past it.
    end_at_open: u64,
    /// First bytes of the L2 tables, ascending; no data cluster lies in one. Empty for an image that is
    /// only read, which cannot harm its tables.
    tables: RwLock<Vec<u64>>,
    /// Of a writable image: what is named twice.
    cross_links: Option<CrossLinks>,
    foreign: Option<ForeignLimit>,
    /// Of a writable image on a block device: hears what entries name that are read.
    device: Option<Arc<DeviceEnd>>,
}

/// Judges the entries of one slice; tables stay where they are meanwhile.
pub(crate) struct Judge<'a> {
    map: &'a SpaceMap,
    /// Byte after the last that an entry of the slice may name.
    end: u64,
    is_of_before: bool,
    tables: RwLockReadGuard<'a, Vec<u64>>,
}

impl TableRules {
    pub(crate) fn of(header: &Header) -> Self {
        Self {
            geometry: header.geometry(),
            roots: Roots::of(header),
            l1_offset: header.fields().l1_table_offset.get(),
        }
    }

    /// Whether `len` bytes at `offset` keep clear of all roots and lie below `end`.
    // spec: QED-TBL-07, QED-TBL-08, QED-CONS-06
    pub(crate) fn allows(&self, offset: u64, len: u64, end: u64) -> bool {
        offset.checked_add(len).is_some_and(|place_end| {
            place_end <= end && self.roots.at(&(offset..place_end)).is_none()
        })
    }
}

impl ForeignLimit {
    /// Byte after the last that the table of a slot may name.
    // spec: QED-DIRTY-09
    fn of(&self, l1: L1Index) -> u64 {
        if self.0.contains(l1) { u64::MAX } else { self.0.bitmap().epoch_size() }
    }
}

impl SpaceMap {
    /// Of an image that is only read, in a file of `end` bytes.
    pub(crate) fn for_reading(header: &Header, end: u64) -> Self {
        Self {
            rules: TableRules::of(header),
            end_at_open: end,
            tables: RwLock::default(),
            cross_links: None,
            foreign: None,
            device: None,
        }
    }

    /// Of a writable image in a file of `end` bytes, with L2 tables at `tables`, ascending. What tells
    /// cross-links takes an eighth of `memory` bytes.
    pub(crate) fn for_writing(
        header: &Header,
        end: u64,
        tables: Vec<u64>,
        foreign: Option<ForeignLimit>,
        memory: u64,
    ) -> Self {
        let clusters = header.geometry().clusters_for(end).get();
        Self {
            tables: RwLock::new(tables),
            cross_links: Some(CrossLinks::new(clusters, memory)),
            foreign,
            ..Self::for_reading(header, end)
        }
    }

    /// The image lies on a block device, of whose end this is known.
    pub(crate) fn on_device(self, device: DeviceEnd) -> Self {
        let table_size = self.rules.geometry.table_size_bytes();
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        device.named(tables.last().map_or(0, |last| last + table_size));
        drop(tables);
        Self { device: Some(Arc::new(device)), ..self }
    }

    /// What is known of the end of an image on a block device; none of one in a file.
    pub(crate) fn device(&self) -> Option<&Arc<DeviceEnd>> {
        self.device.as_ref()
    }

    /// Byte after the last of the header area and the L1 table.
    pub(crate) fn roots_end(&self) -> u64 {
        self.rules.roots.end()
    }

    /// File length when the image was opened.
    pub(crate) fn end_at_open(&self) -> u64 {
        self.end_at_open
    }

    /// What the header names.
    pub(crate) fn roots(&self) -> &Roots {
        &self.rules.roots
    }

    /// The judge of the entries of a slice below an L1 slot.
    pub(crate) fn judge(&self, l1: L1Index, written: Written) -> Judge<'_> {
        self.judge_up_to(self.limit(l1, written), written)
    }

    fn judge_up_to(&self, end: u64, written: Written) -> Judge<'_> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Judge { map: self, end, is_of_before: written == Written::BeforeOpen, tables }
    }

    /// Byte after the last that an entry below an L1 slot may name.
    pub(crate) fn limit(&self, l1: L1Index, written: Written) -> u64 {
        match written {
            Written::InSession => u64::MAX,
            Written::BeforeOpen => {
                let limit = self.foreign.as_ref().map_or(u64::MAX, |foreign| foreign.of(l1));
                self.end_at_open.min(limit)
            }
        }
    }

    /// Whether entries that the file does not have yet may name a run of clusters: inside the file as it
    /// was at open, and apart from metadata.
    pub(crate) fn may_be_data(&self, run: &Range<u64>) -> bool {
        let bits = self.rules.geometry.cluster_bits();
        let judge = self.judge_up_to(self.end_at_open, Written::BeforeOpen);
        run.end <= self.end_at_open >> bits
            && run.clone().all(|cluster| judge.may_name(HostOffset::new(cluster << bits)))
    }

    /// An L2 table lies at `at` from now on, in space that nothing named.
    pub(crate) fn is_table(&self, at: HostOffset) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let place = tables.partition_point(|table| *table < at.get());
        tables.insert(place, at.get());
    }

    /// First byte of the L2 table that lies last.
    pub(crate) fn last_table(&self) -> Option<u64> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).last().copied()
    }

    /// How many L2 tables end behind `end`.
    pub(crate) fn tables_from(&self, end: u64) -> u64 {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let table_size = self.rules.geometry.table_size_bytes();
        (tables.len() - tables.partition_point(|table| table + table_size <= end)) as u64
    }

    /// The L2 table at `at` is none any more.
    pub(crate) fn is_no_table(&self, at: HostOffset) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| *table != at.get());
    }

    /// Takes note of the clusters that a slice names which was read; whether one of them is named by an
    /// entry that was read before.
    // spec: QED-TBL-11
    pub(crate) fn claim(&self, slice: u64, clusters: impl Iterator<Item = u64>) -> bool {
        self.cross_links.as_ref().is_some_and(|links| links.claim(slice, clusters))
    }

    /// A number that grows when a cross-link is found; 0 while there is none.
    pub(crate) fn cross_links_found(&self) -> u64 {
        self.cross_links.as_ref().map_or(0, CrossLinks::generation)
    }

    /// Whether two entries name a cluster.
    pub(crate) fn is_crossed(&self, cluster: u64) -> bool {
        self.cross_links.as_ref().is_some_and(|links| links.has(cluster))
    }

    /// The file was cut at `end`, past all tables in use: what is put there is no table.
    pub(crate) fn was_cut(&self, end: u64) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let kept = tables.partition_point(|table| *table < end);
        tables.truncate(kept);
        if let Some(links) = &self.cross_links {
            links.forget_from(end >> self.rules.geometry.cluster_bits());
        }
    }
}

impl Judge<'_> {
    /// Whether an entry may name the data cluster at `at`.
    // spec: QED-TBL-07, QED-TBL-08
    pub(crate) fn may_name(&self, at: HostOffset) -> bool {
        let cluster_size = self.map.rules.geometry.cluster_size_bytes();
        let may =
            self.map.rules.allows(at.get(), cluster_size, self.end) && !self.is_in_table(at.get());
        if let (true, Some(device)) = (may && self.is_of_before, &self.map.device) {
            device.named(at.get() + cluster_size);
        }
        may
    }

    fn is_in_table(&self, at: u64) -> bool {
        let after = self.tables.partition_point(|table| *table <= at);
        let table = after.checked_sub(1).map(|before| self.tables[before]);
        table.is_some_and(|table| at - table < self.map.rules.geometry.table_size_bytes())
    }
}
