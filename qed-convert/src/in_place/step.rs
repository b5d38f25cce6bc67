//! What every direction does to the file, step by step, each step with its name in errors.
//!
//! Step names are those of docs/write-ordering.md.

use std::io;
use std::ops::Range;

use qed_io::{Growth, Storage};
use qed_layout::ReadError;
use thiserror::Error;

/// Bytes of sector 0: what a disk writes whole or not at all.
pub(crate) const SECTOR_LEN: usize = 512;

/// The storage failed in a step of a conversion.
#[derive(Debug, Error)]
#[error("step '{step}'")]
pub struct StepError {
    /// The name of the step.
    pub step: &'static str,
    /// What the storage said.
    #[source]
    pub source: io::Error,
}

impl From<ReadError> for StepError {
    fn from(error: ReadError) -> Self {
        Self { step: "scan", source: error.source }
    }
}

/// Names the step in which the storage failed.
pub(crate) fn failed(step: &'static str) -> impl FnOnce(io::Error) -> StepError {
    move |source| StepError { step, source }
}

/// Step "append": the file covers all that is appended, and new space reads as zeros.
pub(crate) fn grow(storage: &dyn Storage, len: u64) -> Result<(), StepError> {
    storage.set_len(len).map_err(failed("append"))
}

/// Step "commit": everything that sector 0 is going to name is durable, then it is written, then it
/// is durable itself.
pub(crate) fn commit(storage: &dyn Storage, sector: &[u8; SECTOR_LEN]) -> Result<(), StepError> {
    storage.flush().map_err(failed("append"))?;
    storage.write_at(sector, 0).map_err(failed("commit"))?;
    storage.flush().map_err(failed("commit"))
}

/// Sector 0 as the file has it.
pub(crate) fn read_sector(storage: &dyn Storage) -> Result<[u8; SECTOR_LEN], StepError> {
    let mut sector = [0; SECTOR_LEN];
    storage.read_at(&mut sector, 0).map_err(failed("scan"))?;
    Ok(sector)
}

/// Makes `range` read as zeros, and gives its space back where that can be done.
pub(crate) fn wipe(
    storage: &dyn Storage,
    range: Range<u64>,
    step: &'static str,
) -> Result<(), StepError> {
    if range.is_empty() || storage.punch_hole(range.clone()).map_err(failed(step))? {
        return Ok(());
    }
    storage.write_zeroes(range).map_err(failed(step))
}

/// Whether the file can grow and shrink, which a block device cannot.
pub(crate) fn is_regular(storage: &dyn Storage) -> bool {
    storage.growth() == Growth::Zeros
}
