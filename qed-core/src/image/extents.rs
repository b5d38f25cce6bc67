//! Walking a virtual disk from front to back: where each run of its bytes lies, and which mapped
//! clusters are holes of their file.
//!
//! No table is asked twice. The one place that asks files for holes; reads neither tables nor data.

mod holes;

use qed_spec::ErrorKind;

use crate::data::disk::{BackingError, GuestExtent, GuestExtentKind, VirtualDisk};
use holes::Files;

/// Bytes of the virtual disk to ask about at once: bounds the time of one call. More and more while
/// there is nothing, since a disk may claim 2^63 bytes of it.
const REACH: u64 = 16 << 30;

/// One walk over a disk that nobody changes meanwhile: what is written after its part was looked at
/// may be missed.
///
/// As [`VirtualDisk::extent_at`], and mapped bytes that the file does not store are
/// [`GuestExtentKind::Hole`]: a preallocated image is mostly that. A file that takes nearly all of
/// its length is not asked.
#[derive(Debug)]
pub struct Extents<'a> {
    disk: &'a dyn VirtualDisk,
    start: u64,
    mapped: Option<GuestExtent>,
    reach: u64,
    files: Files<'a>,
}

impl<'a> Extents<'a> {
    /// Starts a walk; any order of places is allowed, an ascending one is fast.
    #[must_use]
    pub fn of(disk: &'a dyn VirtualDisk) -> Self {
        Self { disk, start: 0, mapped: None, reach: REACH, files: Files::default() }
    }

    /// The disk that is walked.
    #[must_use]
    pub fn disk(&self) -> &'a dyn VirtualDisk {
        self.disk
    }

    /// The extent from `at`, which is inside the disk; never empty.
    ///
    /// # Errors
    /// What kept the tables from being read.
    pub fn at(&mut self, at: u64) -> Result<GuestExtent, BackingError> {
        // In this order: what was written before the mapping was read is no hole by now.
        let extent = self.mapped_at(at)?;
        let GuestExtentKind::Data { host_offset } = extent.kind else { return Ok(extent) };
        let Some(storage) = self.disk.data_storage(at, extent.depth) else { return Ok(extent) };
        let (len, is_hole) = self.files.run(&**storage, host_offset);
        let kind = if is_hole { GuestExtentKind::Hole { host_offset } } else { extent.kind };
        Ok(GuestExtent { len: extent.len.min(len), kind, ..extent })
    }

    /// The extent from `at` as the tables have it.
    fn mapped_at(&mut self, at: u64) -> Result<GuestExtent, BackingError> {
        if let Some(extent) = self.mapped {
            let passed = at.checked_sub(self.start).filter(|passed| *passed < extent.len);
            if let Some(passed) = passed {
                return Ok(extent.rest(passed));
            }
        }
        let max_len = self.reach.min(self.disk.len().saturating_sub(at));
        let mut extent = self.disk.extent_at(at, max_len)?;
        extent.len = extent.len.min(max_len);
        if extent.len == 0 {
            return Err(BackingError::new(at, ErrorKind::Corrupt, "the mapping ends here"));
        }
        let is_short = extent.kind.is_stored() || extent.len < self.reach;
        self.reach = if is_short { REACH } else { self.reach.saturating_mul(2) };
        self.start = at;
        self.mapped = Some(extent);
        Ok(extent)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A disk of 2^63 - 512 bytes of nothing, which counts how often it is asked.
    #[derive(Debug, Default)]
    struct Nothing(AtomicU32);

    impl VirtualDisk for Nothing {
        fn len(&self) -> u64 {
            (1 << 63) - 512
        }

        fn read_at(&self, _buf: &mut [u8], _offset: u64) -> Result<(), BackingError> {
            panic!("there is nothing to read")
        }

        fn extent_at(&self, _offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(GuestExtent { len: max_len, depth: 0, kind: GuestExtentKind::Unallocated })
        }
    }

    #[test]
    fn a_disk_that_claims_to_be_huge_is_walked_in_few_steps() {
        let disk = Nothing::default();
        let mut extents = Extents::of(&disk);
        let mut at = 0;
        while at < disk.len() {
            at += extents.at(at).unwrap().len;
        }
        assert_eq!(at, disk.len());
        assert!(disk.0.into_inner() < 64);
    }
}
