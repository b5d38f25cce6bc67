//! How far an image on a block device is known: whose length tells where space ends, and nothing of where
//! the image does.
//!
//! Whoever wrote the image last may have recorded the end, and the capacity that the device had then. That
//! is believed as far as no other program can have written behind it; beyond, a reader of all tables says
//! where they end. Knows no table and no superblock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use qed_spec::PhysicalSize;

/// What is known of the end of an image on a block device. Offsets and lengths are in bytes.
#[derive(Debug)]
pub(crate) struct DeviceEnd {
    /// Byte after the last that an entry which is read from the device may name, unless another program
    /// wrote it.
    recorded: AtomicU64,
    /// Bytes of the device of which it is known what tables name.
    known: AtomicU64,
    /// All of the device is known, and what it grows by is.
    follows: AtomicBool,
    /// Nothing is handed out before all tables were read.
    is_unknown: AtomicBool,
    /// They are being read.
    is_swept: AtomicBool,
}

impl DeviceEnd {
    /// Of an image on a device of `capacity` bytes, with what was recorded of it and is believed.
    // spec: QED-DEV-03, QED-DEV-05
    pub(crate) fn new(recorded: Option<PhysicalSize>, capacity: u64) -> Self {
        let known = recorded.map_or(0, |recorded| recorded.device_size());
        Self {
            recorded: AtomicU64::new(recorded.map_or(u64::MAX, |it| it.physical_size())),
            known: AtomicU64::new(known),
            follows: AtomicBool::new(known == capacity),
            is_unknown: AtomicBool::new(recorded.is_none()),
            is_swept: AtomicBool::new(false),
        }
    }

    /// Where space that was never handed out begins, as far as it was recorded.
    pub(crate) fn start(&self) -> u64 {
        match self.recorded.load(Ordering::Acquire) {
            u64::MAX => 0,
            recorded => recorded,
        }
    }

    /// An entry that was read names space up to `end`: behind what was recorded it is another program's,
    /// and there may be more of them.
    // spec: QED-DEV-06
    pub(crate) fn named(&self, end: u64) {
        if end > self.recorded.load(Ordering::Acquire) {
            self.is_unknown.store(true, Ordering::Release);
        }
    }

    /// All tables are about to be read, or no longer: nothing is handed out meanwhile.
    pub(crate) fn sweep(&self, begins: bool) {
        self.is_swept.store(begins, Ordering::Release);
    }

    pub(crate) fn is_swept(&self) -> bool {
        self.is_swept.load(Ordering::Acquire)
    }

    /// All tables were read, and name nothing behind what the caller hands out from now on, on a device of
    /// `capacity` bytes.
    // spec: QED-DEV-03
    pub(crate) fn found(&self, capacity: u64) {
        // What is read again of another program is no news.
        self.recorded.store(u64::MAX, Ordering::Release);
        self.known.fetch_max(capacity, Ordering::AcqRel);
        self.follows.store(true, Ordering::Release);
        self.is_unknown.store(false, Ordering::Release);
        self.sweep(false);
    }

    /// Whether it is not known where the image ends.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown.load(Ordering::Acquire)
    }

    /// Bytes of the device of which it is known what tables name: the capacity to record.
    pub(crate) fn known(&self) -> u64 {
        self.known.load(Ordering::Acquire)
    }

    /// Byte after the last that may be handed out.
    pub(crate) fn limit(&self) -> u64 {
        if self.is_unknown() || self.is_swept() { 0 } else { self.known() }
    }

    /// The device has `capacity` bytes by now; whether more may be handed out.
    pub(crate) fn has_grown(&self, capacity: u64) -> bool {
        let follows = self.follows.load(Ordering::Acquire) && self.limit() > 0;
        follows && self.known.fetch_max(capacity, Ordering::AcqRel) < capacity
    }

    /// Whether reading all tables would let more be handed out on a device of `capacity` bytes.
    pub(crate) fn wants_sweep(&self, capacity: u64) -> bool {
        self.is_unknown() || !self.follows.load(Ordering::Acquire) && self.known() < capacity
    }
}

#[cfg(test)]
mod tests {
    use qed_spec::{
        AutoclearFeatures, CompatFeatures, Features, Geometry, Header, HeaderFields, HostOffset,
    };

    use super::*;

    const CLUSTER: u64 = 4096;

    fn recorded(end: u64, device: u64) -> Option<PhysicalSize> {
        let fields = HeaderFields {
            geometry: Geometry::new(4096, 1).unwrap(),
            header_size_clusters: 1,
            features: Features::empty(),
            compat_features: CompatFeatures::empty(),
            autoclear_features: AutoclearFeatures::empty(),
            l1_table_offset: HostOffset::new(CLUSTER),
            image_size: CLUSTER,
        };
        let header = Header::new(fields, 2 * CLUSTER).unwrap();
        Some(PhysicalSize::new(end * CLUSTER, device * CLUSTER, &header).unwrap())
    }

    // spec-test: QED-DEV-03, QED-DEV-05
    #[test]
    fn space_behind_what_was_recorded_waits_for_all_tables() {
        let nothing = DeviceEnd::new(None, 8 * CLUSTER);
        assert_eq!((nothing.limit(), nothing.wants_sweep(8 * CLUSTER)), (0, true));
        assert!(!nothing.has_grown(9 * CLUSTER));

        let same = DeviceEnd::new(recorded(4, 8), 8 * CLUSTER);
        assert_eq!((same.limit(), same.wants_sweep(8 * CLUSTER)), (8 * CLUSTER, false));
        assert!(!same.has_grown(8 * CLUSTER));
        assert!(same.has_grown(9 * CLUSTER), "it is open here, so nobody else wrote");
        assert_eq!((same.limit(), same.known()), (9 * CLUSTER, 9 * CLUSTER));

        let grown = DeviceEnd::new(recorded(4, 8), 9 * CLUSTER);
        assert_eq!((grown.limit(), grown.wants_sweep(9 * CLUSTER)), (8 * CLUSTER, true));
        assert!(!grown.has_grown(10 * CLUSTER));

        for end in [nothing, same, grown] {
            end.found(10 * CLUSTER);
            assert_eq!((end.limit(), end.wants_sweep(11 * CLUSTER)), (10 * CLUSTER, false));
            assert!(end.has_grown(11 * CLUSTER));
        }
    }

    // spec-test: QED-DEV-06
    #[test]
    fn an_entry_behind_what_was_recorded_stops_allocation() {
        let end = DeviceEnd::new(recorded(4, 8), 8 * CLUSTER);
        end.named(4 * CLUSTER);
        assert!(!end.is_unknown());
        end.named(5 * CLUSTER);
        assert_eq!((end.limit(), end.known()), (0, 8 * CLUSTER));
        assert!(end.wants_sweep(8 * CLUSTER) && !end.has_grown(9 * CLUSTER));
        end.found(8 * CLUSTER);
        end.named(5 * CLUSTER);
        assert_eq!(end.limit(), 8 * CLUSTER);
    }
}
