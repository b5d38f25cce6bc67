//! Walking the mapping of a virtual disk from front to back without asking twice.

use qed_core::{BackingError, BackingFile, GuestExtent, GuestExtentKind};

/// Bytes of the virtual disk to ask about at once: bounds the time of one call. More and more while
/// there is nothing, since a disk may claim 2^63 bytes of it.
const REACH: u64 = 16 << 30;

/// The extent a walk is in.
#[derive(Debug)]
pub(crate) struct Extents<'a> {
    disk: &'a dyn BackingFile,
    start: u64,
    extent: Option<GuestExtent>,
    reach: u64,
}

impl<'a> Extents<'a> {
    pub(crate) fn of(disk: &'a dyn BackingFile) -> Self {
        Self { disk, start: 0, extent: None, reach: REACH }
    }

    /// The extent from `at`, which is inside the disk; never empty.
    pub(crate) fn at(&mut self, at: u64) -> Result<GuestExtent, BackingError> {
        if let Some(extent) = self.extent {
            let passed = at.checked_sub(self.start).filter(|passed| *passed < extent.len);
            if let Some(passed) = passed {
                return Ok(GuestExtent { len: extent.len - passed, ..extent });
            }
        }
        let max_len = self.reach.min(self.disk.len().saturating_sub(at));
        let mut extent = self.disk.extent_at(at, max_len)?;
        extent.len = extent.len.min(max_len);
        if extent.len == 0 {
            return Err(BackingError { offset: at, source: "the mapping ends here".into() });
        }
        let is_data =
            matches!(extent.kind, GuestExtentKind::Data { .. } | GuestExtentKind::Compressed);
        let is_short = is_data || extent.len < self.reach;
        self.reach = if is_short { REACH } else { self.reach.saturating_mul(2) };
        self.start = at;
        self.extent = Some(extent);
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

    impl BackingFile for Nothing {
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
