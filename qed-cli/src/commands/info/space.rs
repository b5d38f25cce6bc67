//! What `info` tells of the space of a QED image: where it ends, and how much of it nothing names.
//!
//! Follows the tables as `check` does, up to a bound; what is wrong with them, `check` says.

use qed_check::{CheckError, CheckOptions, check};
use qed_io::{Growth, Storage};
use qed_spec::Header;
use serde_json::{Value, json};

use super::report::in_full;
use crate::output::human_size;

/// Bytes of tables that are read at most: those of 16 million clusters, 1 TiB of data in clusters of
/// 64 KiB. More would take longer than anybody waits for `info`.
const TABLES_LIMIT_BYTES: u64 = 128 << 20;

/// Where the space of an image stands.
#[derive(Debug)]
pub(super) struct SpaceReport {
    /// Bytes up to the end of all that was ever handed out.
    end: u64,
    /// Bytes below the end that nothing names.
    unnamed: u64,
    /// Whether these are free; they are leaked in a classic image.
    is_free: bool,
    /// Bytes of the block device that holds the image.
    capacity: Option<u64>,
}

impl SpaceReport {
    /// The report on the image in `storage`, or why there is none.
    pub(super) fn of(storage: &dyn Storage, header: &Header) -> Result<Self, String> {
        let mut options = CheckOptions::default();
        (options.findings_limit, options.tables_limit_bytes) = (0, Some(TABLES_LIMIT_BYTES));
        let report = match check(storage, &options) {
            Ok(report) => report,
            Err(CheckError::TablesLimit { .. }) => {
                let limit = human_size(TABLES_LIMIT_BYTES);
                return Err(format!("the tables take more than {limit}; check looks for it"));
            }
            Err(error) => return Err(in_full(error)),
        };
        if report.corruptions() > 0 {
            return Err("the tables have errors, which check lists".to_owned());
        }
        let cluster_size = header.geometry().cluster_size_bytes();
        let capacity = match storage.growth() {
            Growth::Zeros => None,
            Growth::Stale => Some(report.statistics.file_len_bytes),
        };
        Ok(Self {
            end: report.statistics.space_end.get(),
            unnamed: report.unnamed_clusters().saturating_mul(cluster_size),
            is_free: report.statistics.free_clusters.is_some(),
            capacity,
        })
    }
}

/// The lines for people; none for a classic image in a file, all of it in use, which `qemu-img` shows
/// without any.
pub(super) fn lines(space: &SpaceReport, is_classic: bool) -> Vec<String> {
    let size = |what, len| format!("{what}: {} ({len} bytes)", human_size(len));
    if is_classic && space.unnamed == 0 && space.capacity.is_none() {
        return Vec::new();
    }
    let unnamed = if space.is_free { "free space" } else { "leaked space" };
    let mut lines = vec![size(unnamed, space.unnamed), size("high-water mark", space.end)];
    lines.extend(space.capacity.map(|len| size("device capacity", len)));
    lines
}

/// The members for programs.
pub(super) fn json(space: &Result<SpaceReport, String>) -> Value {
    match space {
        Ok(space) => json!({
            "high-water-mark": space.end,
            "free-space": space.is_free.then_some(space.unnamed),
            "leaked-space": (!space.is_free).then_some(space.unnamed),
            "device-capacity": space.capacity,
        }),
        Err(why) => json!({ "free-space-error": why }),
    }
}
