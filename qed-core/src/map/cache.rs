//! The cache of L2 table slices: within a limit, looked up by many threads, written back by a flush.
//!
//! A slice is known by its number, the guest cluster number divided by 512. Lookups take no lock
//! where the index has the slice. Publishing holds a shard shared for a few instructions, as
//! publishing a slice in the index does; loading and evicting hold it alone.
//!
//! A flush goes by the list of dirty slices, so a slice that is marked dirty is in the list, or in
//! the hands of a flush that copies it when nobody holds its shard. `tests/interleavings` compiles
//! this file and goes through the orders.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use qed_journal::DataOrder;
use qed_spec::{Geometry, L2Entry};

use crate::map::index::{Index, Numbered};
use crate::map::slice::{BadSlots, SLICE_ENTRIES, SLICE_LEN_BYTES, Slice, SliceCopy};
use crate::sync::{
    Arc, AtomicUsize, Mutex, Ordering, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

const SHARDS: usize = 16;
/// Places of the index at the most. Numbers of one place belong to one shard: both counts are powers
/// of two, and the index has more.
const PLACES_MAX: usize = 1 << 16;

type Cached = Arc<Numbered<Slice>>;

#[derive(Debug)]
pub(crate) struct L2Cache {
    index: Index<Slice>,
    shards: [RwLock<Shard>; SHARDS],
    /// One load at a time in each shard, so that no thread inserts what another has outdated.
    loading: [Mutex<()>; SHARDS],
    slices_per_shard: usize,
    /// Numbers of the slices that became dirty since they were last copied; some twice, or copied
    /// since.
    dirty: Mutex<Vec<u64>>,
    /// Length of that list, to be read without the lock.
    dirty_count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    slices: HashMap<u64, Cached, BuildHasherDefault<NumberHasher>>,
    /// Slices written in this session and evicted since: what was bad in them when first read.
    written: Written,
}

type Written = HashMap<u64, Option<Box<BadSlots>>, BuildHasherDefault<NumberHasher>>;

/// A copied slice and its number, to unpin it once the copy is in the file.
#[derive(Debug)]
pub(crate) struct DirtySlice {
    pub(crate) number: u64,
    pub(crate) copy: SliceCopy,
}

/// What a walk finds of a slice.
#[derive(Debug)]
pub(crate) enum Glance<R> {
    Cached(R),
    /// The file has it, or the journal; what was bad in it when it was first read, if this session wrote
    /// it.
    InFile {
        written: Option<BadSlots>,
    },
}

impl L2Cache {
    /// A cache of at most `limit_bytes`, but never less than eight slices a shard.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        let slices = usize::try_from(limit_bytes / SLICE_LEN_BYTES as u64).unwrap_or(usize::MAX);
        let slices_per_shard = (slices / SHARDS).max(8);
        Self {
            index: Index::new(slices_per_shard.saturating_mul(SHARDS).min(PLACES_MAX)),
            shards: Default::default(),
            loading: Default::default(),
            slices_per_shard,
            dirty: Mutex::default(),
            dirty_count: AtomicUsize::new(0),
        }
    }

    /// Looks at a slice, if it is cached.
    #[inline]
    pub(crate) fn look<R>(&self, number: u64, mut look: impl FnMut(&Slice) -> R) -> Option<R> {
        let mut look = |slice: &Slice| {
            slice.touch();
            look(slice)
        };
        if let Some(found) = self.index.look(number, &mut look) {
            return Some(found);
        }
        let shard = self.shared(number);
        let cached = shard.slices.get(&number)?;
        self.index.publish(cached);
        Some(look(&cached.value))
    }

    /// Loads a slice unless another thread just did. `load` gets the bad slots of a slice that this
    /// session wrote before.
    pub(crate) fn load<E>(
        &self,
        number: u64,
        load: impl FnOnce(Option<BadSlots>) -> Result<Slice, E>,
    ) -> Result<(), E> {
        let _loading =
            self.loading[shard_of(number)].lock().unwrap_or_else(PoisonError::into_inner);
        let written = {
            let shard = self.shared(number);
            if shard.slices.contains_key(&number) {
                return Ok(());
            }
            shard.bad_in(number)
        };
        let slice = load(written)?;
        let mut shard = self.alone(number);
        if shard.slices.len() >= self.slices_per_shard {
            shard.evict(&self.index);
        }
        shard.slices.insert(number, Arc::new(Numbered { number, value: slice }));
        Ok(())
    }

    /// Looks at a slice that is cached, for a walk through all of them, which keeps none of them there.
    pub(crate) fn glance<R>(&self, number: u64, look: impl FnOnce(&Slice) -> R) -> Glance<R> {
        let shard = self.shared(number);
        match shard.slices.get(&number) {
            Some(cached) => Glance::Cached(look(&cached.value)),
            None => Glance::InFile { written: shard.bad_in(number) },
        }
    }

    /// Whether any slice with such a number is cached.
    pub(crate) fn has_any(&self, numbers: &Range<u64>) -> bool {
        self.shards.iter().any(|shard| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.slices.keys().any(|number| numbers.contains(number))
        })
    }

    /// Looks at every slice that is cached.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Slice)) {
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.slices.values().for_each(|cached| look(&cached.value));
        }
    }

    /// Publishes `entries` from slot `index` of a slice, after `log` was given the values that the slots
    /// from there on have; false if the slice is not cached.
    ///
    /// In the list first: a thread that finds the slice marked lists nothing, and may flush at once. Two
    /// that find it clean both list it. A flush that takes the number between the steps waits for the shard,
    /// which is held until the last, before it looks at the mark. So it copies whatever was logged before
    /// it took the list, or the flush before it has.
    // spec: QED-RW-07, QED-PEND-02, QED-PEND-03
    pub(crate) fn publish(
        &self,
        number: u64,
        index: u64,
        entries: impl Iterator<Item = L2Entry>,
        (order, geometry): (DataOrder, Geometry),
        log: &mut impl FnMut(&mut dyn Iterator<Item = u64>),
    ) -> bool {
        let shard = self.shared(number);
        let Some(cached) = shard.slices.get(&number) else {
            return false;
        };
        self.list(cached);
        log(&mut (index..SLICE_ENTRIES).map(|slot| cached.value.value(slot)));
        for (slot, entry) in (index..SLICE_ENTRIES).zip(entries) {
            cached.value.set(slot, entry, geometry);
        }
        cached.value.mark_dirty(order);
        true
    }

    /// Copies every dirty slice for the file. Each copy must come back through
    /// [`L2Cache::written`] or [`L2Cache::not_written`].
    pub(crate) fn take_dirty(&self) -> Vec<DirtySlice> {
        let mut numbers = self.change_dirty(std::mem::take);
        numbers.sort_unstable();
        numbers
            .into_iter()
            .filter_map(|number| {
                let shard = self.alone(number);
                // A number that is listed twice finds its slice copied.
                let cached = shard.slices.get(&number).filter(|cached| cached.value.is_dirty())?;
                Some(DirtySlice { number, copy: cached.value.take_copy() })
            })
            .collect()
    }

    /// The copies of these slices are where a load finds them.
    pub(crate) fn written(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.look(number, Slice::unpin);
        }
    }

    /// The copies did not reach the file: their slices are dirty again.
    pub(crate) fn not_written(&self, slices: &[DirtySlice]) {
        for slice in slices {
            let shard = self.shared(slice.number);
            if let Some(cached) = shard.slices.get(&slice.number) {
                cached.value.put_back(&slice.copy.changed);
                self.list(cached);
                cached.value.mark_dirty(slice.copy.order);
                cached.value.unpin();
            }
        }
    }

    /// Whether so much is dirty that a flush should make room.
    pub(crate) fn is_crowded(&self) -> bool {
        self.dirty_count.load(Ordering::Relaxed) * 2 >= self.slices_per_shard * SHARDS
    }

    /// Whether nothing is dirty.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty_count.load(Ordering::Acquire) == 0
    }

    /// Drops the slices with these numbers, which are clean, and remembers that this session wrote
    /// them: their table is about to lie elsewhere. No request is in flight. False if one has to stay.
    pub(crate) fn evict(&self, numbers: &Range<u64>) -> bool {
        let mut all = true;
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let Shard { slices, written } = &mut *shard;
            slices.retain(|number, cached| {
                let stays = numbers.contains(number)
                    && !let_go_of(&self.index, written, *number, &cached.value);
                all &= !stays;
                stays || !numbers.contains(number)
            });
        }
        all
    }

    /// Drops the slices with these numbers and what is known of them. Nothing is dirty, and no
    /// request is in flight: their tables are about to change on disk.
    pub(crate) fn forget(&self, numbers: &Range<u64>) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.slices.retain(|number, _| {
                let forgotten = numbers.contains(number);
                if forgotten {
                    self.index.unpublish(*number);
                }
                !forgotten
            });
            shard.written.retain(|number, _| !numbers.contains(number));
        }
    }

    /// Lists a slice that is about to be marked dirty. The caller holds its shard shared from before
    /// this until after the mark.
    fn list(&self, cached: &Cached) {
        if !cached.value.is_dirty() {
            self.change_dirty(|numbers| numbers.push(cached.number));
        }
    }

    /// Changes the list of dirty slices, and the count with it.
    fn change_dirty<R>(&self, change: impl FnOnce(&mut Vec<u64>) -> R) -> R {
        let mut numbers = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut numbers);
        self.dirty_count.store(numbers.len(), Ordering::Release);
        result
    }

    fn shared(&self, number: u64) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard_of(number)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self, number: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard_of(number)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// What was bad in a slice that this session wrote.
    fn bad_in(&self, number: u64) -> Option<BadSlots> {
        self.written.get(&number).map(|bad| bad.as_deref().copied().unwrap_or_default())
    }

    /// Drops the slices that nobody looked at since the last call; if all were looked at, half of
    /// those that can go. Dirty and pinned slices stay, so a shard may exceed its share.
    fn evict(&mut self, index: &Index<Slice>) {
        let before = self.slices.len();
        let written = &mut self.written;
        let mut keep = |number: &u64, slice: &Slice, wanted: bool| {
            wanted || !let_go_of(index, written, *number, slice)
        };
        self.slices.retain(|number, cached| {
            let used = cached.value.take_used();
            keep(number, &cached.value, used)
        });
        if self.slices.len() == before {
            let mut turn = false;
            self.slices.retain(|number, cached| {
                turn = !turn;
                keep(number, &cached.value, turn)
            });
        }
    }
}

/// Takes a slice out of the index and notes that this session wrote it, if it did; false for one that
/// must stay.
fn let_go_of(index: &Index<Slice>, written: &mut Written, number: u64, slice: &Slice) -> bool {
    if !slice.is_evictable() {
        return false;
    }
    index.unpublish(number);
    if let Some(bad) = slice.bad_if_written() {
        written.insert(number, (bad != BadSlots::default()).then(|| Box::new(bad)));
    }
    true
}

fn shard_of(number: u64) -> usize {
    usize::try_from(number % SHARDS as u64).expect("below 16")
}

/// Spreads slice numbers over a hash table: they are not chosen by an adversary in any way that
/// costs more than the slices themselves.
#[derive(Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio; the swap moves the well-mixed high bits down.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).swap_bytes();
    }
}
