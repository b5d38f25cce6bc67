//! A slice as the cache knows it, with the atomics of the model checker and few slots: what
//! `qed-core/src/map/slice.rs` has, without bad slots.

use qed_journal::DataOrder;
use qed_spec::{Geometry, L2Entry};

use crate::sync::{AtomicBool, AtomicU64, Ordering};

pub(crate) const SLICE_ENTRIES: u64 = 2;
const ENTRIES: usize = 2;
pub(crate) const SLICE_LEN_BYTES: usize = ENTRIES * 8;

pub(crate) type SlotSet = u64;
pub(crate) type BadSlots = SlotSet;

#[derive(Debug, Default)]
pub(crate) struct Slice {
    dirty: AtomicBool,
    data_first: AtomicBool,
    pins: AtomicU64,
    changed: AtomicU64,
    entries: [AtomicU64; ENTRIES],
}

#[derive(Debug)]
pub(crate) struct SliceCopy {
    pub(crate) entries: [u64; ENTRIES],
    pub(crate) changed: SlotSet,
    pub(crate) order: DataOrder,
}

impl Slice {
    /// A slice as read from disk.
    pub(crate) fn new(entries: [u64; ENTRIES]) -> Self {
        Self { entries: entries.map(AtomicU64::new), ..Self::default() }
    }

    pub(crate) fn value(&self, index: u64) -> u64 {
        self.entries[index as usize].load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, index: u64, entry: L2Entry, geometry: Geometry) {
        self.entries[index as usize].store(entry.encode(geometry), Ordering::SeqCst);
        self.changed.fetch_or(1 << index, Ordering::SeqCst);
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    pub(crate) fn mark_dirty(&self, order: DataOrder) {
        if order == DataOrder::First {
            self.data_first.store(true, Ordering::SeqCst);
        }
        self.dirty.store(true, Ordering::SeqCst);
    }

    pub(crate) fn take_copy(&self) -> SliceCopy {
        self.dirty.store(false, Ordering::SeqCst);
        self.pins.fetch_add(1, Ordering::SeqCst);
        SliceCopy {
            entries: [0, 1].map(|index| self.entries[index].load(Ordering::SeqCst)),
            changed: self.changed.swap(0, Ordering::SeqCst),
            order: if self.data_first.swap(false, Ordering::SeqCst) {
                DataOrder::First
            } else {
                DataOrder::Together
            },
        }
    }

    pub(crate) fn put_back(&self, changed: &SlotSet) {
        self.changed.fetch_or(*changed, Ordering::SeqCst);
    }

    pub(crate) fn unpin(&self) {
        assert!(self.pins.fetch_sub(1, Ordering::SeqCst) > 0, "a copy came back twice");
    }

    pub(crate) fn touch(&self) {}

    /// Never looked at, so that all that can go is evicted at once.
    pub(crate) fn take_used(&self) -> bool {
        false
    }

    pub(crate) fn is_evictable(&self) -> bool {
        !self.is_dirty() && self.pins.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn bad_if_written(&self) -> Option<BadSlots> {
        None
    }
}
