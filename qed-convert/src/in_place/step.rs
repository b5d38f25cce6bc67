//! What every direction does to the file, step by step, each step with its name in errors.
//!
//! Step names are those of docs/write-ordering.md.

use std::io;
use std::ops::Range;

use qed_io::{Growth, RunKind, Storage};
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

/// Copies `range` to `to`, in space that reads as zeros, at most `piece` bytes at a time. Holes stay
/// holes.
pub(crate) fn copy(
    storage: &dyn Storage,
    range: Range<u64>,
    to: u64,
    piece: u64,
) -> Result<(), StepError> {
    let mut at = range.start;
    let mut buf = vec![0; usize::try_from(piece.min(range.end - at)).expect("a small piece")];
    while at < range.end {
        let run = storage.run_at(at).map_err(failed("append"))?;
        let len = run.len.clamp(1, range.end - at);
        if run.kind == RunKind::Hole {
            at += len;
            continue;
        }
        let len = len.min(piece);
        let part = &mut buf[..usize::try_from(len).expect("at most a piece")];
        storage.read_at(part, at).map_err(failed("append"))?;
        storage.write_at(part, to + (at - range.start)).map_err(failed("append"))?;
        at += len;
    }
    Ok(())
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
