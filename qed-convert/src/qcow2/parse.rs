//! The nom parsers of QCOW2: a structure first, then what it says follows it.
//!
//! The leaf of each parser is a view of `raw.rs`. Whether values are legal is asked elsewhere.

use nom::bytes::complete::take;
use nom::combinator::map_opt;
use nom::{IResult, Parser};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::raw::{RawBitmapHead, RawExtensionHead, RawSnapshotHead};

/// The structure `T` at the front of `input`.
pub(super) fn leaf<T: FromBytes + Immutable + KnownLayout + Unaligned>(
    input: &[u8],
) -> IResult<&[u8], &T> {
    map_opt(take(size_of::<T>()), |bytes| T::ref_from_bytes(bytes).ok()).parse(input)
}

/// A header extension: its number and its payload; consumes the padding.
pub(super) fn extension(input: &[u8]) -> IResult<&[u8], (u32, &[u8])> {
    let (rest, head) = leaf::<RawExtensionHead>(input)?;
    let (rest, payload) = take(head.len.get())(rest)?;
    // The last extension may end where the area does, without its padding.
    let padding = padding_of(payload.len()).min(rest.len());
    let (rest, _) = take(padding)(rest)?;
    Ok((rest, (head.kind.get(), payload)))
}

/// What follows the head of a snapshot table entry.
pub(super) struct SnapshotTail<'a> {
    pub(super) extra: &'a [u8],
    pub(super) id: &'a [u8],
    pub(super) name: &'a [u8],
}

/// What follows the head of a snapshot table entry, up to the padding.
pub(super) fn snapshot_tail<'a>(
    head: &RawSnapshotHead,
    input: &'a [u8],
) -> IResult<&'a [u8], SnapshotTail<'a>> {
    let (rest, extra) = take(head.extra_data_size.get())(input)?;
    let (rest, id) = take(head.id_str_size.get())(rest)?;
    let (rest, name) = take(head.name_size.get())(rest)?;
    Ok((rest, SnapshotTail { extra, id, name }))
}

/// A bitmap directory entry: head and name; consumes the padding.
pub(super) fn bitmap(input: &[u8]) -> IResult<&[u8], (&RawBitmapHead, &[u8])> {
    let (rest, head) = leaf::<RawBitmapHead>(input)?;
    let (rest, _) = take(head.extra_data_size.get())(rest)?;
    let (rest, name) = take(head.name_size.get())(rest)?;
    let (rest, _) = take(padding_of(input.len() - rest.len()))(rest)?;
    Ok((rest, (head, name)))
}

/// Bytes from `len` to the next multiple of 8.
pub(super) fn padding_of(len: usize) -> usize {
    len.wrapping_neg() & 7
}
