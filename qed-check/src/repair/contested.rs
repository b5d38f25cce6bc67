//! Refuses to change bytes that one entry calls an L2 table and another one guest data.
//!
//! An L1 slot that went astray may name anything: what looks like bad entries is a guest's data then,
//! and mending them would destroy it.

use qed_layout::{ClusterSet, PieceBuffer};
use qed_spec::L1Index;

use crate::error::CheckError;
use crate::layout::Data;
use crate::metadata::{self, Metadata};
use crate::report::FindingLog;
use crate::tables::Tables;

/// Refuses an image in which a repair would have to change an entry in a cluster that another
/// entry names as data. Writes nothing.
// spec: QED-CHK-09
pub(super) fn refuse(tables: &Tables<'_>) -> Result<(), CheckError> {
    let (metadata, claimed) = metadata::claim(tables, &mut FindingLog::new(0))?;
    let contested = find(tables, &claimed)?;
    if contested.is_empty() {
        return Ok(());
    }
    for_each_kept(tables, |l1, start, slot, value| {
        let at = tables.layout.offset_of(start).get() + slot * 8;
        let cluster = at >> tables.layout.cluster_bits();
        let changes = is_changed(tables, &metadata, &claimed, l1, slot, value)?;
        if changes && contested.contains(cluster) {
            return Err(CheckError::TableOrData { at: tables.layout.offset_of(cluster), l1 });
        }
        Ok(())
    })
}

/// The clusters of tables that L2 entries name.
fn find(tables: &Tables<'_>, claimed: &ClusterSet) -> Result<ClusterSet, CheckError> {
    let contested = ClusterSet::new(tables.layout.clusters, claimed.budget_bytes());
    for_each_kept(tables, |_, _, _, value| {
        if let Ok(Data::Cluster(cluster)) = tables.layout.data(value)
            && claimed.contains(cluster)
        {
            contested.insert(cluster..cluster + 1)?;
        }
        Ok(())
    })?;
    Ok(contested)
}

/// Whether a repair gives an entry another value where it lies: clears it, or makes it name a copy.
fn is_changed(
    tables: &Tables<'_>,
    metadata: &Metadata,
    claimed: &ClusterSet,
    l1: L1Index,
    slot: u64,
    value: u64,
) -> Result<bool, CheckError> {
    let Ok(data) = tables.layout.data(value) else { return Ok(true) };
    // The table gets a copy, in which the rest is done.
    if metadata.is_rejected(l1) {
        return Ok(false);
    }
    let is_beyond = slot >= tables.layout.entries_in_image(l1);
    Ok(match data {
        Data::Cluster(cluster) => claimed.insert(cluster..cluster + 1)?.is_some() || is_beyond,
        Data::None | Data::Zero => is_beyond,
    })
}

/// Calls `each` with L1 slot, first cluster, slot and value of every entry of a table that stays.
fn for_each_kept(
    tables: &Tables<'_>,
    mut each: impl FnMut(L1Index, u64, u64, u64) -> Result<(), CheckError>,
) -> Result<(), CheckError> {
    let mut buffer = PieceBuffer::default();
    tables.for_each_l1(|l1, value| match tables.layout.table(value) {
        Ok(Some(table)) if !tables.layout.is_beyond_image(l1) => {
            let pieces = tables.l2_pieces(table.start);
            tables
                .reader
                .for_each(pieces, &mut buffer, |slot, value| each(l1, table.start, slot, value))
        }
        _ => Ok(()),
    })
}
