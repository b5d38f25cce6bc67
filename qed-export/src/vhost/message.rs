//! The messages of a vhost-user frontend, as values. Knows no socket.

use thiserror::Error;

use super::config::MAX_CONFIG_BYTES;
use super::memory::RegionInfo;
use super::ring::RingAddress;

/// Bytes of the head of a message.
pub(super) const HEAD_BYTES: usize = 12;
/// More than any message has.
const MAX_BODY_BYTES: u32 = 4096;
/// The most regions of one table: each comes with a descriptor.
pub(super) const MAX_TABLE_REGIONS: usize = 8;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const IS_REPLY: u32 = 4;
const NEEDS_REPLY: u32 = 8;
/// The used ring is logged; a flag of its address.
const LOG_USED: u32 = 1;
/// No descriptor comes with this message; beside the number of a queue.
const NO_DESCRIPTOR: u64 = 1 << 8;

/// What the backend tells by itself: the configuration space has changed.
pub(super) const CONFIG_CHANGED: u32 = 2;

/// Why a message is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(super) enum MessageError {
    #[error("a message with flags {0:#x}")]
    Flags(u32),
    #[error("a message of {0} bytes")]
    Length(u32),
    #[error("an unknown message, number {0}")]
    Unknown(u32),
    #[error("message {0} does not say what it has to")]
    Malformed(u32),
}

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) code: u32,
    pub(super) needs_reply: bool,
    pub(super) body_bytes: u32,
}

impl Head {
    pub(super) fn parse(bytes: [u8; HEAD_BYTES]) -> Result<Self, MessageError> {
        let [code, flags, body_bytes] = words(bytes);
        if flags & VERSION_MASK != VERSION || flags & IS_REPLY != 0 {
            return Err(MessageError::Flags(flags));
        }
        if body_bytes > MAX_BODY_BYTES {
            return Err(MessageError::Length(body_bytes));
        }
        Ok(Self { code, needs_reply: flags & NEEDS_REPLY != 0, body_bytes })
    }
}

/// A reply to a message.
pub(super) fn reply(code: u32, body: &[u8]) -> Vec<u8> {
    message(code, VERSION | IS_REPLY, body)
}

/// A message of the backend, which is not replied to.
pub(super) fn notice(code: u32) -> Vec<u8> {
    message(code, VERSION, &[])
}

fn message(code: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let head = [code, flags, len].map(u32::to_le_bytes).concat();
    [&head, body].concat()
}

fn words(bytes: [u8; HEAD_BYTES]) -> [u32; 3] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = bytes;
    [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]].map(u32::from_le_bytes)
}

/// The shape of a region of requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InflightInfo {
    pub(super) len: u64,
    pub(super) offset: u64,
    pub(super) queues: u16,
    pub(super) size: u16,
}

impl InflightInfo {
    pub(super) fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.queues.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }
}

/// What a frontend says. Descriptors come beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    GetFeatures,
    SetFeatures(u64),
    /// A session begins or ends, which its connection says as well.
    Owner,
    SetMemoryTable(Vec<RegionInfo>),
    SetLogBase {
        len: u64,
        offset: u64,
    },
    /// A descriptor that would be told of log changes; nobody uses it.
    SetLogDescriptor,
    SetSize {
        queue: u32,
        size: u32,
    },
    SetAddress {
        queue: u32,
        address: RingAddress,
    },
    SetBase {
        queue: u32,
        index: u32,
    },
    GetBase {
        queue: u32,
    },
    SetKick {
        queue: u32,
        has_descriptor: bool,
    },
    SetCall {
        queue: u32,
        has_descriptor: bool,
    },
    SetError {
        queue: u32,
        has_descriptor: bool,
    },
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueCount,
    SetEnabled {
        queue: u32,
        is_enabled: bool,
    },
    SetBackendChannel,
    GetConfig {
        offset: u32,
        len: u32,
        flags: u32,
    },
    SetConfig {
        offset: u32,
        bytes: Vec<u8>,
    },
    GetInflight(InflightInfo),
    SetInflight(InflightInfo),
    ResetDevice,
    GetMaxRegions,
    AddRegion(RegionInfo),
    RemoveRegion(RegionInfo),
    SetStatus(u64),
    GetStatus,
}

impl Message {
    /// What a body says under its number.
    pub(super) fn parse(code: u32, body: &[u8]) -> Result<Self, MessageError> {
        let malformed = MessageError::Malformed(code);
        let mut body = Body(body);
        let parsed = Self::of(code, &mut body);
        match parsed {
            Some(Err(unknown)) => Err(unknown),
            Some(Ok(message)) if body.0.is_empty() => Ok(message),
            _ => Err(malformed),
        }
    }

    /// Whether it has a reply of its own; another one is acknowledged to a frontend that asks for it.
    pub(super) const fn has_reply(&self) -> bool {
        matches!(
            self,
            Self::GetFeatures
                | Self::SetLogBase { .. }
                | Self::GetBase { .. }
                | Self::GetProtocolFeatures
                | Self::GetQueueCount
                | Self::GetConfig { .. }
                | Self::GetInflight(_)
                | Self::GetMaxRegions
                | Self::GetStatus
        )
    }

    fn of(code: u32, body: &mut Body<'_>) -> Option<Result<Self, MessageError>> {
        Some(Ok(match code {
            1 => Self::GetFeatures,
            2 => Self::SetFeatures(body.u64()?),
            3 | 4 => Self::Owner,
            5 => Self::SetMemoryTable(body.table()?),
            6 => Self::SetLogBase { len: body.u64()?, offset: body.u64()? },
            7 => {
                body.0 = &[];
                Self::SetLogDescriptor
            }
            8 => Self::SetSize { queue: body.u32()?, size: body.u32()? },
            9 => body.address()?,
            10 => Self::SetBase { queue: body.u32()?, index: body.u32()? },
            11 => Self::GetBase { queue: (body.u32()?, body.u32()?).0 },
            12 => body.of_queue(|queue, has_descriptor| Self::SetKick { queue, has_descriptor })?,
            13 => body.of_queue(|queue, has_descriptor| Self::SetCall { queue, has_descriptor })?,
            14 => {
                body.of_queue(|queue, has_descriptor| Self::SetError { queue, has_descriptor })?
            }
            15 => Self::GetProtocolFeatures,
            16 => Self::SetProtocolFeatures(body.u64()?),
            17 => Self::GetQueueCount,
            18 => match (body.u32()?, body.u32()?) {
                (queue, on @ (0 | 1)) => Self::SetEnabled { queue, is_enabled: on == 1 },
                _ => return None,
            },
            21 => Self::SetBackendChannel,
            24 => body.get_config()?,
            25 => body.set_config()?,
            31 => Self::GetInflight(body.inflight()?),
            32 => Self::SetInflight(body.inflight()?),
            34 => Self::ResetDevice,
            36 => Self::GetMaxRegions,
            37 => Self::AddRegion(body.one_region()?),
            38 => Self::RemoveRegion(body.one_region()?),
            39 => Self::SetStatus(body.u64()?),
            40 => Self::GetStatus,
            _ => return Some(Err(MessageError::Unknown(code))),
        }))
    }
}

/// What is left of a body.
struct Body<'b>(&'b [u8]);

impl Body<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn region(&mut self) -> Option<RegionInfo> {
        let (guest, len) = (self.u64()?, self.u64()?);
        let (frontend, file_offset) = (self.u64()?, self.u64()?);
        Some(RegionInfo { guest, len, frontend, file_offset })
    }

    fn one_region(&mut self) -> Option<RegionInfo> {
        self.u64()?;
        self.region()
    }

    fn table(&mut self) -> Option<Vec<RegionInfo>> {
        let count = usize::try_from(self.u32()?).ok()?;
        self.u32()?;
        if count > MAX_TABLE_REGIONS {
            return None;
        }
        (0..count).map(|_| self.region()).collect()
    }

    fn address(&mut self) -> Option<Message> {
        let (queue, flags) = (self.u32()?, self.u32()?);
        let (descriptors, used) = (self.u64()?, self.u64()?);
        let (available, log) = (self.u64()?, self.u64()?);
        let used_log = (flags & LOG_USED != 0).then_some(log);
        let address = RingAddress { descriptors, available, used, used_log };
        Some(Message::SetAddress { queue, address })
    }

    fn of_queue(&mut self, make: impl Fn(u32, bool) -> Message) -> Option<Message> {
        let word = self.u64()?;
        let queue = u32::try_from(word & (NO_DESCRIPTOR - 1)).ok()?;
        Some(make(queue, word & NO_DESCRIPTOR == 0))
    }

    /// A frontend that reads sends as many bytes as it wants.
    fn get_config(&mut self) -> Option<Message> {
        let (offset, len, flags) = (self.u32()?, self.u32()?, self.u32()?);
        let end = offset.checked_add(len)?;
        let is_inside = usize::try_from(end).ok()? <= MAX_CONFIG_BYTES;
        self.0 = &[];
        is_inside.then_some(Message::GetConfig { offset, len, flags })
    }

    fn set_config(&mut self) -> Option<Message> {
        let (offset, len, _flags) = (self.u32()?, self.u32()?, self.u32()?);
        let bytes = std::mem::take(&mut self.0).to_vec();
        (usize::try_from(len).ok()? == bytes.len()).then_some(Message::SetConfig { offset, bytes })
    }

    /// With or without what aligns it.
    fn inflight(&mut self) -> Option<InflightInfo> {
        let (len, offset) = (self.u64()?, self.u64()?);
        let (queues, size) = (self.u16()?, self.u16()?);
        if self.0.len() == 4 {
            self.0 = &[];
        }
        Some(InflightInfo { len, offset, queues, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_follows() {
        let head = |code: u32, flags: u32, len: u32| {
            let bytes = [code, flags, len].map(u32::to_le_bytes).concat();
            Head::parse(bytes.try_into().unwrap())
        };
        assert_eq!(head(5, 1, 8), Ok(Head { code: 5, needs_reply: false, body_bytes: 8 }));
        assert_eq!(head(5, 9, 0), Ok(Head { code: 5, needs_reply: true, body_bytes: 0 }));
        assert_eq!(head(5, 0, 8), Err(MessageError::Flags(0)));
        assert_eq!(head(5, 2, 8), Err(MessageError::Flags(2)));
        assert_eq!(head(5, 5, 8), Err(MessageError::Flags(5)));
        assert_eq!(head(5, 1, 4097), Err(MessageError::Length(4097)));
    }

    #[test]
    fn a_body_that_is_too_short_or_too_long_is_refused() {
        let sizes = [
            (1, 0),
            (2, 8),
            (3, 0),
            (6, 16),
            (8, 8),
            (9, 40),
            (10, 8),
            (11, 8),
            (12, 8),
            (13, 8),
            (14, 8),
            (15, 0),
            (16, 8),
            (17, 0),
            (18, 8),
            (21, 0),
            (34, 0),
            (36, 0),
            (37, 40),
            (38, 40),
            (39, 8),
            (40, 0),
        ];
        for (code, len) in sizes {
            for bytes in 0..64 {
                let parsed = Message::parse(code, &vec![0; bytes]);
                assert_eq!(parsed.is_ok(), bytes == len, "{code}: {bytes} {parsed:?}");
            }
        }
        // With and without what aligns it.
        for code in [31, 32] {
            let lens: Vec<_> =
                (0..64).filter(|len| Message::parse(code, &vec![0; *len]).is_ok()).collect();
            assert_eq!(lens, [20, 24], "{code}");
        }
        for code in [0, 19, 20, 22, 23, 26, 28, 33, 35, 41, 99, u32::MAX] {
            assert_eq!(Message::parse(code, &[]), Err(MessageError::Unknown(code)));
        }
    }

    #[test]
    fn a_table_has_as_many_regions_as_it_says_and_no_more_than_descriptors_can_come() {
        let table = |count: u32, len: usize| {
            Message::parse(5, &[&count.to_le_bytes()[..], &[0; 4], &vec![1; len]].concat())
        };
        let region = 0x0101_0101_0101_0101;
        let one = RegionInfo { guest: region, len: region, frontend: region, file_offset: region };
        assert_eq!(table(2, 64), Ok(Message::SetMemoryTable(vec![one; 2])));
        assert_eq!(table(8, 256), Ok(Message::SetMemoryTable(vec![one; 8])));
        assert_eq!(table(0, 0), Ok(Message::SetMemoryTable(vec![])));
        for (count, len) in [(2, 63), (2, 65), (1, 64), (9, 288), (u32::MAX, 64)] {
            assert_eq!(table(count, len), Err(MessageError::Malformed(5)), "{count} {len}");
        }
    }

    #[test]
    fn the_configuration_space_has_an_end() {
        let get = |offset: u32, len: u32| {
            let head = [offset, len, 0].map(u32::to_le_bytes).concat();
            Message::parse(24, &head).is_ok()
        };
        assert!(get(0, 256) && get(255, 1) && get(0, 0) && get(256, 0));
        assert!(!get(0, 257) && !get(256, 1) && !get(u32::MAX, 1) && !get(1, u32::MAX));
        let set = |len: u32, bytes: &[u8]| {
            let head = [32, len, 0].map(u32::to_le_bytes).concat();
            Message::parse(25, &[&head, bytes].concat())
        };
        assert_eq!(set(1, &[7]), Ok(Message::SetConfig { offset: 32, bytes: vec![7] }));
        assert_eq!(set(2, &[7]), Err(MessageError::Malformed(25)));
        assert_eq!(set(u32::MAX, &[7]), Err(MessageError::Malformed(25)));
    }

    #[test]
    fn a_queue_is_enabled_by_one_and_disabled_by_zero() {
        let set = |on: u32| Message::parse(18, &[3, on].map(u32::to_le_bytes).concat());
        assert_eq!(set(1), Ok(Message::SetEnabled { queue: 3, is_enabled: true }));
        assert_eq!(set(0), Ok(Message::SetEnabled { queue: 3, is_enabled: false }));
        assert_eq!(set(2), Err(MessageError::Malformed(18)));
    }
}
