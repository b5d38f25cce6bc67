//! The nom parsers: a structure first, then what it says follows it.
//!
//! The leaf of each parser is a view of `raw.rs`. Whether values are legal is asked elsewhere.

use nom::bytes::complete::take;
use nom::combinator::map_opt;
use nom::{IResult, Parser};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::raw::{RawHeader, RawSectionHead};

/// The structure `T` at the front of `input`.
pub(crate) fn leaf<T: FromBytes + Immutable + KnownLayout + Unaligned>(
    input: &[u8],
) -> IResult<&[u8], &T> {
    map_opt(take(size_of::<T>()), |bytes| T::ref_from_bytes(bytes).ok()).parse(input)
}

/// The 64 header bytes at the front of `input`.
pub(crate) fn raw_header(input: &[u8]) -> IResult<&[u8], &RawHeader> {
    leaf(input)
}

/// `len` bytes from `offset` of `input`, which starts at byte 0 of the image.
pub(crate) fn bytes_at(input: &[u8], offset: u64, len: u64) -> IResult<&[u8], &[u8]> {
    let (rest, _) = take(offset)(input)?;
    take(len)(rest)
}

/// The parts of one section of a superblock.
pub(crate) struct RawSection<'a> {
    /// Type and length.
    pub(crate) head: &'a RawSectionHead,
    /// As many bytes as the head says.
    pub(crate) payload: &'a [u8],
    /// Up to seven bytes more, to a multiple of 8.
    pub(crate) padding: &'a [u8],
}

/// The section of a superblock at the front of `input`.
// spec: QED-SB-05
pub(crate) fn section(input: &[u8]) -> IResult<&[u8], RawSection<'_>> {
    let (rest, head) = leaf::<RawSectionHead>(input)?;
    let (rest, payload) = take(head.len.get())(rest)?;
    let (rest, padding) = take(head.len.get().wrapping_neg() & 7)(rest)?;
    Ok((rest, RawSection { head, payload, padding }))
}
