//! One 4 KiB slice of an L2 table in memory: 512 slots that readers load without a lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use qed_journal::DataOrder;
use qed_spec::{Geometry, HostOffset, L2Entry};
use zerocopy::IntoBytes;

/// Slots in a slice. Every table is a whole number of slices, since clusters are 4 KiB or more.
pub(crate) const SLICE_ENTRIES: u64 = 512;
const ENTRIES: usize = 512;
/// Bytes of a slice, on disk and as counted against the cache limit.
pub(crate) const SLICE_LEN_BYTES: usize = ENTRIES * 8;

/// Slots of a slice, one bit each.
pub(crate) type SlotSet = [u64; ENTRIES / 64];

/// Which slots of a slice broke a rule when they were read, or were found to break one since.
pub(crate) type BadSlots = SlotSet;

/// A slice, its place on disk and its state.
///
/// In the order of the fields: what each lookup reads of the state shares a cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slice {
    /// Some slot is bad, or was.
    had_bad: AtomicBool,
    /// Looked at since the last eviction.
    used: AtomicBool,
    /// Where the slice lies in the image file.
    home: HostOffset,
    /// Holds entries that are not in the file.
    dirty: AtomicBool,
    /// Among them one whose data must be durable before it.
    data_first: AtomicBool,
    /// Held entries of this session once, so what lies at its home is ours.
    written: AtomicBool,
    /// Copies of this slice on their way to the file; it must not be evicted meanwhile.
    pins: AtomicU32,
    /// Which slots were published since the slice was last copied, one bit each.
    changed: [AtomicU64; ENTRIES / 64],
    bad: [AtomicU64; ENTRIES / 64],
    entries: [AtomicU64; ENTRIES],
}

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Entry(L2Entry),
    /// The slot broke a rule when it was read, or names what another one names; its value.
    Bad(u64),
}

impl Slice {
    fn from_values(values: &[u64; ENTRIES], bad: BadSlots, home: HostOffset) -> Self {
        Self {
            had_bad: AtomicBool::new(bad != BadSlots::default()),
            used: AtomicBool::new(true),
            home,
            dirty: AtomicBool::new(false),
            data_first: AtomicBool::new(false),
            written: AtomicBool::new(false),
            pins: AtomicU32::new(0),
            changed: Default::default(),
            bad: bad.map(AtomicU64::new),
            entries: std::array::from_fn(|i| AtomicU64::new(values[i])),
        }
    }

    /// A slice as read from disk; `known_bad` are the slots already found bad in this session, and
    /// `is_legal` decides about the data offsets of the others.
    pub(crate) fn decode(
        bytes: &[u8; SLICE_LEN_BYTES],
        home: HostOffset,
        geometry: Geometry,
        known_bad: BadSlots,
        is_legal: impl Fn(HostOffset) -> bool,
    ) -> Self {
        let mut bad = known_bad;
        let mut values = [0; ENTRIES];
        for (i, value) in bytes.chunks_exact(8).enumerate() {
            let value = u64::from_le_bytes(value.try_into().expect("chunks of eight"));
            values[i] = value;
            let legal = match L2Entry::decode(value, geometry) {
                Ok(L2Entry::Data(cluster)) => is_legal(geometry.host_offset(cluster)),
                Ok(L2Entry::Unallocated | L2Entry::Zero) => true,
                Err(_) => false,
            };
            if !legal {
                bad[i / 64] |= 1 << (i % 64);
            }
        }
        Self::from_values(&values, bad, home)
    }

    /// The slot with this number, `0..512`.
    pub(crate) fn slot(&self, index: u64, geometry: Geometry) -> Slot {
        let i = slot_index(index);
        let value = self.entries[i].load(Ordering::Acquire);
        if self.had_bad.load(Ordering::Relaxed)
            && self.bad[i / 64].load(Ordering::Acquire) & (1 << (i % 64)) != 0
        {
            return Slot::Bad(value);
        }
        L2Entry::decode(value, geometry).map_or(Slot::Bad(value), Slot::Entry)
    }

    /// The value of a slot, good or bad.
    pub(crate) fn value(&self, index: u64) -> u64 {
        self.entries[slot_index(index)].load(Ordering::Acquire)
    }

    /// Publishes an entry; its data has been written. The caller marks the slice.
    ///
    /// Only a resize gets here with a bad slot, to clear what lies beyond the end of the disk.
    pub(crate) fn set(&self, index: u64, entry: L2Entry, geometry: Geometry) {
        let i = slot_index(index);
        self.entries[i].store(entry.encode(geometry), Ordering::Release);
        self.changed[i / 64].fetch_or(1 << (i % 64), Ordering::Relaxed);
        if self.had_bad.load(Ordering::Relaxed) {
            self.bad[i / 64].fetch_and(!(1 << (i % 64)), Ordering::AcqRel);
        }
    }

    /// The values of all slots; the first that is bad, and its value, instead.
    pub(crate) fn values(&self) -> Result<[u64; ENTRIES], (usize, u64)> {
        if self.had_bad.load(Ordering::Relaxed) {
            let is_bad = |i: &usize| self.bad[i / 64].load(Ordering::Acquire) >> (i % 64) & 1 == 1;
            if let Some(i) = (0..ENTRIES).find(is_bad) {
                return Err((i, self.entries[i].load(Ordering::Acquire)));
            }
        }
        Ok(std::array::from_fn(|i| self.entries[i].load(Ordering::Acquire)))
    }

    /// The numbers of the data clusters that good slots name, in the order of the slots.
    pub(crate) fn clusters(&self, geometry: Geometry) -> impl Iterator<Item = u64> {
        (0..SLICE_ENTRIES).filter_map(move |index| match self.slot(index, geometry) {
            Slot::Entry(L2Entry::Data(cluster)) => Some(cluster.get()),
            _ => None,
        })
    }

    /// Makes the slots bad that name a data cluster with such a number.
    pub(crate) fn spoil(&self, geometry: Geometry, is_bad: impl Fn(u64) -> bool) {
        for index in 0..SLICE_ENTRIES {
            if let Slot::Entry(L2Entry::Data(cluster)) = self.slot(index, geometry)
                && is_bad(cluster.get())
            {
                let i = slot_index(index);
                self.bad[i / 64].fetch_or(1 << (i % 64), Ordering::Release);
                self.had_bad.store(true, Ordering::Release);
            }
        }
    }

    /// Whether the slice has entries that were not copied for the file.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Marks the slice dirty, which is in the list of dirty slices by now.
    pub(crate) fn mark_dirty(&self, order: DataOrder) {
        if order == DataOrder::First {
            self.data_first.store(true, Ordering::Release);
        }
        self.written.store(true, Ordering::Release);
        self.dirty.store(true, Ordering::Release);
    }

    /// A copy of the bytes for the file; the slice is clean and pinned afterwards.
    ///
    /// Nobody publishes meanwhile: the caller holds the slice exclusively.
    pub(crate) fn take_copy(&self) -> SliceCopy {
        self.dirty.store(false, Ordering::Release);
        self.pins.fetch_add(1, Ordering::AcqRel);
        let values: [u64; ENTRIES] =
            std::array::from_fn(|i| self.entries[i].load(Ordering::Acquire).to_le());
        SliceCopy {
            home: self.home,
            bytes: values.as_bytes().into(),
            changed: std::array::from_fn(|i| self.changed[i].swap(0, Ordering::Relaxed)),
            order: if self.data_first.swap(false, Ordering::AcqRel) {
                DataOrder::First
            } else {
                DataOrder::Together
            },
        }
    }

    /// The copy with these slots did not get to the file.
    pub(crate) fn put_back(&self, changed: &SlotSet) {
        for (slots, more) in self.changed.iter().zip(changed) {
            slots.fetch_or(*more, Ordering::Relaxed);
        }
    }

    /// The copy is in the file, or has been given up.
    pub(crate) fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::AcqRel);
    }

    /// Notes a look at the slice, for the eviction.
    pub(crate) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the slice was looked at since the last call.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether the file has all that the slice has.
    pub(crate) fn is_evictable(&self) -> bool {
        !self.is_dirty() && self.pins.load(Ordering::Acquire) == 0
    }

    /// The bad slots, if this session wrote the slice.
    pub(crate) fn bad_if_written(&self) -> Option<BadSlots> {
        let bad = || std::array::from_fn(|i| self.bad[i].load(Ordering::Acquire));
        self.written.load(Ordering::Acquire).then(bad)
    }
}

/// What a flush writes for one slice.
#[derive(Debug)]
pub(crate) struct SliceCopy {
    pub(crate) home: HostOffset,
    pub(crate) bytes: Box<[u8]>,
    /// The slots that were published since the copy before.
    pub(crate) changed: SlotSet,
    /// [`DataOrder::First`] if an entry of the copy must not become durable before its data.
    pub(crate) order: DataOrder,
}

impl SliceCopy {
    /// The value of the slot with this number, `0..512`.
    pub(crate) fn value(&self, index: u64) -> u64 {
        let at = slot_index(index) * size_of::<u64>();
        let bytes = &self.bytes[at..at + size_of::<u64>()];
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }
}

fn slot_index(index: u64) -> usize {
    usize::try_from(index % SLICE_ENTRIES).expect("below 512")
}
