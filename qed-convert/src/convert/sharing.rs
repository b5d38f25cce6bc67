//! Which runs of the source the target can share instead of copying them: whole clusters that lie in a
//! file of the target's file system, at places that differ by whole units of it.
//!
//! Shares nothing itself.

use std::ops::Range;

use qed_core::{GuestExtent, GuestExtentKind, VirtualDisk};
use qed_io::Storage;

use crate::target::{Shape, Sink};

/// Shorter runs are copied: the call takes as long as to write some.
const MIN_LEN: u64 = 64 << 10;

pub(crate) struct Sharing<'a> {
    source: &'a dyn VirtualDisk,
    sink: &'a dyn Sink,
    shape: Shape,
    /// What the sink said of each file.
    units: Vec<(&'a dyn Storage, Option<u64>)>,
}

impl<'a> Sharing<'a> {
    pub(crate) fn new(source: &'a dyn VirtualDisk, sink: &'a dyn Sink, shape: Shape) -> Self {
        Self { source, sink, shape, units: Vec::new() }
    }

    /// The first part of `extent`, which begins at guest byte `at`, that can be shared, and where it
    /// lies in the file; within one table of the target.
    pub(crate) fn part(&mut self, at: u64, extent: &GuestExtent) -> Option<(Range<u64>, u64)> {
        let GuestExtentKind::Data { host_offset } = extent.kind else { return None };
        if extent.len < MIN_LEN {
            return None;
        }
        let storage = self.source.data_storage(at, extent.depth)?;
        let unit = self.unit(&**storage)?;
        if !at.abs_diff(host_offset).is_multiple_of(unit) {
            return None;
        }
        let grain = unit.max(self.shape.cluster_len);
        let start = at.checked_next_multiple_of(grain)?;
        let reach = self.shape.table_reach;
        let end = (at + extent.len).min((start - start % reach).saturating_add(reach));
        let end = end - end % grain;
        let is_worth_it = end.checked_sub(start).is_some_and(|len| len >= MIN_LEN);
        is_worth_it.then(|| (start..end, host_offset + (start - at)))
    }

    fn unit(&mut self, storage: &'a dyn Storage) -> Option<u64> {
        let known = self.units.iter().find(|(known, _)| std::ptr::addr_eq(*known, storage));
        if let Some((_, unit)) = known {
            return *unit;
        }
        let unit = self.sink.sharing_unit(storage);
        self.units.push((storage, unit));
        unit
    }
}
