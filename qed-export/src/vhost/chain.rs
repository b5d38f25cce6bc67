//! Chains of descriptors: what a driver offers as one request, read once and checked.
//!
//! A guest can change descriptors while they are read, so each is copied once and never looked at again.

use thiserror::Error;

use super::memory::{Area, Memory, MemoryError, Piece};
use super::wire::descriptor::{INDIRECT, NEXT, WRITE};

/// The most descriptors of a chain, and the most pieces that they make. Drivers use at most what the
/// device says, `seg_max` and two.
pub(super) const MAX_DESCRIPTORS: usize = 1024;
/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 16;

/// Why a chain is none that a driver may offer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum ChainError {
    #[error("descriptor {index} is not in its table of {entries}")]
    NoDescriptor { index: u32, entries: u32 },
    #[error("a chain of more than {MAX_DESCRIPTORS} descriptors, or one that is a ring")]
    TooLong,
    #[error("a chain of 4 GiB or more")]
    TooManyBytes,
    #[error("a part to read from comes after one to write to")]
    OutOfOrder,
    #[error("an indirect table inside another, in a chain that goes on, or not negotiated")]
    BadIndirect,
    #[error("an indirect table of {0} bytes")]
    IndirectLength(u32),
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The parts of one chain, in order; made once and filled again for each.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// What the driver wrote.
    pub(super) readable: Vec<Piece>,
    /// Where the device writes.
    pub(super) writable: Vec<Piece>,
}

struct Descriptor {
    at: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Chain {
    /// Reads the chain at `head` of a table of descriptors.
    pub(super) fn fill(
        &mut self,
        table: &Area,
        entries: u16,
        head: u16,
        memory: &Memory,
        takes_indirect: bool,
    ) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();
        let (mut lens, entries) = ([0; 2], u32::from(entries));
        let indirect = self.follow(head, entries, &mut lens, memory, |index| {
            let offset = index as usize * DESCRIPTOR_BYTES;
            table.read(offset).ok_or(ChainError::NoDescriptor { index, entries })
        })?;
        let Some(table) = indirect else { return Ok(()) };
        let len = table.len as usize;
        let entries = u32::try_from(len / DESCRIPTOR_BYTES).unwrap_or(u32::MAX);
        if !takes_indirect {
            return Err(ChainError::BadIndirect);
        }
        if entries == 0 || !len.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(ChainError::IndirectLength(table.len));
        }
        let nested = self.follow(0, entries, &mut lens, memory, |index| {
            let mut bytes = [0; DESCRIPTOR_BYTES];
            let offset = u64::from(index) * DESCRIPTOR_BYTES as u64;
            memory.read(&mut bytes, table.at.saturating_add(offset))?;
            Ok(bytes)
        })?;
        if nested.is_some() { Err(ChainError::BadIndirect) } else { Ok(()) }
    }

    /// Goes from `head` to the end of a chain, or to the indirect table that ends it.
    fn follow(
        &mut self,
        head: u16,
        entries: u32,
        lens: &mut [u64; 2],
        memory: &Memory,
        fetch: impl Fn(u32) -> Result<[u8; DESCRIPTOR_BYTES], ChainError>,
    ) -> Result<Option<Descriptor>, ChainError> {
        let mut index = u32::from(head);
        let most = (entries as usize).min(MAX_DESCRIPTORS);
        for _ in 0..most {
            if index >= entries {
                return Err(ChainError::NoDescriptor { index, entries });
            }
            let descriptor = Descriptor::parse(fetch(index)?);
            let goes_on = descriptor.flags & NEXT != 0;
            if descriptor.flags & INDIRECT != 0 {
                return if goes_on { Err(ChainError::BadIndirect) } else { Ok(Some(descriptor)) };
            }
            self.push(&descriptor, lens, memory)?;
            if !goes_on {
                return Ok(None);
            }
            index = u32::from(descriptor.next);
        }
        Err(ChainError::TooLong)
    }

    fn push(
        &mut self,
        descriptor: &Descriptor,
        lens: &mut [u64; 2],
        memory: &Memory,
    ) -> Result<(), ChainError> {
        let writable = descriptor.flags & WRITE != 0;
        if !writable && !self.writable.is_empty() {
            return Err(ChainError::OutOfOrder);
        }
        let len = &mut lens[usize::from(writable)];
        *len += u64::from(descriptor.len);
        if *len > u64::from(u32::MAX) {
            return Err(ChainError::TooManyBytes);
        }
        let pieces = if writable { &mut self.writable } else { &mut self.readable };
        memory.cut(descriptor.at, descriptor.len, |piece| pieces.push(piece))?;
        if self.readable.len() + self.writable.len() > MAX_DESCRIPTORS {
            return Err(ChainError::TooLong);
        }
        Ok(())
    }
}

impl Descriptor {
    fn parse(bytes: [u8; DESCRIPTOR_BYTES]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Self {
            at: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }
}

/// Takes the first `N` bytes off what the driver wrote, if there are as many.
pub(super) fn take_front<const N: usize>(
    pieces: &mut Vec<Piece>,
    memory: &Memory,
) -> Result<Option<[u8; N]>, MemoryError> {
    let mut bytes = [0; N];
    let (mut done, mut whole) = (0, 0);
    for piece in pieces.iter_mut() {
        let part = (piece.len as usize).min(N - done);
        memory.read(&mut bytes[done..done + part], piece.at)?;
        done += part;
        let taken = u32::try_from(part).unwrap_or(piece.len);
        *piece = Piece { at: piece.at + u64::from(taken), len: piece.len - taken };
        if piece.len > 0 {
            break;
        }
        whole += 1;
    }
    pieces.drain(..whole);
    Ok((done == N).then_some(bytes))
}

/// Takes the last byte off what the device writes, and says where it is.
pub(super) fn take_last(pieces: &mut Vec<Piece>) -> Option<u64> {
    let last = pieces.last_mut()?;
    last.len -= 1;
    let at = last.at + u64::from(last.len);
    if last.len == 0 {
        pieces.pop();
    }
    Some(at)
}

/// Bytes of the pieces.
pub(super) fn len_of(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.len)).sum()
}

#[cfg(test)]
mod tests;
