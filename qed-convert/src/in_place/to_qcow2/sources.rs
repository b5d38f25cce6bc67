//! What a QED image refers to, as QCOW2 counts it.
//!
//! Reads mappings through `qed-core`, which vets each entry; knows nothing of what is written.

use std::ops::Range;

use crate::in_place::error::{InPlaceError, Refusal};
use qed_core::{ExtentKind, ImageError, ReadOnlyImage};
use qed_layout::ClusterSet;
use qed_spec::GuestOffset;

/// What an L2 table of QCOW2 says of a run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Data(u64),
    Zero,
}

/// Calls `visit` with each mapped run of `range`, in order: where it is in the virtual disk, its
/// length, and where it is in the file.
pub(super) fn for_each_run<E: From<ImageError>>(
    image: &ReadOnlyImage,
    range: Range<u64>,
    mut visit: impl FnMut(u64, u64, Source) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = range.start;
    while at < range.end {
        let extent = image.map(GuestOffset::new(at), range.end - at)?;
        match extent.kind {
            ExtentKind::Data(host) => visit(at, extent.len, Source::Data(host.get()))?,
            ExtentKind::Zero => visit(at, extent.len, Source::Zero)?,
            ExtentKind::Unallocated => {}
        }
        at += extent.len;
    }
    Ok(())
}

/// All that the new image takes over: its clusters with the header and with data, each named once
/// and numbered by the new cluster size, and the number of L2 tables that map them.
pub(super) struct Found {
    pub(super) clusters: ClusterSet,
    pub(super) tables: u64,
}

impl Found {
    /// Reads every table of the image.
    pub(super) fn scan(
        image: &ReadOnlyImage,
        cluster_len: u64,
        file_clusters: u64,
    ) -> Result<Self, InPlaceError> {
        let mut found = Self { clusters: ClusterSet::unlimited(file_clusters), tables: 0 };
        let claim = |run| found.clusters.insert(run).expect("a set without a limit");
        claim(0..1);
        let reach = cluster_len / 8 * cluster_len;
        let mut last_table = None;
        for_each_run(image, 0..image.image_size(), |at, len, source| {
            for table in at / reach..(at + len).div_ceil(reach) {
                found.tables += u64::from(last_table.is_none_or(|last| last < table));
                last_table = Some(table);
            }
            let Source::Data(host) = source else { return Ok(()) };
            match claim(host / cluster_len..(host + len).div_ceil(cluster_len)) {
                Some(cluster) => {
                    let host = cluster * cluster_len;
                    Err(InPlaceError::from(Refusal::SharedCluster { host }))
                }
                None => Ok(()),
            }
        })?;
        Ok(found)
    }
}
