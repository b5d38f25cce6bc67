//! One change of metadata: the only way in which entries and links of tables reach the map, in every
//! mode, with the order of its data; and the set of changes that wait for a flush.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qed_journal::DataOrder;
use qed_pending::{PendingLog, Room};
use qed_spec::{GuestOffset, HostCluster, L1Entry, L1Index, L2Entry};

use crate::data::DataPath;
use crate::error::ImageError;
use crate::map::cache::DirtySlice;
use crate::map::tables::Tables;
use crate::space::free::FreeSpace;
use crate::space::free::HostRun;
use crate::space::host_set::HostSet;

/// What the clusters from one on become; all lie in one slice, whose table exists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    at: GuestOffset,
    count: u64,
    to: To,
    order: DataOrder,
}

#[derive(Debug, Clone, Copy)]
enum To {
    Data(HostRun),
    Zero,
    Unallocated,
}

impl Change {
    /// Clusters without data get `run`, which has been written for the guest.
    ///
    /// Data and entry may become durable together where a crash that keeps only the entry shows what
    /// was there before: the guest clusters read as zeros, since none has a backing file, and so does
    /// the space, since it is fresh and zeros in the file are zeros of the guest. A copy of data never
    /// comes here: it would not read as zeros.
    // spec: QED-RW-06
    pub(crate) fn allocated(at: GuestOffset, run: HostRun, data: &DataPath) -> Self {
        let reads_as_before = !data.is_backed() && run.fresh && data.zeros_are_zeros();
        let order = if reads_as_before { DataOrder::Together } else { DataOrder::First };
        Self { at, count: run.count, to: To::Data(run), order }
    }

    /// Clusters with data get `run`, which holds a copy of it: durable before any entry says so,
    /// whatever the space is.
    // spec: QED-RW-06
    pub(crate) fn moved(at: GuestOffset, run: HostRun) -> Self {
        Self { at, count: run.count, to: To::Data(run), order: DataOrder::First }
    }

    /// A cluster that reads as zeros gets space that nobody wrote.
    pub(crate) fn placed(at: GuestOffset, run: HostRun) -> Self {
        debug_assert!(run.fresh, "reads as zeros");
        Self { at, count: run.count, to: To::Data(run), order: DataOrder::Together }
    }

    /// Entries become what the log of a dead process says, whose data may not be durable.
    // spec: QED-PEND-10
    pub(crate) fn replayed(at: GuestOffset, count: u64, first: L2Entry) -> Self {
        let to = match first {
            L2Entry::Unallocated => To::Unallocated,
            L2Entry::Zero => To::Zero,
            L2Entry::Data(first) => To::Data(HostRun { first, count, fresh: false }),
        };
        Self { at, count, to, order: DataOrder::First }
    }

    /// Clusters become zero clusters.
    pub(crate) fn zeros(at: GuestOffset, count: u64) -> Self {
        Self { at, count, to: To::Zero, order: DataOrder::Together }
    }

    /// Clusters become unallocated.
    pub(crate) fn unallocated(at: GuestOffset, count: u64) -> Self {
        Self { at, count, to: To::Unallocated, order: DataOrder::Together }
    }

    /// Publishes the change: requests see it, the next flush makes it durable, and the pending log has it,
    /// in which there is room for each entry.
    pub(crate) fn publish(self, map: &Tables, room: &mut Room<'_>) -> Result<(), ImageError> {
        let first = match self.to {
            To::Data(run) => run.first.get(),
            To::Zero | To::Unallocated => 0,
        };
        let entry = |index| match self.to {
            To::Data(_) => {
                HostCluster::new(first + index).map_or(L2Entry::Unallocated, L2Entry::Data)
            }
            To::Zero => L2Entry::Zero,
            To::Unallocated => L2Entry::Unallocated,
        };
        let (geometry, count) = (map.geometry, usize::try_from(self.count).unwrap_or(usize::MAX));
        let (guest, value) = (geometry.guest_cluster(self.at), entry(0).encode(geometry));
        let log = |olds: &mut dyn Iterator<Item = u64>| {
            room.append(guest, value, olds.take(count), geometry);
        };
        map.set_entries(self.at, (0..self.count).map(entry), self.order, log)
    }

    /// As [`Change::publish`], where the entries name clusters that they will not name any more: these
    /// are let go.
    // spec: QED-FREE-01, QED-FREE-07
    pub(crate) fn publish_over(
        self,
        clusters: &[Range<u64>],
        (map, room): (&Tables, &mut Room<'_>),
        free: &FreeSpace,
    ) -> Result<(), ImageError> {
        free.let_go(clusters);
        let published = self.publish(map, room);
        // In limbo only now: a flush that takes them copies the entries after that.
        match published {
            Ok(()) => free.is_let_go(clusters),
            Err(_) => free.is_kept(clusters),
        }
        published
    }
}

/// The changes that are not in the file yet: those of entries are the dirty slices of the map's cache,
/// those of links are here.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Held while a table is allocated.
    links: Mutex<Links>,
    /// Has the changes of entries as well, for the next process if this one dies.
    log: Option<Arc<PendingLog>>,
    /// What a dead process acknowledged is lost, and the next flush is to say so.
    is_lost: AtomicBool,
}

/// Links that wait for a flush.
#[derive(Debug, Default)]
struct Links {
    /// L1 slots and their values.
    values: BTreeMap<u64, u64>,
    /// Whether a table among them was zeroed by writing: its zeros are durable before its link.
    zeroed: bool,
}

/// What one flush is to make durable, copied.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) slices: Vec<DirtySlice>,
    /// L1 slots and their values.
    pub(crate) links: BTreeMap<u64, u64>,
    /// Whether a table among those was zeroed by writing.
    zeroed_tables: bool,
    /// Clusters that nothing names any more once this is durable.
    pub(crate) let_go: HostSet,
    /// Where this batch ends in the pending log.
    pub(crate) logged: Logged,
}

/// Up to where the records of the pending log are of changes that a batch has, or one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Logged(u64);

impl Pending {
    /// From here on the log gets what is published.
    pub(crate) fn keep_log(&mut self, log: Arc<PendingLog>) {
        self.log = Some(log);
    }

    /// What was acknowledged is lost: the next flush is to fail.
    pub(crate) fn fail_next_flush(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    /// Whether a flush is to fail; asked once.
    pub(crate) fn take_loss(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed) && self.is_lost.swap(false, Ordering::AcqRel)
    }

    /// Room in the log for `count` entries; none while it is full. Taken before any lock, since a flush
    /// makes the room.
    // spec: QED-PEND-05
    pub(crate) fn room(&self, count: u64) -> Option<Room<'_>> {
        self.log.as_ref().map_or(Some(Room::none()), |log| log.room(count))
    }

    /// Whether a flush should make room in the log.
    pub(crate) fn is_crowded(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_crowded())
    }

    /// A batch, and all before it, is durable.
    // spec: QED-PEND-04
    pub(crate) fn is_durable(&self, Logged(boundary): Logged) {
        if let Some(log) = &self.log {
            log.is_home(boundary);
        }
    }

    /// Links the table that `allocate` gives an L1 slot, unless the slot has one. An allocation at a
    /// time: two requests may want the same table.
    // spec: QED-TBL-06
    pub(crate) fn link(
        &self,
        l1: L1Index,
        map: &Tables,
        allocate: impl FnOnce() -> Result<HostRun, ImageError>,
    ) -> Result<(), ImageError> {
        if map.table(l1)?.is_some() {
            return Ok(());
        }
        let mut links = self.links();
        if map.table(l1)?.is_some() {
            return Ok(());
        }
        let table = allocate()?;
        let entry = L1Entry::Table(table.first);
        links.values.insert(l1.get(), entry.encode(map.geometry));
        links.zeroed |= !table.fresh;
        map.l1.set_link(l1, entry);
        Ok(())
    }

    /// An L1 slot gets another table, which is a durable copy of the one that it has.
    pub(crate) fn relink(&self, l1: L1Index, table: HostCluster, map: &Tables) {
        let entry = L1Entry::Table(table);
        self.links().values.insert(l1.get(), entry.encode(map.geometry));
        map.l1.set_link(l1, entry);
    }

    /// Takes the table of an L1 slot away.
    pub(crate) fn unlink(&self, l1: L1Index, map: &Tables) {
        self.links().values.insert(l1.get(), 0);
        map.l1.set_link(l1, L1Entry::Unallocated);
    }

    /// Copies what is pending. Clusters that were let go first: the entries that let them go are
    /// published, and logged, by now. Then where the log ends: what it has by now is copied, and once that
    /// is durable no record is left that names a cluster which may be handed out again. Then slices: a
    /// table is linked before it gets entries, so the L1 slots taken afterwards cover every slice taken
    /// before.
    // spec: QED-FREE-02, QED-PEND-03, QED-PEND-07
    pub(crate) fn take(&self, map: &Tables, free: &FreeSpace) -> Batch {
        let let_go = free.take_limbo();
        let logged = Logged(self.log.as_ref().map_or(0, |log| log.boundary()));
        let slices = map.cache.take_dirty();
        let Links { values: links, zeroed: zeroed_tables } = std::mem::take(&mut *self.links());
        Batch { slices, links, zeroed_tables, let_go, logged }
    }

    /// A batch did not get to the file.
    pub(crate) fn put_back(&self, batch: Batch, map: &Tables, free: &FreeSpace) {
        free.put_back(&batch.let_go);
        map.cache.not_written(&batch.slices);
        let mut links = self.links();
        links.zeroed |= batch.zeroed_tables;
        for (slot, value) in batch.links {
            links.values.entry(slot).or_insert(value);
        }
    }

    pub(crate) fn is_empty(&self, map: &Tables) -> bool {
        map.cache.is_clean() && self.links().values.is_empty()
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.links.is_empty()
    }

    /// Whether the data of some entry, or the zeros of a table, must be durable before it.
    pub(crate) fn order(&self) -> DataOrder {
        let first = |slice: &DirtySlice| slice.copy.order == DataOrder::First;
        if self.zeroed_tables || self.slices.iter().any(first) {
            DataOrder::First
        } else {
            DataOrder::Together
        }
    }
}
