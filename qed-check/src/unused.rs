//! Clusters of the file that nothing names: leaks and the partial tail.

use qed_io::Growth;
use qed_layout::ClusterSet;

use crate::finding::{Finding, FindingKind, Place};
use crate::report::FindingLog;
use crate::tables::Tables;

/// Reports what is not in `used`; returns the cluster after the last one that is.
///
/// The rest of a block device is free space, not a leak: its length cannot follow the image's.
// spec: QED-CHK-02, QED-CHK-03, QED-CONV-04
pub(crate) fn report(tables: &Tables<'_>, used: &ClusterSet, log: &mut FindingLog) -> u64 {
    let layout = &tables.layout;
    let mut end = layout.clusters;
    for gap in used.gaps(layout.clusters) {
        let at_end = gap.end == layout.clusters;
        if at_end {
            end = gap.start;
        }
        if at_end && tables.storage.growth() == Growth::Stale {
            continue;
        }
        let mut add = |kind, from: u64, to: u64| {
            if from < to {
                let place = Place::Clusters { at: layout.offset_of(from), count: to - from };
                log.add(Finding { kind, place, value: 0, first: None });
            }
        };
        // What undoes a conversion is no leak.
        let start = gap.start.max(tables.held_end).min(gap.end);
        let whole = gap.end.min(layout.whole_clusters);
        let kind = if at_end { FindingKind::LeakAtEnd } else { FindingKind::LeakInside };
        add(kind, start, whole);
        add(FindingKind::UnusedPartialTail, whole.max(start), gap.end);
    }
    end
}
