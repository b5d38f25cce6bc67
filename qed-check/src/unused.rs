//! Clusters that nothing names: free space, leaks and the partial tail.

use qed_layout::ClusterSet;

use crate::finding::{Finding, FindingKind, Place};
use crate::report::FindingLog;
use crate::tables::Tables;

/// What is not in use, besides what was reported.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unused {
    /// Cluster after the last one in use.
    pub(crate) named_end: u64,
    /// Cluster after the last one that counts as the image's.
    pub(crate) space_end: u64,
    /// Whole clusters that the next writer uses; none in an image where they are leaks.
    pub(crate) free: Option<u64>,
}

/// Reports what is not in `used`.
///
/// Of a block device only what was handed out once counts: its length cannot follow the image's.
// spec: QED-CHK-02, QED-CHK-03, QED-CONV-04
pub(crate) fn report(tables: &Tables<'_>, used: &ClusterSet, log: &mut FindingLog) -> Unused {
    let (layout, space) = (&tables.layout, &tables.space);
    let (mut named_end, mut space_end, mut free) = (layout.clusters, layout.clusters, 0);
    for mut gap in used.gaps(layout.clusters) {
        let mut kind = FindingKind::LeakInside;
        if gap.end == layout.clusters {
            gap.end = space.end(&gap);
            (named_end, space_end) = (gap.start, gap.end);
            if space.ends_with_file() {
                kind = FindingKind::LeakAtEnd;
            }
        }
        let mut add = |kind, from: u64, to: u64| {
            if from < to {
                let place = Place::Clusters { at: layout.offset_of(from), count: to - from };
                log.add(Finding { kind, place, value: 0, first: None });
            }
        };
        // What undoes a conversion is neither.
        let start = gap.start.max(tables.held_end).min(gap.end);
        let whole = gap.end.min(layout.whole_clusters);
        if space.is_free {
            free += whole.saturating_sub(start);
        } else {
            add(kind, start, whole);
        }
        add(FindingKind::UnusedPartialTail, whole.max(start), gap.end);
    }
    Unused { named_end, space_end, free: space.is_free.then_some(free) }
}
