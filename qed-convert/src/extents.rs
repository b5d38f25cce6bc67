//! Walking the mapping of a virtual disk from front to back without asking twice.

use qed_core::{BackingError, BackingFile, GuestExtent};

/// Bytes of the virtual disk to ask about at once: bounds the time of one call.
const REACH: u64 = 16 << 30;

/// The extent a walk is in.
#[derive(Debug)]
pub(crate) struct Extents<'a> {
    disk: &'a dyn BackingFile,
    start: u64,
    extent: Option<GuestExtent>,
}

impl<'a> Extents<'a> {
    pub(crate) fn of(disk: &'a dyn BackingFile) -> Self {
        Self { disk, start: 0, extent: None }
    }

    /// The extent from `at`, which is inside the disk; never empty.
    pub(crate) fn at(&mut self, at: u64) -> Result<GuestExtent, BackingError> {
        if let Some(extent) = self.extent {
            let passed = at.checked_sub(self.start).filter(|passed| *passed < extent.len);
            if let Some(passed) = passed {
                return Ok(GuestExtent { len: extent.len - passed, ..extent });
            }
        }
        let max_len = REACH.min(self.disk.len().saturating_sub(at));
        let mut extent = self.disk.extent_at(at, max_len)?;
        extent.len = extent.len.min(max_len);
        if extent.len == 0 {
            return Err(BackingError { offset: at, source: "the mapping ends here".into() });
        }
        self.start = at;
        self.extent = Some(extent);
        Ok(extent)
    }
}
