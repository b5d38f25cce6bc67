//! The extents of a virtual disk in order, joined where they go on alike.

use std::ops::Range;
use std::sync::Arc;

use qed_convert::chain::Layer;
use qed_core::{Extents, GuestExtent, GuestExtentKind, VirtualDisk};

use crate::chain::Disk;
use crate::open::virtual_size;

/// The virtual disk that is mapped.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) disk: Arc<dyn VirtualDisk>,
    /// The images that are mapped, the one that was named first.
    pub(super) layers: Vec<Layer>,
    /// Bytes of the virtual disk of each.
    lens: Vec<u64>,
}

impl Mapping {
    /// The mapping of a disk through its whole chain.
    pub(super) fn of(Disk { disk, layers }: Disk) -> anyhow::Result<Self> {
        let lens = layers.iter().map(virtual_size).collect::<anyhow::Result<_>>()?;
        Ok(Self { disk, layers, lens })
    }
}

/// An extent as `map` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) start: u64,
    pub(super) len: u64,
    /// Image of the chain that decides.
    pub(super) depth: usize,
    pub(super) kind: GuestExtentKind,
}

/// Calls `show` for each extent in `range`.
pub(super) fn for_each_extent(
    mapping: &Mapping,
    range: Range<u64>,
    mut show: impl FnMut(&Mapped) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut last: Option<Mapped> = None;
    let mut extents = Extents::of(&*mapping.disk);
    let mut at = range.start;
    while at < range.end {
        let mut next = mapped(mapping, at, extents.at(at)?);
        next.len = next.len.min(range.end - at);
        at += next.len;
        if let Some(open) = &mut last
            && open.goes_on_with(&next)
        {
            open.len += next.len;
            continue;
        }
        if let Some(open) = last.replace(next) {
            show(&open)?;
        }
    }
    last.map_or(Ok(()), |open| show(&open))
}

fn mapped(mapping: &Mapping, at: u64, extent: GuestExtent) -> Mapped {
    let mut mapped = Mapped {
        start: at,
        len: extent.len,
        depth: usize::try_from(extent.depth).unwrap_or(usize::MAX),
        kind: extent.kind,
    };
    let len_below = |depth: usize| mapping.lens.get(depth).copied().unwrap_or(u64::MAX);
    // Past the end of a backing file it is the image above that has nothing there.
    while mapped.depth > 0 && at >= len_below(mapped.depth) {
        mapped.depth -= 1;
        mapped.kind = GuestExtentKind::Unallocated;
    }
    mapped
}

impl Mapped {
    fn goes_on_with(&self, next: &Self) -> bool {
        use GuestExtentKind::{Compressed, Data, Hole, Unallocated, Zero};
        let alike = match (self.kind, next.kind) {
            (Data { host_offset }, Data { host_offset: next })
            | (Hole { host_offset }, Hole { host_offset: next }) => {
                host_offset.checked_add(self.len) == Some(next)
            }
            (Compressed, Compressed) | (Zero, Zero) | (Unallocated, Unallocated) => true,
            _ => false,
        };
        alike && self.depth == next.depth
    }
}
