//! Rings of a guest: requests that are right, and changes of any byte of them.

use arbitrary::{Result, Unstructured};

use super::number::number;

/// Bytes of the disk, which ends inside a sector.
pub(crate) const DISK_SIZE: u64 = 64 * 512 + 100;
/// The regions of guest memory: two that meet, and one far away.
pub(crate) const REGIONS: [(u64, u64); 3] =
    [(0, 0x4000), (0x4000, 0x2000), (0xffff_ffff_0000_0000, 0x1000)];
/// Where the parts of the ring are.
pub(crate) const TABLE: u64 = 0;
pub(crate) const AVAILABLE: u64 = 0x400;
pub(crate) const USED: u64 = 0x600;
/// A table for indirect descriptors, heads, statuses and data come behind.
const INDIRECT: u64 = 0x1000;
const HEADS: u64 = 0x2000;
const STATUSES: u64 = 0x2f00;
const DATA: u64 = 0x3000;

/// Descriptors that the device writes, that go on, that are tables.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const TABLE_OF: u16 = 4;

pub(crate) const INDIRECT_FEATURE: u64 = 1 << 28;
pub(crate) const EVENT_FEATURE: u64 = 1 << 29;

/// A queue, and what its guest does with it.
#[derive(Debug)]
pub(crate) struct QueueCase {
    pub(crate) size: u16,
    pub(crate) features: u64,
    pub(crate) is_read_only: bool,
    pub(crate) is_logged: bool,
    pub(crate) has_inflight: bool,
    /// Where the indices begin.
    pub(crate) base: u16,
    pub(crate) rounds: Vec<Vec<Poke>>,
}

/// What a guest writes before the queue is served.
#[derive(Debug)]
pub(crate) enum Poke {
    /// Bytes anywhere.
    Bytes { at: u64, bytes: Vec<u8> },
    /// A head into the available ring, and its index one further.
    Offer(u16),
    /// An index of the available ring, so many further than it is.
    Jump(u16),
}

impl QueueCase {
    pub(crate) fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let size = 1 << from.int_in_range(0..=5)?;
        let features = [INDIRECT_FEATURE | EVENT_FEATURE, INDIRECT_FEATURE, EVENT_FEATURE, 0];
        let features = *from.choose(&features)?;
        let (is_read_only, is_logged) = (from.ratio(1, 8)?, from.arbitrary()?);
        let (has_inflight, base) = (from.arbitrary()?, *from.choose(&[0, 0, 5, u16::MAX])?);
        let mut rounds = Vec::new();
        for _ in 0..from.int_in_range(1..=4)? {
            rounds.push(round(from, size)?);
        }
        Ok(Self { size, features, is_read_only, is_logged, has_inflight, base, rounds })
    }
}

/// Requests, then perhaps a change of some bytes that were written.
fn round(from: &mut Unstructured<'_>, size: u16) -> Result<Vec<Poke>> {
    let mut pokes = Vec::new();
    let mut next = 0;
    for _ in 0..from.int_in_range(0..=3)? {
        let head = if from.ratio(1, 16)? { from.arbitrary()? } else { next % size };
        next += request(from, head, &mut pokes)?;
    }
    for _ in 0..from.int_in_range(0..=2)? {
        let place = from.int_in_range(0..=0x2fff)?;
        let at = number(from, &[TABLE, AVAILABLE, USED, INDIRECT, HEADS, place])?;
        let len = from.int_in_range(1..=16)?;
        pokes.push(Poke::Bytes { at, bytes: from.bytes(len)?.to_vec() });
    }
    if from.ratio(1, 8)? {
        pokes.push(Poke::Jump(u16::try_from(number(from, &[size.into()])? & 0xffff).unwrap_or(0)));
    }
    Ok(pokes)
}

/// One request, nearly right; how many descriptors of the table it took.
fn request(from: &mut Unstructured<'_>, head: u16, pokes: &mut Vec<Poke>) -> Result<u16> {
    let kind = *from.choose(&[0, 0, 1, 1, 4, 8, 11, 13, 2, u32::MAX])?;
    let end = DISK_SIZE / 512;
    let sector =
        if from.ratio(3, 4)? { from.int_in_range(0..=end - 4)? } else { number(from, &[end])? };
    let slot = u64::from(head % 8);
    let (head_at, status_at) = (HEADS + slot * 0x40, STATUSES + slot);
    pokes.push(bytes(head_at, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()));

    let data_at = DATA + u64::from(from.int_in_range(0..=0x2f_u8)?) * 0x100;
    let len = match kind {
        8 => from.int_in_range(0..=40)?,
        11 | 13 => 16 * from.int_in_range(0..=2_u32)?,
        _ => 512 * from.int_in_range(0..=3_u32)?,
    };
    let len = if from.ratio(1, 8)? { len + 1 } else { len };
    if matches!(kind, 11 | 13) {
        let flags = *from.choose(&[0, 0, 1, 2])?;
        for index in 0..2 {
            let sectors = if from.ratio(1, 8)? { u32::MAX } else { from.int_in_range(0..=5)? };
            let at = sector.wrapping_add(index).to_le_bytes();
            let range = [&at[..], &sectors.to_le_bytes(), &u32::to_le_bytes(flags)].concat();
            pokes.push(bytes(data_at + index * 16, &range));
        }
    }
    let writes = if matches!(kind, 0 | 8) { WRITE } else { 0 };
    let cut = from.int_in_range(0..=len)?;
    let mut parts = vec![
        (head_at, 16, 0),
        (data_at, cut, writes),
        (data_at + u64::from(cut), len - cut, writes),
        (status_at, 1, WRITE),
    ];
    parts.retain(|part| part.1 > 0);
    break_one(from, &mut parts)?;
    Ok(lay_out(from.ratio(1, 3)?, head, &parts, pokes))
}

type Part = (u64, u32, u16);

/// Makes one part another.
fn break_one(from: &mut Unstructured<'_>, parts: &mut Vec<Part>) -> Result<()> {
    if !from.ratio(1, 4)? {
        return Ok(());
    }
    let index = from.choose_index(parts.len())?;
    let (at, len, flags) = &mut parts[index];
    match from.int_in_range(0..=3)? {
        0 => *at = number(from, &[0x4000, 0x6000, USED, REGIONS[2].0 + 0x1000])?,
        1 => *len = u32::try_from(number(from, &[16, 512])? & 0xffff_ffff).unwrap_or(0),
        2 => *flags ^= WRITE,
        _ => drop(parts.remove(index)),
    }
    Ok(())
}

/// Writes a chain, and offers it.
fn lay_out(is_indirect: bool, head: u16, parts: &[Part], pokes: &mut Vec<Poke>) -> u16 {
    let mut describe = |table: u64, index: u16, (at, len, flags): Part, next: u16| {
        let numbers = [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes()].concat();
        let place = table.wrapping_add(u64::from(index) * 16);
        pokes.push(bytes(place, &[&numbers, &next.to_le_bytes()[..]].concat()));
    };
    let table = if is_indirect { INDIRECT + u64::from(head % 8) * 0x100 } else { TABLE };
    let first = if is_indirect { 0 } else { head };
    for (index, (at, len, flags)) in (0..).zip(parts) {
        let more = if usize::from(index) + 1 < parts.len() { NEXT } else { 0 };
        let place = first.wrapping_add(index);
        describe(table, place, (*at, *len, flags | more), place.wrapping_add(1));
    }
    let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    if is_indirect {
        describe(TABLE, head, (table, u32::from(count) * 16, TABLE_OF), 0);
    }
    pokes.push(Poke::Offer(head));
    if is_indirect { 1 } else { count }
}

fn bytes(at: u64, bytes: &[u8]) -> Poke {
    Poke::Bytes { at, bytes: bytes.to_vec() }
}
