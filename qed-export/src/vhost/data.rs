//! Guest bytes on their way between guest memory and a disk, without a copy where the disk needs none.

use qed_io::{Piece as From, PieceMut as Into};

use super::log::{DirtyLog, NotCovered};
use super::memory::{Memory, MemoryError, Piece};
use super::sys::shared;
use crate::device::{BlockDevice, DeviceError, Durability};

/// Why bytes did not get to where they belong.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Log(#[from] NotCovered),
}

/// Reads from a place of the disk into the guest.
pub(super) fn read(
    device: &dyn BlockDevice,
    memory: &Memory,
    pieces: &[Piece],
    at: u64,
    log: Option<&DirtyLog>,
) -> Result<(), DataError> {
    let into = |piece: &Piece| Ok(Into::Shared(shared(&memory.slice(*piece)?)));
    let mut into = pieces.iter().map(into).collect::<Result<Vec<_>, MemoryError>>()?;
    let read = device.read_vectored_at(&mut into, at);
    if let Some(log) = log {
        // One that fails may have written some.
        pieces.iter().try_for_each(|piece| log.mark(piece.at, u64::from(piece.len)))?;
    }
    Ok(read?)
}

/// Writes what the guest has to a place of the disk.
pub(super) fn write(
    device: &dyn BlockDevice,
    memory: &Memory,
    pieces: &[Piece],
    at: u64,
) -> Result<(), DataError> {
    let from = |piece: &Piece| Ok(From::Shared(shared(&memory.slice(*piece)?)));
    let from = pieces.iter().map(from).collect::<Result<Vec<_>, MemoryError>>()?;
    Ok(device.write_vectored_at(&from, at, Durability::AfterFlush)?)
}
