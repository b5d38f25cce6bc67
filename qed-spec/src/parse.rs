//! The nom parsers: header first, then what the header says follows it.

use nom::bytes::complete::take;
use nom::combinator::map_opt;
use nom::{IResult, Parser};
use zerocopy::FromBytes;

use crate::raw::{HEADER_LEN_BYTES, RawHeader};

/// The 64 header bytes at the front of `input`.
pub(crate) fn raw_header(input: &[u8]) -> IResult<&[u8], &RawHeader> {
    map_opt(take(HEADER_LEN_BYTES), |bytes| RawHeader::ref_from_bytes(bytes).ok()).parse(input)
}

/// `len` bytes from `offset` of `input`, which starts at byte 0 of the image.
pub(crate) fn bytes_at(input: &[u8], offset: u64, len: u64) -> IResult<&[u8], &[u8]> {
    let (rest, _) = take(offset)(input)?;
    take(len)(rest)
}
