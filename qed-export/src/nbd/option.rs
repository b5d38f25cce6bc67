//! What a client asks for before it has a disk: options as values. Parses, decides nothing.

use super::wire::{Fields, OPTION_MAGIC, info, option};
use crate::server::MAX_NAME_BYTES;

/// Bytes of the header before the data of an option.
pub(super) const OPTION_HEADER_BYTES: usize = 16;
/// More data than any option needs that is answered: a name and a list of queries.
pub(super) const MAX_OPTION_BYTES: usize = 64 << 10;
/// More strings than any client asks for at once.
const MAX_QUERIES: u32 = 64;

/// The header of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionHeader {
    pub(super) number: u32,
    pub(super) len: usize,
}

impl OptionHeader {
    /// None for what is no option, or one that is longer than any that could be answered.
    pub(super) fn parse(bytes: &[u8; OPTION_HEADER_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.u64()?;
        let number = fields.u32()?;
        let len = usize::try_from(fields.u32()?).ok()?;
        (magic == OPTION_MAGIC && len <= MAX_OPTION_BYTES).then_some(Self { number, len })
    }
}

/// An option that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request<'a> {
    ExportName(&'a [u8]),
    Abort,
    List,
    StartTls,
    /// INFO, or GO, which begins the transmission too.
    Info {
        name: &'a [u8],
        wanted: InfoWanted,
        go: bool,
    },
    StructuredReply,
    ExtendedHeaders,
    /// LIST, or SET, which selects.
    MetaContext {
        name: &'a [u8],
        queries: Vec<&'a [u8]>,
        set: bool,
    },
}

/// What is to be told beside the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct InfoWanted {
    pub(super) name: bool,
    pub(super) description: bool,
    pub(super) block_size: bool,
}

/// Why an option is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A number that nobody defined or that is not served.
    Unsupported,
    /// Data that is not of the option's form.
    Invalid,
    /// A string longer than [`MAX_NAME_BYTES`], or too many of them.
    TooBig,
}

impl<'a> Request<'a> {
    /// What an option's data says.
    pub(super) fn parse(number: u32, data: &'a [u8]) -> Result<Self, Malformed> {
        let bare = |request| if data.is_empty() { Ok(request) } else { Err(Malformed::Invalid) };
        match number {
            option::EXPORT_NAME => name(data).map(Self::ExportName),
            // Whoever wants to leave may leave, whatever the data.
            option::ABORT => Ok(Self::Abort),
            option::LIST => bare(Self::List),
            option::STARTTLS => bare(Self::StartTls),
            option::STRUCTURED_REPLY => bare(Self::StructuredReply),
            option::EXTENDED_HEADERS => bare(Self::ExtendedHeaders),
            option::INFO | option::GO => parse_info(data, number == option::GO),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                parse_meta_context(data, number == option::SET_META_CONTEXT)
            }
            _ => Err(Malformed::Unsupported),
        }
    }
}

fn parse_info(data: &[u8], go: bool) -> Result<Request<'_>, Malformed> {
    let mut fields = Fields(data);
    let name = name(fields.string().ok_or(Malformed::Invalid)?)?;
    let count = fields.u16().ok_or(Malformed::Invalid)?;
    let mut wanted = InfoWanted::default();
    for _ in 0..count {
        match fields.u16().ok_or(Malformed::Invalid)? {
            info::NAME => wanted.name = true,
            info::DESCRIPTION => wanted.description = true,
            info::BLOCK_SIZE => wanted.block_size = true,
            // Of the rest a client is told what the server likes to tell.
            _ => {}
        }
    }
    if fields.is_empty() { Ok(Request::Info { name, wanted, go }) } else { Err(Malformed::Invalid) }
}

fn parse_meta_context(data: &[u8], set: bool) -> Result<Request<'_>, Malformed> {
    let mut fields = Fields(data);
    let export = name(fields.string().ok_or(Malformed::Invalid)?)?;
    let count = fields.u32().ok_or(Malformed::Invalid)?;
    if count > MAX_QUERIES {
        return Err(Malformed::TooBig);
    }
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(name(fields.string().ok_or(Malformed::Invalid)?)?);
    }
    let request = Request::MetaContext { name: export, queries, set };
    if fields.is_empty() { Ok(request) } else { Err(Malformed::Invalid) }
}

fn name(bytes: &[u8]) -> Result<&[u8], Malformed> {
    if bytes.len() > MAX_NAME_BYTES { Err(Malformed::TooBig) } else { Ok(bytes) }
}
