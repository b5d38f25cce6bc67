//! What a client asks of its disk: requests as values. Parses, serves nothing.

use super::reply::Replies;
use super::wire::{EXTENDED_REQUEST_MAGIC, Errno, Fields, REQUEST_MAGIC, command, command_flag};
use crate::device::{Durability, Space, Speed, Zeroing};
use crate::server::{Counters, RequestKind};

/// The most bytes that one request reads or brings along.
pub(super) const MAX_PAYLOAD_BYTES: u32 = 32 << 20;
/// A payload up to this length is passed over and the request refused; a client that sends more is not worth
/// the time.
const MAX_SKIPPED_BYTES: u64 = 2 * MAX_PAYLOAD_BYTES as u64;
/// Moving this many bytes takes several times as long as waking a thread.
const LONG_BYTES: usize = 256 << 10;
/// The longest header of a request.
pub(super) const MAX_HEADER_BYTES: usize = 32;

/// The kinds that are counted, in the order in which they are shown.
pub(super) const COUNTED: [RequestKind; 7] = {
    use RequestKind::*;
    [Read, Write, Flush, Trim, Cache, WriteZeroes, BlockStatus]
};

/// How requests begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// With a length of 32 bits.
    Compact,
    /// With a length of 64 bits, and one that says what follows.
    Extended,
}

/// A request, and how many bytes come behind its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) target: Target,
    /// Bytes behind the header; wanted only by a write that is not refused.
    pub(super) payload: usize,
    /// Refused for what is wrong with it whatever the disk is.
    pub(super) request: Result<Request, Errno>,
}

/// Whom the reply is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// The client's name for the request.
    pub(super) cookie: u64,
    /// The offset in the header.
    pub(super) at: u64,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Read { at: u64, len: usize, one_chunk: bool },
    Write { at: u64, durability: Durability },
    Disconnect,
    Flush,
    Trim { at: u64, len: u64, durability: Durability },
    Cache { at: u64, len: u64 },
    WriteZeroes { at: u64, len: u64, how: Zeroing },
    BlockStatus { at: u64, len: u64, one_extent: bool },
}

/// Why the connection cannot go on: nobody knows where the next request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    #[error("a request does not begin with its magic")]
    Magic,
    #[error("a request brings more bytes along than are passed over")]
    Payload,
}

impl Framing {
    pub(super) const fn header_bytes(self) -> usize {
        match self {
            Self::Compact => 28,
            Self::Extended => MAX_HEADER_BYTES,
        }
    }
}

/// A header as it stands there.
struct Header {
    flags: u16,
    number: u16,
    target: Target,
    len: u64,
}

impl Header {
    fn parse(bytes: &[u8], framing: Framing) -> Option<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.u32()?;
        let (flags, number) = (fields.u16()?, fields.u16()?);
        let target = Target { cookie: fields.u64()?, at: fields.u64()? };
        let (expected, len) = match framing {
            Framing::Compact => (REQUEST_MAGIC, fields.u32()?.into()),
            Framing::Extended => (EXTENDED_REQUEST_MAGIC, fields.u64()?),
        };
        (magic == expected).then_some(Self { flags, number, target, len })
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl Incoming {
    /// Reads the header of a request; `bytes` are as many as the framing has.
    pub(super) fn parse(bytes: &[u8], framing: Framing, replies: Replies) -> Result<Self, Lost> {
        let header = Header::parse(bytes, framing).ok_or(Lost::Magic)?;
        let says_payload = framing == Framing::Extended && header.has(command_flag::PAYLOAD_LEN);
        let payload = if header.number == command::WRITE || says_payload { header.len } else { 0 };
        if payload > MAX_SKIPPED_BYTES {
            return Err(Lost::Payload);
        }
        let payload = usize::try_from(payload).map_err(|_| Lost::Payload)?;
        let request = Request::of(&header, framing, replies).ok_or(Errno::Inval);
        Ok(Self { target: header.target, payload, request })
    }

    /// Counts it, now that it is answered.
    pub(super) fn count(&self, is_served: bool, counters: &Counters) {
        let (kind, len) = match self.request {
            Ok(Request::Read { len, .. }) => (RequestKind::Read, len as u64),
            Ok(Request::Write { .. }) => (RequestKind::Write, self.payload as u64),
            Ok(Request::Flush) => (RequestKind::Flush, 0),
            Ok(Request::Trim { len, .. }) => (RequestKind::Trim, len),
            Ok(Request::Cache { .. }) => (RequestKind::Cache, 0),
            Ok(Request::WriteZeroes { .. }) => (RequestKind::WriteZeroes, 0),
            Ok(Request::BlockStatus { .. }) => (RequestKind::BlockStatus, 0),
            Ok(Request::Disconnect) => return,
            Err(_) => return counters.refused(),
        };
        counters.answered(kind, len, is_served);
    }

    /// Whether it is a read or write of at most `most` bytes that does not wait for a flush.
    pub(super) fn is_short(&self, most: usize) -> bool {
        match self.request {
            Ok(Request::Read { len, .. }) => len <= most && self.payload == 0,
            Ok(Request::Write { durability, .. }) => {
                self.payload <= most && durability == Durability::AfterFlush
            }
            _ => false,
        }
    }

    /// Whether others should go on meanwhile: it may wait for a device longer than a short read or
    /// write does, or moves so many bytes that waking another thread costs little beside it.
    pub(super) fn may_take_long(&self) -> bool {
        match self.request {
            Ok(Request::Read { len, .. }) => len >= LONG_BYTES,
            Ok(Request::Write { durability, .. }) => {
                self.payload >= LONG_BYTES || durability == Durability::AtReturn
            }
            Ok(
                Request::Flush
                | Request::Trim { .. }
                | Request::Cache { .. }
                | Request::WriteZeroes { .. },
            ) => true,
            Ok(Request::Disconnect | Request::BlockStatus { .. }) | Err(_) => false,
        }
    }

    /// Whether the payload is part of the request, and not only in the way.
    pub(super) fn wants_payload(&self) -> bool {
        matches!(self.request, Ok(Request::Write { .. }))
    }
}

impl Request {
    /// None for what nobody defined, was not agreed on, or is too long.
    fn of(header: &Header, framing: Framing, replies: Replies) -> Option<Self> {
        if header.flags & !allowed_flags(header.number, framing, replies) != 0 {
            return None;
        }
        let (at, len) = (header.target.at, header.len);
        let durability = if header.has(command_flag::FUA) {
            Durability::AtReturn
        } else {
            Durability::AfterFlush
        };
        Some(match header.number {
            command::READ => {
                let len = in_one_request(len)?;
                Self::Read { at, len, one_chunk: header.has(command_flag::DF) }
            }
            command::WRITE => {
                in_one_request(len)?;
                Self::Write { at, durability }
            }
            command::DISCONNECT => Self::Disconnect,
            command::FLUSH if (at, len) == (0, 0) => Self::Flush,
            command::TRIM => Self::Trim { at, len, durability },
            command::CACHE => Self::Cache { at, len },
            command::WRITE_ZEROES => Self::WriteZeroes { at, len, how: header.zeroing(durability) },
            command::BLOCK_STATUS if len > 0 => {
                Self::BlockStatus { at, len, one_extent: header.has(command_flag::REQ_ONE) }
            }
            _ => return None,
        })
    }
}

impl Header {
    fn zeroing(&self, durability: Durability) -> Zeroing {
        let no_hole = self.has(command_flag::NO_HOLE);
        Zeroing {
            space: if no_hole { Space::Allocated } else { Space::MayHaveHoles },
            speed: if self.has(command_flag::FAST_ZERO) { Speed::FastOnly } else { Speed::Any },
            durability,
        }
    }
}

/// The flags that a command may have. FUA means nothing to one that writes nothing, and is no fault.
fn allowed_flags(number: u16, framing: Framing, replies: Replies) -> u16 {
    let own = match number {
        command::READ if replies != Replies::Simple => command_flag::DF,
        command::WRITE if framing == Framing::Extended => command_flag::PAYLOAD_LEN,
        command::WRITE_ZEROES => command_flag::NO_HOLE | command_flag::FAST_ZERO,
        command::BLOCK_STATUS => command_flag::REQ_ONE,
        _ => 0,
    };
    own | command_flag::FUA
}

fn in_one_request(len: u64) -> Option<usize> {
    usize::try_from(len).ok().filter(|_| len <= MAX_PAYLOAD_BYTES.into())
}
