//! Reading a QCOW2 image before anything is written: every cluster has one use, and how much there
//! is of what.

use qed_io::Storage;
use qed_spec::Geometry;

use super::claims::Claims;
use super::refcounts::blocks;
use crate::in_place::error::{InPlaceError, Refusal};
use crate::qcow2::{Cluster, ClusterKind, Qcow2Header, References};

/// What the tables of an image say, summed up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scan {
    /// Clusters that stay where they are.
    pub(super) data: u64,
    /// Zero clusters.
    pub(super) zero: u64,
    /// Clusters that QED cannot name as they are: they are appended.
    pub(super) copied: u64,
    /// Some of them show the backing file.
    pub(super) needs_backing: bool,
    /// L2 tables of the QED image.
    pub(super) tables: u64,
    /// Byte after the last that the tables of the image use.
    pub(super) end: u64,
}

/// Reads the tables that `header` names. Refcounts are not consulted: the tables are the truth.
pub(super) fn scan(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
    geometry: Geometry,
) -> Result<Scan, InPlaceError> {
    let cluster_len = header.cluster_size();
    let cluster_bits = cluster_len.trailing_zeros();
    let mut claims = Claims::new(file_len, cluster_bits)?;
    let mut compressed = Claims::new(file_len, cluster_bits)?;
    let mut scan =
        Scan { end: claim_metadata(storage, header, file_len, &mut claims)?, ..Scan::default() };
    let mut last_table = None;
    let references = References::new(storage, header, file_len);
    references.for_each_table(|table| {
        claims.claim(table.at.get(), cluster_len, "an L2 table")?;
        scan.end = scan.end.max(table.at.get() + cluster_len);
        for cluster in table.clusters() {
            let (guest, cluster) = cluster?;
            if let Some(host) = cluster.host {
                claims.claim(host.get(), cluster_len, "data")?;
                scan.end = scan.end.max(host.get() + cluster_len);
            }
            if let ClusterKind::Compressed(range) = cluster.kind {
                compressed.mark(range.offset.get(), range.len);
                scan.end = scan.end.max(range.offset.get() + range.len);
            }
            if scan.count(guest, cluster, header) {
                let number = guest / geometry.table_entries();
                scan.tables += u64::from(last_table.replace(number) != Some(number));
            }
        }
        Ok::<(), InPlaceError>(())
    })?;
    match claims.first_common(&compressed) {
        Some(at) => Err(Refusal::Shared { at, what: "compressed data" }.into()),
        None => Ok(scan),
    }
}

impl Scan {
    /// Counts a cluster; whether the QED image has an entry for it.
    fn count(&mut self, guest: u64, cluster: Cluster, header: &Qcow2Header) -> bool {
        if guest >= header.image_size().div_ceil(header.cluster_size()) {
            return false;
        }
        match cluster.kind {
            ClusterKind::Unallocated => return false,
            ClusterKind::Zero => self.zero += 1,
            ClusterKind::Data => self.data += 1,
            ClusterKind::Compressed(_) => self.copied += 1,
            ClusterKind::Mixed => {
                self.copied += 1;
                self.needs_backing |= header.backing_name().is_some();
            }
        }
        true
    }
}

/// Claims everything but L2 tables and data; byte after the last of it.
fn claim_metadata(
    storage: &dyn Storage,
    header: &Qcow2Header,
    file_len: u64,
    claims: &mut Claims,
) -> Result<u64, InPlaceError> {
    let (l1, refcounts) = (header.l1(), header.refcounts());
    let l1_len = u64::from(l1.entries) * 8;
    claims.claim(0, header.cluster_size(), "the header")?;
    if l1_len != 0 {
        claims.claim(l1.offset, l1_len, "the L1 table")?;
    }
    claims.claim(refcounts.offset, refcounts.len, "the refcount table")?;
    let mut end = (l1.offset + l1_len).max(refcounts.offset + refcounts.len).min(file_len);
    for block in blocks(storage, header, file_len)? {
        claims.claim(block, header.cluster_size(), "a refcount block")?;
        end = end.max(block + header.cluster_size());
    }
    Ok(end)
}
