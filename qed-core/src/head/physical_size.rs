//! The section PHYSICAL_SIZE of an open image on a block device: where the image ends, and how large the
//! device was when that was known.
//!
//! Knows what the file says and what to write, not when: before an entry at or above the recorded end may
//! be durable, and with nothing in flight to lower it. The steps are the callers'.

use std::io;

use qed_io::{Growth, Storage};
use qed_spec::{AutoclearFeatures, HostOffset, PhysicalSize, SectionType};

use crate::error::{ImageError, IoAction};
use crate::head::Head;

/// The recorded end is raised by this many bytes at a time, or by this many clusters if that is more.
const STEP_BYTES: u64 = 64 << 20;
const STEP_CLUSTERS: u64 = 64;

/// What the superblock of an image on a block device says of its end.
#[derive(Debug)]
pub(crate) struct RecordedEnd {
    /// Of the section as the file has it, or will have it after a flush; none where it has none that is
    /// believed.
    stored: Option<PhysicalSize>,
}

/// What is found in an image on a block device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnDevice {
    /// The recorded end, where it is believed.
    pub(crate) believed: Option<PhysicalSize>,
}

impl OnDevice {
    /// Whether the image in `storage`, of `len` bytes, lies on a block device; and whether what was
    /// `found` in its superblock can be so: a device that has shrunk since may have grown before, and
    /// another program may have written it in between.
    // spec: QED-DEV-03, QED-DEV-05
    pub(crate) fn of(storage: &dyn Storage, len: u64, found: Option<PhysicalSize>) -> Option<Self> {
        let believed = found.filter(|found| found.device_size() <= len);
        (storage.growth() == Growth::Stale).then_some(Self { believed })
    }

    /// The autoclear bit, where it stays set.
    pub(crate) fn kept_bits(self) -> AutoclearFeatures {
        match self.believed {
            Some(_) => AutoclearFeatures::PHYSICAL_SIZE,
            None => AutoclearFeatures::empty(),
        }
    }
}

impl RecordedEnd {
    pub(crate) fn new(found: OnDevice) -> Self {
        Self { stored: found.believed }
    }

    /// Raises what is recorded where it is below `end`, or says less than `known` of the device; whether
    /// the superblock was written. Durable after a flush, and then [`RecordedEnd::believe`].
    // spec: QED-DEV-01
    pub(crate) fn cover(
        &mut self,
        head: &Head,
        (end, known): (u64, u64),
    ) -> Result<bool, ImageError> {
        let says = |it: PhysicalSize| it.physical_size() >= end && it.device_size() == known;
        if self.stored.is_some_and(says) {
            return Ok(false);
        }
        let cluster = head.header().geometry().cluster_size_bytes();
        let step = STEP_BYTES.max(STEP_CLUSTERS * cluster);
        let most = known - known % cluster;
        self.write(head, (end + step).min(most).max(end), known)
    }

    /// Lowers what is recorded to `end`, behind which nothing is named or ever will be by this session;
    /// whether the superblock was written.
    pub(crate) fn settle(
        &mut self,
        head: &Head,
        (end, known): (u64, u64),
    ) -> Result<bool, ImageError> {
        let says = |it: PhysicalSize| (it.physical_size(), it.device_size()) == (end, known);
        if self.stored.is_some_and(says) { Ok(false) } else { self.write(head, end, known) }
    }

    /// Sets the autoclear bit, if it is not set. The section is durable.
    pub(crate) fn believe(&self, head: &Head) -> Result<(), ImageError> {
        let bit = AutoclearFeatures::PHYSICAL_SIZE;
        if head.header().fields().autoclear_features.contains(bit) {
            return Ok(());
        }
        head.update(|fields| fields.autoclear_features |= bit)
    }

    fn write(&mut self, head: &Head, end: u64, known: u64) -> Result<bool, ImageError> {
        // What is handed out lies behind the L1 table and on the device, or nothing would be.
        let size = PhysicalSize::new(end, known, &head.header()).map_err(io::Error::other);
        let size = size.map_err(ImageError::io(IoAction::WriteHeader, HostOffset::new(end)))?;
        head.set_section(SectionType::PHYSICAL_SIZE, &size.encode())?;
        self.stored = Some(size);
        Ok(true)
    }
}
