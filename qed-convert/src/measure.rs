//! How large the file of a conversion's target becomes, without writing it.
//!
//! Reads mappings only, so zeros inside data count as data.

use qed_core::{CreateError, CreateOptions, Extents, Layout, VirtualDisk};
use qed_spec::Geometry;
use thiserror::Error;

use crate::convert::ConvertError;
use crate::qcow2::Qcow2Bitmap;
use crate::target::qcow2::{Qcow2CreateOptions, Qcow2OptionError, metadata_len};

/// The format to measure for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeasureTarget {
    /// Raw: holes are not counted off, as the file has its full length all the same.
    Raw,
    /// QED.
    Qed {
        /// Cluster and table size.
        geometry: Geometry,
        /// What the header area holds.
        layout: Layout,
    },
    /// QCOW2; the options' size need not be set.
    Qcow2(Qcow2CreateOptions),
}

/// File sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// For what is allocated now.
    pub required: u64,
    /// When every cluster is allocated.
    pub fully_allocated: u64,
}

/// Why there is nothing to measure.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The source's mapping could not be read.
    #[error(transparent)]
    Source(ConvertError),
    /// The options or the size break a rule of QED.
    #[error(transparent)]
    Qed(#[from] CreateError),
    /// The options or the size break a rule of QCOW2.
    #[error(transparent)]
    Qcow2(#[from] Qcow2OptionError),
}

/// Measures the target of converting `source`.
///
/// # Errors
/// Options that make no image of this size, or a mapping that cannot be read.
pub fn measure(source: &dyn VirtualDisk, target: &MeasureTarget) -> Result<Measure, MeasureError> {
    let all = measure_size(source.len(), target)?.fully_allocated;
    let required = match target {
        MeasureTarget::Raw => all,
        MeasureTarget::Qed { geometry, layout } => {
            let (cluster, reach) = (geometry.cluster_size_bytes(), geometry.l2_coverage_bytes());
            let used = Used::count(source, cluster, reach)?;
            let options = CreateOptions {
                geometry: *geometry,
                layout: *layout,
                ..CreateOptions::new(source.len())
            };
            let tables = used.tables * geometry.table_size_bytes();
            qed_core::header_area(&options)?.empty_len() + tables + used.clusters * cluster
        }
        MeasureTarget::Qcow2(options) => {
            // QEMU counts every L2 table whether or not it is used, and so does this.
            let cluster = u64::from(options.cluster_len);
            let used = Used::count(source, cluster, u64::MAX)?;
            all - source.len().next_multiple_of(cluster) + used.clusters * cluster
        }
    };
    Ok(Measure { required, fully_allocated: all })
}

/// Measures an empty image of `size` bytes.
///
/// # Errors
/// Options that make no image of this size.
pub fn measure_size(size: u64, target: &MeasureTarget) -> Result<Measure, MeasureError> {
    Ok(match target {
        MeasureTarget::Raw => Measure { required: size, fully_allocated: size },
        MeasureTarget::Qed { geometry, layout } => {
            let options =
                CreateOptions { geometry: *geometry, layout: *layout, ..CreateOptions::new(size) };
            let table = geometry.table_size_bytes();
            let required = qed_core::header_area(&options)?.empty_len();
            let tables = geometry.l1_entries_for(size).saturating_mul(table);
            let data = size.checked_next_multiple_of(geometry.cluster_size_bytes());
            let data = data.unwrap_or(u64::MAX);
            let fully_allocated = required.saturating_add(tables).saturating_add(data);
            Measure { required, fully_allocated }
        }
        MeasureTarget::Qcow2(options) => {
            let options = Qcow2CreateOptions { size, ..options.clone() };
            options.validate()?;
            let required = metadata_len(&options);
            let data = size.next_multiple_of(options.cluster_len.into());
            Measure { required, fully_allocated: required + data }
        }
    })
}

/// Bytes that copies of the persistent bitmaps of a disk of `size` bytes take in a QCOW2 image with
/// clusters of `cluster_len`, each with all its clusters; what was in use has no meaning to copy.
#[must_use]
pub fn qcow2_bitmaps_len(bitmaps: &[Qcow2Bitmap], size: u64, cluster_len: u32) -> u64 {
    /// An entry of the bitmap directory without the name.
    const ENTRY_LEN: u64 = 24;
    let whole = |len: u64| len.next_multiple_of(cluster_len.into());
    let (mut len, mut directory) = (0, 0);
    for bitmap in bitmaps.iter().filter(|bitmap| !bitmap.in_use && bitmap.granularity > 0) {
        let bits = whole(size.div_ceil(bitmap.granularity).div_ceil(8));
        let table = whole(bits / u64::from(cluster_len) * 8);
        len += bits + table;
        directory += (ENTRY_LEN + bitmap.name.len() as u64).next_multiple_of(8);
    }
    len + whole(directory)
}

/// Clusters with data, and L2 tables that name one.
struct Used {
    clusters: u64,
    tables: u64,
}

impl Used {
    fn count(
        source: &dyn VirtualDisk,
        cluster_len: u64,
        table_reach: u64,
    ) -> Result<Self, MeasureError> {
        let mut used = Self { clusters: 0, tables: 0 };
        // One past the last cluster and table that were counted.
        let (mut clusters_end, mut tables_end) = (0, 0);
        let mut extents = Extents::of(source);
        let mut at = 0;
        while at < source.len() {
            let extent =
                extents.at(at).map_err(ConvertError::read).map_err(MeasureError::Source)?;
            let end = at + extent.len;
            if extent.kind.is_stored() {
                let add = |unit, counted_end: &mut u64, count: &mut u64| {
                    let unit_end = end.div_ceil(unit);
                    *count += unit_end - (*counted_end).max(at / unit);
                    *counted_end = unit_end;
                };
                add(cluster_len, &mut clusters_end, &mut used.clusters);
                add(table_reach, &mut tables_end, &mut used.tables);
            }
            at = end;
        }
        Ok(used)
    }
}
