//! What every direction does to the file, step by step, each step with its name in errors.
//!
//! Step names are those of docs/write-ordering.md.

use std::ops::Range;

use qed_io::{Growth, Storage};

use super::error::{InPlaceError, Step, failed};

/// Bytes of sector 0: what a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
pub(super) type Sector = [u8; SECTOR];

pub(super) fn read<const LEN: usize>(
    storage: &dyn Storage,
    at: u64,
) -> Result<[u8; LEN], InPlaceError> {
    let mut bytes = [0; LEN];
    storage.read_at(&mut bytes, at).map_err(InPlaceError::io(Step::Read, at))?;
    Ok(bytes)
}

pub(super) fn write(
    storage: &dyn Storage,
    step: Step,
    bytes: &[u8],
    at: u64,
) -> Result<(), InPlaceError> {
    storage.write_at(bytes, at).map_err(InPlaceError::io(step, at))
}

pub(super) fn flush(storage: &dyn Storage, step: Step) -> Result<(), InPlaceError> {
    storage.flush().map_err(InPlaceError::io(step, 0))
}

pub(super) fn set_len(storage: &dyn Storage, step: Step, len: u64) -> Result<(), InPlaceError> {
    storage.set_len(len).map_err(InPlaceError::io(step, len))
}

pub(super) fn len(storage: &dyn Storage) -> Result<u64, InPlaceError> {
    storage.len().map_err(InPlaceError::io(Step::Read, 0))
}

/// Step "commit": everything that sector 0 is going to name is durable, then it is written, then it
/// is durable itself.
pub(super) fn commit(storage: &dyn Storage, sector: &Sector) -> Result<(), InPlaceError> {
    flush(storage, Step::Append)?;
    write(storage, Step::Commit, sector, 0)?;
    flush(storage, Step::Commit)
}

/// Makes `range` read as zeros, and gives its space back where that can be done.
pub(super) fn wipe(
    storage: &dyn Storage,
    range: Range<u64>,
    step: Step,
) -> Result<(), InPlaceError> {
    if range.is_empty() || storage.punch_hole(range.clone()).map_err(failed(step))? {
        return Ok(());
    }
    storage.write_zeroes(range).map_err(failed(step))
}

/// Whether the file can grow and shrink, which a block device cannot.
pub(super) fn is_regular(storage: &dyn Storage) -> bool {
    storage.growth() == Growth::Zeros
}
