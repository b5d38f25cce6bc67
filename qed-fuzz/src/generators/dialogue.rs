//! What a client of an NBD server says: options, then requests, nearly right more often than not.
//!
//! The numbers are those of the protocol, written down here once more: a server that has a wrong one
//! must not find it right.

use arbitrary::{Result, Unstructured};

use crate::generators::number::number;

/// The names that a client asks for; the first two are there.
pub(crate) const NAMES: [&str; 4] = ["a", "b", "", "c"];
/// Bytes of either disk.
pub(crate) const DISK_SIZE: u64 = 1 << 20;
/// Payloads are not longer than this.
const MAX_PAYLOAD: u64 = 128 << 10;
const MAX_OPTIONS: u8 = 8;
const MAX_REQUESTS: u8 = 12;

/// All that a client says behind its flags.
#[derive(Debug)]
pub(crate) struct Dialogue {
    pub(crate) options: Vec<Said>,
    pub(crate) requests: Vec<Asked>,
    /// Whatever it says then.
    pub(crate) tail: Vec<u8>,
}

/// An option.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Abort,
    List,
    StartTls,
    Structured,
    Extended,
    ExportName {
        name: usize,
    },
    Info {
        name: usize,
        go: bool,
    },
    MetaContext {
        name: usize,
        allocation: bool,
        depth: bool,
        set: bool,
    },
    /// A number that nobody defined.
    Undefined {
        number: u32,
        data: Vec<u8>,
    },
    /// Data where there must be none.
    Overlong {
        number: u32,
        data: Vec<u8>,
    },
}

/// A request; a write brings `len` bytes of `fill` along.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) at: u64,
    pub(crate) len: u64,
    pub(crate) fill: u8,
}

impl Dialogue {
    pub(crate) fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let mut options = Vec::new();
        for _ in 0..from.int_in_range(0..=MAX_OPTIONS)? {
            options.push(Said::any(from)?);
        }
        // Most get as far as the requests.
        if from.ratio(7, 8)? {
            options.push(Said::Info { name: from.int_in_range(0..=1)?, go: true });
        }
        let mut requests = Vec::new();
        for _ in 0..from.int_in_range(0..=MAX_REQUESTS)? {
            requests.push(Asked::any(from)?);
        }
        Ok(Self { options, requests, tail: from.arbitrary()? })
    }
}

impl Said {
    fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let name = from.int_in_range(0..=3)?;
        Ok(match from.int_in_range(0..=11)? {
            0 => Self::List,
            1 => Self::StartTls,
            2 | 3 => Self::Structured,
            4 | 5 => Self::Extended,
            6 => Self::Info { name, go: from.ratio(1, 4)? },
            7 | 8 => Self::MetaContext {
                name,
                allocation: from.arbitrary()?,
                depth: from.arbitrary()?,
                set: from.ratio(7, 8)?,
            },
            9 => {
                let number = *from.choose(&[0, 4, 12, 77, u32::MAX])?;
                Self::Undefined { number, data: from.arbitrary()? }
            }
            10 => {
                let mut data: Vec<u8> = from.arbitrary()?;
                data.push(0);
                Self::Overlong { number: *from.choose(&[3, 5, 8, 11])?, data }
            }
            _ if from.ratio(1, 2)? => Self::ExportName { name },
            _ => Self::Abort,
        })
    }

    /// Number and data.
    pub(crate) fn encoded(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Abort => (2, Vec::new()),
            Self::List => (3, Vec::new()),
            Self::StartTls => (5, Vec::new()),
            Self::Structured => (8, Vec::new()),
            Self::Extended => (11, Vec::new()),
            Self::ExportName { name } => (1, NAMES[*name].into()),
            Self::Info { name, go } => {
                let data = [string(NAMES[*name]), vec![0, 1, 0, 3]].concat();
                (if *go { 7 } else { 6 }, data)
            }
            Self::MetaContext { name, allocation, depth, set } => {
                let mut queries = Vec::new();
                let wanted = [(*allocation, "base:allocation"), (*depth, "qemu:allocation-depth")];
                for (_, query) in wanted.iter().filter(|(wanted, _)| *wanted) {
                    queries.extend(string(query));
                }
                let count = u32::from(*allocation) + u32::from(*depth);
                let data = [string(NAMES[*name]), count.to_be_bytes().to_vec(), queries].concat();
                (if *set { 10 } else { 9 }, data)
            }
            Self::Undefined { number, data } | Self::Overlong { number, data } => {
                (*number, data.clone())
            }
        }
    }
}

impl Asked {
    fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let command =
            if from.ratio(15, 16)? { from.int_in_range(0..=8)? } else { from.arbitrary()? };
        let flags = if from.ratio(3, 4)? { 0 } else { 1 << from.int_in_range(0..=6)? };
        let landmarks = [0, 4096, 65_536, DISK_SIZE / 2, DISK_SIZE];
        let is_empty_flush = command == 3 && from.ratio(3, 4)?;
        let (at, mut len) = match from.ratio(7, 8)? {
            _ if is_empty_flush => (0, 0),
            true => {
                let at = number(from, &landmarks)? % (DISK_SIZE + 1);
                let len = number(from, &[512, 4096, 65_536])? % (MAX_PAYLOAD + 1);
                (at, len.min(DISK_SIZE - at))
            }
            false => (number(from, &landmarks)?, number(from, &landmarks)?),
        };
        if command == 1 || flags & 32 != 0 {
            len %= MAX_PAYLOAD + 1;
        }
        Ok(Self { flags, command, at, len, fill: from.arbitrary()? })
    }

    /// The bytes behind the header.
    pub(crate) fn payload(&self, is_extended: bool) -> Vec<u8> {
        let brings = self.command == 1 || (is_extended && self.flags & 32 != 0);
        let len = if brings { self.len } else { 0 };
        vec![self.fill; usize::try_from(len).expect("payloads are short")]
    }

    /// Header and payload; a header of the compact form has 32 bits for the length.
    pub(crate) fn encoded(&self, is_extended: bool) -> Vec<u8> {
        let magic: u32 = if is_extended { 0x21e4_1c71 } else { 0x2560_9513 };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.command.to_be_bytes());
        bytes.extend(u64::from(self.fill).to_be_bytes());
        bytes.extend(self.at.to_be_bytes());
        let len = self.len.to_be_bytes();
        bytes.extend(if is_extended { &len[..] } else { &len[4..] });
        bytes.extend(self.payload(is_extended));
        bytes
    }
}

fn string(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("names are short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}
