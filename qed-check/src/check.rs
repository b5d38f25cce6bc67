//! The check: the passes in order and what each may cost.
//!
//! 1. The L1 table, in order: claims the metadata (`metadata`).
//! 2. All L2 tables, in parallel: claims the data clusters, counts, and notices whether any entry
//!    is out of order (`scan`). A sound image needs no more.
//! 3. Only if one is: all L2 tables again in guest order, to say which (`explain`), and once more
//!    to name the first claim of what is claimed twice (`owners`).

use std::num::NonZeroUsize;

use qed_io::Storage;
use qed_layout::ClusterSet;
use qed_spec::HostOffset;

use crate::error::CheckError;
use crate::metadata;
use crate::report::{FindingLog, Repaired, Report, Statistics};
use crate::scan::Summary;
use crate::tables::Tables;
use crate::{explain, owners, scan, unused};

/// How a check is run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckOptions {
    /// Findings that are kept in the report; the counters go on beyond it.
    pub findings_limit: usize,
    /// Threads to read tables with; none for as many as suit the machine. They end with the check.
    pub threads: Option<NonZeroUsize>,
    /// Bytes of L2 tables, their holes left out, that are read at most; none for all there are.
    pub tables_limit_bytes: Option<u64>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { findings_limit: 1000, threads: None, tables_limit_bytes: None }
    }
}

/// Checks the whole image and changes nothing.
///
/// The storage is not locked: whether others may write meanwhile is the caller's to decide. The
/// backing file is not looked at. Memory: one bit per cluster of the file that is in use (allocated
/// in chunks; 2 MiB per TiB at 64 KiB clusters), 256 KiB per thread, and the findings that are
/// kept; an image with errors takes up to twice that. A file whose length is out of all proportion to
/// its tables is refused rather than given the memory.
///
/// # Errors
/// [`CheckError::Header`] for an image whose header cannot be used, [`CheckError::MapLimit`] as
/// said above, [`CheckError::TablesLimit`] before any L2 table was read, and the storage's errors.
///
/// # Examples
/// ```
/// use qed_check::{CheckError, CheckOptions, check};
/// use qed_io::MemoryStorage;
///
/// let not_an_image = MemoryStorage::new(vec![0; 4096]);
/// let result = check(&not_an_image, &CheckOptions::default());
/// assert!(matches!(result, Err(CheckError::Header(_))));
/// ```
// spec: QED-CHK-01
pub fn check(storage: &dyn Storage, options: &CheckOptions) -> Result<Report, CheckError> {
    let tables = Tables::open(storage)?;
    let Walk { mut log, summary, used } = walk(&tables, options)?;
    let unused = unused::report(&tables, &used, &mut log);
    let statistics = Statistics {
        total_clusters: tables.layout.image_clusters(),
        allocated_clusters: summary.allocated,
        fragmented_clusters: summary.fragmented,
        compressed_clusters: 0,
        zero_clusters: summary.zero,
        file_len_bytes: tables.layout.file_len,
        image_end: tables.layout.offset_of(unused.named_end),
        space_end: space_end(&tables, unused.space_end),
        free_clusters: unused.free,
    };
    Ok(Report {
        dirty: tables.layout.is_dirty(),
        statistics,
        counts: log.counts,
        findings: log.findings,
        repaired: Repaired::default(),
    })
}

/// Where the space ends whose last cluster is before `cluster`; a file may cut it off.
fn space_end(tables: &Tables<'_>, cluster: u64) -> HostOffset {
    tables.layout.offset_of(cluster).min(HostOffset::new(tables.layout.file_len))
}

/// What following the tables told.
pub(crate) struct Walk {
    pub(crate) log: FindingLog,
    summary: Summary,
    pub(crate) used: ClusterSet,
}

/// Follows the tables that `tables` looks at.
pub(crate) fn walk(tables: &Tables<'_>, options: &CheckOptions) -> Result<Walk, CheckError> {
    let mut log = FindingLog::new(options.findings_limit);
    let (metadata, mut used) = metadata::claim(tables, &mut log)?;
    if let Some(limit) = options.tables_limit_bytes {
        metadata.refuse_more_than(tables, limit)?;
    }
    let summary = scan::run(tables, &metadata, &mut used, options.threads)?;
    if !(summary.sound && metadata.sound) {
        let claimed = ClusterSet::new(tables.layout.clusters, used.budget_bytes());
        explain::run(tables, &metadata, &claimed, &mut log)?;
        owners::name(tables, &metadata, &mut log)?;
    }
    Ok(Walk { log, summary, used })
}
