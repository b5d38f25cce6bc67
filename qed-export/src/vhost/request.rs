//! What a driver asks of the disk, made of a chain. Knows neither rings nor disks.

use super::chain::{Chain, ChainError, len_of, take_front, take_last};
use super::memory::{Memory, Piece};
use super::wire::{SECTOR_BYTES, request};

/// Bytes of the head of a request.
const HEAD_BYTES: usize = 16;
/// Bytes of a range to discard or to zero.
pub(super) const SEGMENT_BYTES: usize = 16;

/// A request, whose pieces are those of its chain without its head and its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Into the writable pieces.
    Read {
        at: u64,
    },
    /// Out of the readable pieces.
    Write {
        at: u64,
    },
    Flush,
    /// Into the writable pieces.
    Identity,
    /// The ranges are in the readable pieces.
    Discard,
    /// Likewise.
    Zero,
    /// One that the device does not know.
    Unknown,
}

/// A request, and where its status goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) status_at: u64,
}

/// What a driver may not leave out.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("a request without a head")]
    NoHead,
    #[error("a request without a byte for its status")]
    NoStatus,
}

impl Asked {
    /// Takes head and status off the pieces of a chain.
    pub(super) fn parse(chain: &mut Chain, memory: &Memory) -> Result<Self, RequestError> {
        let head = take_front::<HEAD_BYTES>(&mut chain.readable, memory);
        let head = head.map_err(ChainError::from)?.ok_or(RequestError::NoHead)?;
        let status_at = take_last(&mut chain.writable).ok_or(RequestError::NoStatus)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = head;
        // A place that is past 2^64 is past the end of any disk.
        let at = u64::from_le_bytes(sector).saturating_mul(SECTOR_BYTES);
        let request = match u32::from_le_bytes([k0, k1, k2, k3]) {
            request::IN => Request::Read { at },
            request::OUT => Request::Write { at },
            request::FLUSH => Request::Flush,
            request::GET_ID => Request::Identity,
            request::DISCARD => Request::Discard,
            request::WRITE_ZEROES => Request::Zero,
            _ => Request::Unknown,
        };
        Ok(Self { request, status_at })
    }
}

/// A range to discard or to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) at: u64,
    pub(super) sectors: u32,
    pub(super) flags: u32,
}

impl Segment {
    /// Bytes of the range.
    pub(super) fn len(self) -> u64 {
        u64::from(self.sectors) * SECTOR_BYTES
    }
}

/// The ranges of a request; none when there are no whole ones, or more than `most`.
pub(super) fn segments(
    pieces: &mut Vec<Piece>,
    memory: &Memory,
    most: usize,
) -> Option<Vec<Segment>> {
    let bytes = len_of(pieces);
    let count = usize::try_from(bytes / SEGMENT_BYTES as u64).ok()?;
    if !bytes.is_multiple_of(SEGMENT_BYTES as u64) || count == 0 || count > most {
        return None;
    }
    let mut segment = || {
        let bytes = take_front::<SEGMENT_BYTES>(pieces, memory).ok()??;
        let [at @ .., n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        Some(Segment {
            at: u64::from_le_bytes(at).saturating_mul(SECTOR_BYTES),
            sectors: u32::from_le_bytes([n0, n1, n2, n3]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
        })
    };
    (0..count).map(|_| segment()).collect()
}
