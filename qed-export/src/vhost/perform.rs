//! One request and its disk: does what it says and tells how it went. Knows no ring and no thread.

use qed_engine::Direction;

use super::chain::{Chain, len_of};
use super::config::{
    MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS, MAX_ZERO_SECTORS, MAX_ZERO_SEGMENTS,
};
use super::data::{self, DataError};
use super::log::DirtyLog;
use super::memory::{Memory, Piece};
use super::request::{Request, Segment, segments};
use super::wire::{ID_BYTES, SECTOR_BYTES, request};
use crate::device::{BlockDevice, DeviceError, Durability, Space, Speed, Zeroing, check_range};

/// How a request went, by the numbers of virtio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// Where requests are performed, and what they need beside their chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) device: &'p dyn BlockDevice,
    pub(super) memory: &'p Memory,
    pub(super) log: Option<&'p DirtyLog>,
    pub(super) id: &'p [u8; ID_BYTES],
    /// Whether what changes the disk may wait for a flush.
    pub(super) has_write_cache: bool,
}

/// What came of a request.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: Status,
    /// Bytes that were written to the guest, without the status.
    pub(super) written: u32,
    /// Bytes of the disk that were read, written, or given up.
    pub(super) bytes: u64,
    /// For the log.
    pub(super) error: Option<DataError>,
}

/// What is moved between the guest and the disk by a transfer that goes on by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved<'p> {
    pub(super) direction: Direction,
    pub(super) at: u64,
    pub(super) pieces: &'p [Piece],
    /// Bytes of the pieces.
    pub(super) len: u64,
}

impl Outcome {
    /// That of a transfer which was to move so many bytes.
    pub(super) fn of_transfer(
        direction: Direction,
        len: u64,
        result: Result<(), DeviceError>,
    ) -> Self {
        let written = match direction {
            Direction::Read => u32::try_from(len).unwrap_or(u32::MAX),
            Direction::Write => 0,
        };
        Self::of(result.map(|()| (written, len)).map_err(Refusal::from))
    }

    /// Bytes that were written to the guest, and of the disk.
    fn of(served: Result<(u32, u64), Refusal>) -> Self {
        let (status, error) = match served {
            Ok((written, bytes)) => {
                return Self { status: Status::Ok, written, bytes, error: None };
            }
            Err(Refusal::Unsupported) => (Status::Unsupported, None),
            Err(Refusal::Data(error)) => (Status::IoError, Some(error)),
        };
        Self { status, written: 0, bytes: 0, error }
    }
}

/// Why a request is not done.
enum Refusal {
    Unsupported,
    Data(DataError),
}

impl<E: Into<DataError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Data(error.into())
    }
}

/// Does what a request says.
pub(super) fn perform(place: Place<'_>, request: Request, chain: &mut Chain) -> Outcome {
    Outcome::of(place.serve(request, chain))
}

impl Place<'_> {
    /// What a request moves, if nothing is to be done but that: one that is refused, or that has to be
    /// durable when it is given back, is performed.
    pub(super) fn transfer(self, request: Request, chain: &Chain) -> Option<Moved<'_>> {
        let (direction, at, pieces) = match request {
            Request::Read { at } => (Direction::Read, at, &chain.writable),
            Request::Write { at } if self.has_write_cache => {
                (Direction::Write, at, &chain.readable)
            }
            _ => return None,
        };
        if direction == Direction::Write {
            self.check_writable().ok()?;
        }
        let len = self.check(at, pieces).ok().filter(|len| *len > 0)?;
        Some(Moved { direction, at, pieces, len })
    }

    /// Bytes that were written to the guest, and of the disk.
    fn serve(self, request: Request, chain: &mut Chain) -> Result<(u32, u64), Refusal> {
        let none = Ok((0, 0));
        match request {
            Request::Read { at } => {
                let len = self.check(at, &chain.writable)?;
                data::read(self.device, self.memory, &chain.writable, at, self.log)?;
                Ok((u32::try_from(len).unwrap_or(u32::MAX), len))
            }
            Request::Write { at } => {
                let len = self.check(at, &chain.readable)?;
                self.check_writable()?;
                data::write(self.device, self.memory, &chain.readable, at)?;
                self.settle()?;
                Ok((0, len))
            }
            Request::Flush => {
                self.device.flush()?;
                none
            }
            Request::Identity => Ok((self.identity(&chain.writable)?, 0)),
            Request::Discard => self.discard(&mut chain.readable),
            Request::Zero => self.zero(&mut chain.readable),
            Request::Unknown => Err(Refusal::Unsupported),
        }
    }

    /// Bytes of a range of whole sectors on the disk.
    fn check(&self, at: u64, pieces: &[Piece]) -> Result<u64, DeviceError> {
        let len = len_of(pieces);
        if !len.is_multiple_of(SECTOR_BYTES) {
            return Err(DeviceError::OutOfRange { at, len });
        }
        check_range(self.sectors_end(), at, len)?;
        Ok(len)
    }

    /// Where the last whole sector ends, which is what the guest knows of the disk.
    fn sectors_end(&self) -> u64 {
        self.device.size() / SECTOR_BYTES * SECTOR_BYTES
    }

    fn check_writable(&self) -> Result<(), DeviceError> {
        if self.device.is_read_only() { Err(DeviceError::ReadOnly) } else { Ok(()) }
    }

    /// Makes durable what was done, if the guest believes that it is.
    fn settle(&self) -> Result<(), DeviceError> {
        if self.has_write_cache { Ok(()) } else { self.device.flush() }
    }

    fn identity(&self, pieces: &[Piece]) -> Result<u32, DataError> {
        let mut done = 0;
        for piece in pieces {
            let part = (piece.len as usize).min(ID_BYTES - done);
            self.memory.write(&self.id[done..done + part], piece.at)?;
            if let Some(log) = self.log {
                log.mark(piece.at, part as u64)?;
            }
            done += part;
        }
        Ok(u32::try_from(done).unwrap_or(0))
    }

    fn discard(&self, pieces: &mut Vec<Piece>) -> Result<(u32, u64), Refusal> {
        let limits = (MAX_DISCARD_SEGMENTS, MAX_DISCARD_SECTORS, 0);
        let segments = self.segments(pieces, limits)?;
        for segment in &segments {
            self.device.trim(segment.at, segment.len(), Durability::AfterFlush)?;
        }
        self.settle()?;
        Ok((0, segments.iter().map(|segment| segment.len()).sum()))
    }

    fn zero(&self, pieces: &mut Vec<Piece>) -> Result<(u32, u64), Refusal> {
        let limits = (MAX_ZERO_SEGMENTS, MAX_ZERO_SECTORS, request::UNMAP);
        let segments = self.segments(pieces, limits)?;
        for segment in &segments {
            let may_unmap = segment.flags & request::UNMAP != 0;
            let space = if may_unmap { Space::MayHaveHoles } else { Space::Allocated };
            let how = Zeroing { space, speed: Speed::Any, durability: Durability::AfterFlush };
            self.device.write_zeroes(segment.at, segment.len(), how)?;
        }
        self.settle()?;
        Ok((0, segments.iter().map(|segment| segment.len()).sum()))
    }

    /// The ranges of a request, all checked before the first is touched.
    fn segments(
        &self,
        pieces: &mut Vec<Piece>,
        (most, sectors, flags): (usize, u32, u32),
    ) -> Result<Vec<Segment>, Refusal> {
        let found = segments(pieces, self.memory, most).ok_or(Refusal::Unsupported)?;
        if found.iter().any(|segment| segment.flags & !flags != 0) {
            return Err(Refusal::Unsupported);
        }
        self.check_writable()?;
        for segment in &found {
            let (at, len) = (segment.at, segment.len());
            if segment.sectors > sectors {
                return Err(DeviceError::OutOfRange { at, len }.into());
            }
            check_range(self.sectors_end(), at, len)?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
