//! Block status: what the extents of a disk are in the terms of the protocol.

use std::ops::ControlFlow;

use super::reply::{MetaContext, Status};
use super::wire::allocation;
use crate::device::{Allocation, BlockDevice, DeviceError, Extent};

/// How many extents are looked at for one answer. A client asks again from where it ends.
const MAX_EXTENTS: usize = 4096;

/// The statuses of a range, for each context; a list ends where the range does or earlier.
pub(super) struct Statuses([Vec<Status>; MetaContext::ALL.len()]);

impl Statuses {
    /// Looks at the extents of a range, which is not empty.
    pub(super) fn of(
        device: &dyn BlockDevice,
        at: u64,
        len: u64,
        one_extent: bool,
    ) -> Result<Self, DeviceError> {
        let mut lists = [Vec::new(), Vec::new()];
        let mut seen = 0;
        device.each_extent(at..at + len, &mut |extent| {
            for (list, context) in lists.iter_mut().zip(MetaContext::ALL) {
                append(list, Status { len: extent.len, flags: flags(context, extent) });
            }
            seen += 1;
            let told = one_extent && lists.iter().all(|list| list.len() > 1);
            if told || seen == MAX_EXTENTS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if one_extent {
            lists.iter_mut().for_each(|list| list.truncate(1));
        }
        Ok(Self(lists))
    }

    pub(super) fn list(&self, of: MetaContext) -> &[Status] {
        let [allocation, depth] = &self.0;
        match of {
            MetaContext::Allocation => allocation,
            MetaContext::Depth => depth,
        }
    }
}

fn append(list: &mut Vec<Status>, status: Status) {
    match list.last_mut() {
        Some(last) if last.flags == status.flags => last.len += status.len,
        _ => list.push(status),
    }
}

fn flags(context: MetaContext, extent: Extent) -> u32 {
    match (context, extent.allocation) {
        (MetaContext::Depth, _) => extent.depth,
        (MetaContext::Allocation, Allocation::Data) => 0,
        (MetaContext::Allocation, Allocation::Zero) => allocation::ZERO,
        (MetaContext::Allocation, Allocation::Hole) => allocation::HOLE | allocation::ZERO,
    }
}
