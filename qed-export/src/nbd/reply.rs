//! Replies as bytes: in the simple form, as structured chunks, as extended chunks. Knows no disk.

use std::io::IoSlice;
use std::ops::Range;

use super::request::Target;
use super::wire::{CHUNK_MAGIC, EXTENDED_CHUNK_MAGIC, Errno, SIMPLE_REPLY_MAGIC, chunk};

/// The form of replies that was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replies {
    /// An error number, and data if there is none.
    Simple,
    /// Chunks with a length of 32 bits.
    Structured,
    /// Chunks with a length of 64 bits.
    Extended,
}

/// What block status tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetaContext {
    /// Whether there are holes and zeros.
    Allocation,
    /// Which image of a chain has the bytes.
    Depth,
}

impl MetaContext {
    pub(super) const ALL: [Self; 2] = [Self::Allocation, Self::Depth];

    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Allocation => b"base:allocation",
            Self::Depth => b"qemu:allocation-depth",
        }
    }

    /// Whether a query is about it: by its name, or, to list and not to select, its namespace.
    pub(super) fn is_meant_by(self, query: &[u8], by_name_only: bool) -> bool {
        let name = self.name();
        let is_namespace = query.ends_with(b":") && name.starts_with(query);
        name == query || (is_namespace && !by_name_only)
    }

    /// The number that replies carry.
    pub(super) const fn id(self) -> u32 {
        match self {
            Self::Allocation => 1,
            Self::Depth => 2,
        }
    }
}

/// The contexts that a client selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Contexts {
    allocation: bool,
    depth: bool,
}

impl Contexts {
    pub(super) fn select(&mut self, context: MetaContext) {
        match context {
            MetaContext::Allocation => self.allocation = true,
            MetaContext::Depth => self.depth = true,
        }
    }

    pub(super) fn has(self, context: MetaContext) -> bool {
        match context {
            MetaContext::Allocation => self.allocation,
            MetaContext::Depth => self.depth,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// A run of bytes with one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) len: u64,
    pub(super) flags: u32,
}

/// Whether a chunk ends its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    Last,
    Inner,
}

/// The reply to one request, ready to be sent. Its buffers are used again for the next.
#[derive(Debug, Default)]
pub(super) struct Reply {
    heads: Vec<u8>,
    chunks: Vec<Chunk>,
}

/// Bytes of `heads`, then bytes of the data that was read.
#[derive(Debug)]
struct Chunk {
    head: Range<usize>,
    data: Range<usize>,
}

/// Writes the reply to one request in the form that was agreed on.
#[derive(Debug)]
pub(super) struct ReplyTo<'r> {
    reply: &'r mut Reply,
    replies: Replies,
    target: Target,
}

impl Reply {
    /// Begins anew.
    pub(super) fn to(&mut self, target: Target, replies: Replies) -> ReplyTo<'_> {
        self.heads.clear();
        self.chunks.clear();
        ReplyTo { reply: self, replies, target }
    }

    /// The parts in the order in which they are sent.
    pub(super) fn parts<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = IoSlice<'a>> {
        let parts = self
            .chunks
            .iter()
            .flat_map(move |chunk| [&self.heads[chunk.head.clone()], &data[chunk.data.clone()]]);
        parts.filter(|part| !part.is_empty()).map(IoSlice::new)
    }
}

impl ReplyTo<'_> {
    pub(super) fn replies(&self) -> Replies {
        self.replies
    }

    /// Done, and there is nothing to tell.
    pub(super) fn done(&mut self) {
        match self.replies {
            Replies::Simple => self.simple(0, 0..0),
            Replies::Structured | Replies::Extended => {
                self.chunk(chunk::NONE, Position::Last, &[], 0..0);
            }
        }
    }

    /// Bytes of the disk from `at`, which lie in `data` of the buffer that is sent along.
    pub(super) fn data(&mut self, at: u64, data: Range<usize>, position: Position) {
        match self.replies {
            Replies::Simple => self.simple(0, data),
            Replies::Structured | Replies::Extended => {
                self.chunk(chunk::OFFSET_DATA, position, &[&at.to_be_bytes()], data);
            }
        }
    }

    /// Zeros of the disk from `at`; not in the simple form.
    pub(super) fn hole(&mut self, at: u64, len: u32, position: Position) {
        let body: [&[u8]; 2] = [&at.to_be_bytes(), &len.to_be_bytes()];
        self.chunk(chunk::OFFSET_HOLE, position, &body, 0..0);
    }

    /// What a context tells; not in the simple form.
    pub(super) fn status(&mut self, of: MetaContext, list: &[Status], position: Position) {
        let id = of.id().to_be_bytes();
        let mut body = Vec::with_capacity(list.len() * 16 + 4);
        if self.replies == Replies::Extended {
            body.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_be_bytes());
            for status in list {
                body.extend(status.len.to_be_bytes());
                body.extend(u64::from(status.flags).to_be_bytes());
            }
            return self.chunk(chunk::BLOCK_STATUS_EXTENDED, position, &[&id, &body], 0..0);
        }
        for status in list {
            body.extend(u32::try_from(status.len).unwrap_or(u32::MAX).to_be_bytes());
            body.extend(status.flags.to_be_bytes());
        }
        self.chunk(chunk::BLOCK_STATUS, position, &[&id, &body], 0..0);
    }

    /// Refused, in place of everything that was put here before.
    pub(super) fn error(&mut self, errno: Errno, text: &str) {
        self.reply.heads.clear();
        self.reply.chunks.clear();
        // The numbers of the protocol are the values of the enum.
        let number = errno as u32;
        match self.replies {
            Replies::Simple => self.simple(number, 0..0),
            Replies::Structured | Replies::Extended => {
                let text = text.as_bytes();
                let len = u16::try_from(text.len()).unwrap_or(0);
                let text = &text[..usize::from(len)];
                let body: [&[u8]; 3] = [&number.to_be_bytes(), &len.to_be_bytes(), text];
                self.chunk(chunk::ERROR, Position::Last, &body, 0..0);
            }
        }
    }

    fn simple(&mut self, errno: u32, data: Range<usize>) {
        let start = self.reply.heads.len();
        let heads = &mut self.reply.heads;
        heads.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
        heads.extend(errno.to_be_bytes());
        heads.extend(self.target.cookie.to_be_bytes());
        let head = start..heads.len();
        self.reply.chunks.push(Chunk { head, data });
    }

    fn chunk(&mut self, kind: u16, position: Position, body: &[&[u8]], data: Range<usize>) {
        let flags = if position == Position::Last { chunk::DONE } else { 0 };
        let len = body.iter().map(|part| part.len()).sum::<usize>() + data.len();
        let Target { cookie, at } = self.target;
        let heads = &mut self.reply.heads;
        let start = heads.len();
        let extended = self.replies == Replies::Extended;
        let magic = if extended { EXTENDED_CHUNK_MAGIC } else { CHUNK_MAGIC };
        heads.extend(magic.to_be_bytes());
        heads.extend(flags.to_be_bytes());
        heads.extend(kind.to_be_bytes());
        heads.extend(cookie.to_be_bytes());
        if extended {
            heads.extend(at.to_be_bytes());
            heads.extend((len as u64).to_be_bytes());
        } else {
            let len = u32::try_from(len).expect("no reply is longer than a request may be");
            heads.extend(len.to_be_bytes());
        }
        heads.extend(body.iter().copied().flatten());
        let head = start..heads.len();
        self.reply.chunks.push(Chunk { head, data });
    }
}
