//! The slow pass over all L2 tables, in guest order: says which entries break which rule.
//!
//! Runs only for images that the fast pass found unsound. The first claim of a cluster is named by
//! `owners`.

use qed_layout::{ClusterSet, PieceBuffer};
use qed_spec::{HostOffset, L1Index, L2Index};

use crate::error::CheckError;
use crate::finding::{Finding, FindingKind, Place};
use crate::layout::Data;
use crate::metadata::{self, Metadata, fixed_owner};
use crate::report::FindingLog;
use crate::tables::Tables;

/// Reports every L2 entry that breaks a rule. `claimed` is empty to begin with.
pub(crate) fn run(
    tables: &Tables<'_>,
    metadata: &Metadata,
    claimed: &ClusterSet,
    log: &mut FindingLog,
) -> Result<(), CheckError> {
    let (_, in_tables) = metadata::claim(tables, &mut FindingLog::new(0))?;
    let mut buffer = PieceBuffer::default();
    metadata.for_each_table(tables, |l1, start| {
        let in_image = tables.layout.entries_in_image(l1);
        tables.reader.for_each(tables.l2_pieces(start), &mut buffer, |slot, value| {
            let judged = judge(tables, &in_tables, claimed, value, slot >= in_image)?;
            if let Some((kind, contested)) = judged {
                let place = l2_place(tables, l1, start, slot);
                let finding = Finding { kind, place, value, first: fixed_owner(kind) };
                match contested {
                    Some(cluster) => log.add_claimed(finding, cluster),
                    None => log.add(finding),
                }
            }
            Ok(())
        })
    })
}

/// The rule that an entry breaks, the gravest first, and the cluster if another claims it too.
// spec: QED-TBL-08
fn judge(
    tables: &Tables<'_>,
    in_tables: &ClusterSet,
    claimed: &ClusterSet,
    value: u64,
    is_beyond: bool,
) -> Result<Option<(FindingKind, Option<u64>)>, CheckError> {
    let beyond = is_beyond.then_some((FindingKind::L2BeyondImage, None));
    let cluster = match tables.layout.data(value) {
        Ok(Data::None) => return Ok(None),
        Ok(Data::Zero) => return Ok(beyond),
        Ok(Data::Cluster(cluster)) => cluster,
        Err(kind) => return Ok(Some((kind, None))),
    };
    let run = cluster..cluster + 1;
    Ok(if in_tables.contains(cluster) {
        Some((FindingKind::L2IntoL2Table, Some(cluster)))
    } else if claimed.insert(run.clone())?.is_some() {
        Some((FindingKind::L2Duplicate, Some(cluster)))
    } else if tables.layout.is_cut_off(&run) {
        Some((FindingKind::L2InPartialTail, None))
    } else {
        beyond
    })
}

/// The place of a slot of the L2 table that starts at cluster `start`.
pub(crate) fn l2_place(tables: &Tables<'_>, l1: L1Index, start: u64, slot: u64) -> Place {
    let at = HostOffset::new(tables.layout.offset_of(start).get() + slot * 8);
    Place::L2Slot { l1, l2: L2Index::new(slot), at }
}
