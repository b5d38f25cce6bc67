//! Names the first claim of what the kept findings say is claimed twice.

use std::collections::HashMap;

use qed_layout::PieceBuffer;

use crate::error::CheckError;
use crate::explain::l2_place;
use crate::finding::Place;
use crate::layout::Data;
use crate::metadata::Metadata;
use crate::report::FindingLog;
use crate::tables::Tables;

/// Fills in `first` of the findings that `log` lists as unnamed: the L2 table that holds the
/// cluster, else the first L2 entry in guest order that names it.
pub(crate) fn name(
    tables: &Tables<'_>,
    metadata: &Metadata,
    log: &mut FindingLog,
) -> Result<(), CheckError> {
    let mut owners = log.unnamed.iter().map(|(_, cluster)| (*cluster, None)).collect();
    name_tables(tables, &mut owners)?;
    name_data(tables, metadata, &mut owners)?;
    for (index, cluster) in log.unnamed.drain(..) {
        log.findings[index].first = owners.get(&cluster).copied().flatten();
    }
    Ok(())
}

fn name_tables(
    tables: &Tables<'_>,
    owners: &mut HashMap<u64, Option<Place>>,
) -> Result<(), CheckError> {
    if owners.is_empty() {
        return Ok(());
    }
    tables.for_each_l1(|l1, value| {
        for cluster in tables.layout.table(value).ok().flatten().into_iter().flatten() {
            if let Some(owner @ None) = owners.get_mut(&cluster) {
                *owner = Some(tables.layout.l1_place(l1));
            }
        }
        Ok(())
    })
}

fn name_data(
    tables: &Tables<'_>,
    metadata: &Metadata,
    owners: &mut HashMap<u64, Option<Place>>,
) -> Result<(), CheckError> {
    if owners.values().all(Option::is_some) {
        return Ok(());
    }
    let mut buffer = PieceBuffer::default();
    metadata.for_each_table(tables, |l1, start| {
        tables.reader.for_each(tables.l2_pieces(start), &mut buffer, |slot, value| {
            if let Ok(Data::Cluster(cluster)) = tables.layout.data(value)
                && let Some(owner @ None) = owners.get_mut(&cluster)
            {
                *owner = Some(l2_place(tables, l1, start, slot));
            }
            Ok(())
        })
    })
}
