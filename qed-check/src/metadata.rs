//! The clusters that hold metadata, and which L1 slots are believed.
//!
//! Owns the judgement on L1 entries; L2 entries are judged by `scan` and `explain`.

use std::ops::Range;

use qed_layout::ClusterSet;
use qed_spec::L1Index;

use crate::error::CheckError;
use crate::finding::{Finding, FindingKind, Place};
use crate::layout::Layout;
use crate::report::FindingLog;
use crate::tables::Tables;

/// Memory that the map of clusters in use may always take: enough for 8 TiB at 64 KiB clusters.
const MAP_BASE_BYTES: u64 = 16 << 20;

/// What the L1 table says, judged.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// Whether no L1 entry breaks a rule.
    pub(crate) sound: bool,
    /// L1 slots whose table overlaps that of an earlier slot. Their tables are not walked: what
    /// they name is named by the earlier table, or by what a repair makes of a copy.
    rejected: ClusterSet,
}

impl Metadata {
    /// Calls `each` with every L1 slot that names a table to walk and the table's first cluster.
    pub(crate) fn for_each_table(
        &self,
        tables: &Tables<'_>,
        mut each: impl FnMut(L1Index, u64) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        tables.for_each_l1(|l1, value| match tables.layout.table(value) {
            Ok(Some(table)) if !self.is_rejected(l1) => each(l1, table.start),
            _ => Ok(()),
        })
    }

    /// Calls `each` with the bytes of every table to walk, its holes left out.
    fn for_each_table_len(
        &self,
        tables: &Tables<'_>,
        mut each: impl FnMut(u64) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        self.for_each_table(tables, |_, start| {
            tables.l2_pieces(start).try_for_each(|piece| each(piece?.len as u64))
        })
    }

    /// Refuses tables of more than `limit` bytes.
    pub(crate) fn refuse_more_than(
        &self,
        tables: &Tables<'_>,
        limit: u64,
    ) -> Result<(), CheckError> {
        let mut bytes = 0_u64;
        self.for_each_table_len(tables, |len| {
            bytes = bytes.saturating_add(len);
            if bytes > limit { Err(CheckError::TablesLimit { limit }) } else { Ok(()) }
        })
    }

    /// Whether the table of an L1 slot overlaps that of an earlier one.
    pub(crate) fn is_rejected(&self, l1: L1Index) -> bool {
        self.rejected.contains(l1.get())
    }

    /// Calls `each` with every L1 slot whose table overlaps that of an earlier slot, and the
    /// table's clusters.
    pub(crate) fn for_each_rejected(
        &self,
        tables: &Tables<'_>,
        mut each: impl FnMut(L1Index, Range<u64>) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        tables.for_each_l1(|l1, value| match tables.layout.table(value) {
            Ok(Some(table)) if self.is_rejected(l1) => each(l1, table),
            _ => Ok(()),
        })
    }
}

/// A map of the clusters of all metadata, with room for the rest; reports every L1 entry that
/// breaks a rule.
pub(crate) fn claim(
    tables: &Tables<'_>,
    log: &mut FindingLog,
) -> Result<(Metadata, ClusterSet), CheckError> {
    let layout = &tables.layout;
    let slots = layout.header.geometry().table_entries();
    let mut claimed = ClusterSet::new(layout.clusters, MAP_BASE_BYTES);
    let starts = ClusterSet::new(layout.clusters, MAP_BASE_BYTES);
    let mut metadata =
        Metadata { sound: true, rejected: ClusterSet::new(slots, ClusterSet::full_bytes(slots)) };
    for (_, root) in layout.roots.all() {
        claimed.insert(layout.clusters_of(&root))?;
    }
    tables.for_each_l1(|l1, value| {
        let judged = match layout.table(value) {
            Ok(None) => return Ok(()),
            Ok(Some(table)) => claim_table(layout, &claimed, &starts, l1, table)?,
            Err(kind) => Some((kind, None)),
        };
        let Some((kind, contested)) = judged else {
            return Ok(());
        };
        metadata.sound = false;
        let place = layout.l1_place(l1);
        let finding = Finding { kind, place, value, first: fixed_owner(kind) };
        match contested {
            Some(cluster) => {
                metadata.rejected.insert(l1.get()..l1.get() + 1)?;
                log.add_claimed(finding, cluster);
            }
            None => log.add(finding),
        }
        Ok(())
    })?;
    claimed.set_budget(budget_bytes(tables, &metadata)?);
    Ok((metadata, claimed))
}

/// The rule that the slot breaks and, if its table overlaps another, the first cluster in question.
// spec: QED-TBL-06, QED-TBL-08
fn claim_table(
    layout: &Layout,
    claimed: &ClusterSet,
    starts: &ClusterSet,
    l1: L1Index,
    table: Range<u64>,
) -> Result<Option<(FindingKind, Option<u64>)>, CheckError> {
    if let Some(cluster) = claimed.insert(table.clone())? {
        let shared = starts.contains(table.start);
        let kind = if shared { FindingKind::L1SharedTable } else { FindingKind::L1OverlapsTable };
        return Ok(Some((kind, Some(cluster))));
    }
    starts.insert(table.start..table.start + 1)?;
    Ok(if layout.is_cut_off(&table) {
        Some((FindingKind::L1InPartialTail, None))
    } else if layout.is_beyond_image(l1) {
        Some((FindingKind::L1BeyondImage, None))
    } else {
        None
    })
}

/// What the tables of an image justify for one map: the base, or for a file too long for that, half
/// a byte for every entry that is there.
///
/// A sound image has at most a few clusters of the file for every entry. A sparse file costs its
/// author nothing, so its length alone must not decide how much memory it gets.
fn budget_bytes(tables: &Tables<'_>, metadata: &Metadata) -> Result<u64, CheckError> {
    if ClusterSet::full_bytes(tables.layout.clusters) <= MAP_BASE_BYTES {
        return Ok(MAP_BASE_BYTES);
    }
    let mut bytes = 0;
    metadata.for_each_table_len(tables, |len| {
        bytes += len;
        Ok(())
    })?;
    Ok(MAP_BASE_BYTES.saturating_add(bytes / 16))
}

/// The owner of what an entry of this kind runs into, where the kind alone says so.
pub(crate) fn fixed_owner(kind: FindingKind) -> Option<Place> {
    match kind {
        FindingKind::L1IntoHeader | FindingKind::L2IntoHeader => Some(Place::HeaderArea),
        FindingKind::L1IntoL1Table | FindingKind::L2IntoL1Table => Some(Place::L1Table),
        _ => None,
    }
}
