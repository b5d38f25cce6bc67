//! Near-valid images in journal mode, as a crash leaves them: a superblock, a ring, and a log of
//! commits that give clusters to the tables of a sound image. A few bytes of it are changed, most of
//! them under a checksum that is right.

use arbitrary::{Result, Unstructured};
use qed_spec::Geometry;

use super::compat::{COPIES, SEED, TABLE_DIRTY, copy, section};
use super::{ImageCase, change};
use crate::crc32c::crc32c_of_seeded_block;
use crate::generators::number::number;
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// Clusters of 4 KiB of the header area: superblocks, and room for twelve blocks.
const HEADER_SIZE: u64 = 16;
const FIRST_RING: u64 = 16384;
const BLOCK: u64 = 4096;
/// Bits of features, and of autoclear_features.
const ACTIVE: u64 = 1 << 32;
const JOURNAL: u64 = 1 << 35;
/// Where the numbers of a block lie, and how many bytes they have.
const FIELDS: [(usize, usize); 10] =
    [(4, 4), (12, 4), (16, 8), (24, 8), (32, 8), (40, 8), (48, 4), (52, 4), (56, 4), (60, 4)];

/// An image with a log.
#[derive(Debug)]
pub(crate) struct JournalCase {
    pub(crate) storage: SparseStorage,
    /// The image without its log breaks no rule.
    pub(crate) is_sound: bool,
}

struct Ring {
    at: u64,
    blocks: u64,
    tail: u64,
    stable: u64,
    generation: u64,
}

/// A block before it is laid.
struct Block {
    bytes: Vec<u8>,
    /// The place in the ring, as a sequence.
    place: u64,
    previous_is_given: bool,
    seal: Seal,
}

/// What the checksum of a block is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seal {
    Right,
    OfAnotherEpoch,
    Torn,
}

impl JournalCase {
    pub(crate) fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let table_size = *from.choose(&[1, 1, 2])?;
        let geometry = Geometry::new(4096, table_size).expect("a legal shape");
        let mut image = ImageCase::of(from, geometry, HEADER_SIZE)?;
        let is_sound = from.ratio(7, 8)?;
        let ring = ring(from)?;
        superblock(from, &image, &ring)?;
        let is_written = from.arbitrary()?;
        let blocks = log(from, &mut image, &ring)?;
        if is_written {
            image.set_len(image.parts.end);
        }
        lay(&image, &ring, blocks);
        for _ in 0..if is_sound { 0 } else { from.int_in_range(1..=3)? } {
            change::change(&mut image, from)?;
        }
        Ok(Self { storage: image.storage, is_sound })
    }
}

fn ring(from: &mut Unstructured<'_>) -> Result<Ring> {
    let blocks = from.int_in_range(8..=12)?;
    let at = FIRST_RING + BLOCK * from.int_in_range(0..=12 - blocks)?;
    let tail = match from.int_in_range(0..=3)? {
        0 => 1,
        1 => (1 << 62) - from.int_in_range(0..=blocks)?,
        _ => from.int_in_range(1..=3 * blocks)?,
    };
    let generation = from.int_in_range(1..=3)?;
    Ok(Ring { at, blocks, tail, stable: tail - 1, generation })
}

/// Commits that follow each other from the tail on, and up to two changes of them.
fn log(from: &mut Unstructured<'_>, image: &mut ImageCase, ring: &Ring) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    for _ in 0..from.int_in_range(0..=4)? {
        let count = *from.choose(&[1, 1, 1, 2, 3, ring.blocks / 2])?;
        let first = ring.tail + blocks.len() as u64;
        if first + count > ring.tail + ring.blocks {
            break;
        }
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(block_records(from, image)?);
        }
        let spare = from.int_in_range(0..=1)?;
        let size = image.parts.end / image.parts.geometry.cluster_size_bytes() + spare;
        for (index, records) in (0..).zip(records) {
            let sequence = first + index;
            let head = [sequence, first - 1, ring.generation, size];
            blocks.push(block(head, index, count, &records));
        }
    }
    for _ in 0..from.int_in_range(0..=4_u8)?.saturating_sub(2) {
        change_block(from, &mut blocks, ring)?;
    }
    Ok(blocks)
}

fn block(head: [u64; 4], index: u64, count: u64, records: &[[u64; 4]]) -> Block {
    let mut bytes = vec![0; usize_of(BLOCK)];
    bytes[..4].copy_from_slice(b"QEDJ");
    let mut put = |at: usize, len: usize, value: u64| {
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    put(4, 4, 1);
    for (at, value) in (16..).step_by(8).zip(head) {
        put(at, 8, value);
    }
    put(48, 4, index);
    put(52, 4, count);
    put(56, 4, 24 * records.len() as u64);
    for (at, [kind, count, place, value]) in (64..).step_by(24).zip(records) {
        put(at, 4, *kind);
        put(at + 4, 4, *count);
        put(at + 8, 8, *place);
        put(at + 16, 8, *value);
    }
    Block { bytes, place: head[0], previous_is_given: false, seal: Seal::Right }
}

/// Up to four records as kind, count, at and value.
fn block_records(from: &mut Unstructured<'_>, image: &mut ImageCase) -> Result<Vec<[u64; 4]>> {
    let mut records = Vec::new();
    for _ in 0..from.int_in_range(0..=4)? {
        let mut record = record(from, image)?;
        if from.int_in_range(0..=31)? == 31 {
            let parts = &image.parts;
            let places = [record[2], record[3], parts.end, parts.l1_at, parts.header_end];
            record[from.int_in_range(0..=3)?] = number(from, &places)?;
        }
        records.push(record);
    }
    Ok(records)
}

fn record(from: &mut Unstructured<'_>, image: &mut ImageCase) -> Result<[u64; 4]> {
    let geometry = image.parts.geometry;
    let cluster = geometry.cluster_size_bytes();
    let kind = *from.choose(&[1, 2, 2, 2, 3, 4, 5])?;
    if kind == 1 || image.parts.tables.is_empty() {
        return link(from, image);
    }
    let table = from.choose(&image.parts.tables)?.at;
    let slot = match from.int_in_range(0..=3)? {
        0 => geometry.table_entries() - 1,
        _ => from.int_in_range(0..=8)?,
    };
    let count = from.int_in_range(1..=3)?.min(geometry.table_entries() - slot);
    let at = table + 8 * slot;
    Ok(match kind {
        2 if from.ratio(1, 16)? && !image.parts.data.is_empty() => {
            [2, 1, at, *from.choose(&image.parts.data)?]
        }
        2 => [2, count, at, image.take(count * cluster)],
        5 if image.parts.data.is_empty() => [4, count, at, 0],
        5 => [5, 1, *from.choose(&image.parts.data)?, 0],
        kind => [kind, count, at, 0],
    })
}

/// An L1 slot gets a new table, or loses the one that it has.
fn link(from: &mut Unstructured<'_>, image: &mut ImageCase) -> Result<[u64; 4]> {
    let geometry = image.parts.geometry;
    let slot = match from.int_in_range(0..=7)? {
        0 => geometry.table_entries() - 1,
        near => near % (image.parts.l1_slots + 1),
    };
    let at = image.parts.l1_at + 8 * slot;
    image.parts.tables.retain(|table| table.l1 != slot);
    if from.ratio(1, 8)? {
        return Ok([1, 1, at, 0]);
    }
    let table = image.take(geometry.table_size_bytes());
    image.parts.tables.push(super::Table { l1: slot, at: table, slots: Vec::new() });
    Ok([1, 1, at, table])
}

fn change_block(from: &mut Unstructured<'_>, blocks: &mut Vec<Block>, ring: &Ring) -> Result<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    let index = from.choose_index(blocks.len())?;
    let landmarks = [ring.tail, ring.blocks, blocks[index].place, ring.generation, 4032];
    let block = &mut blocks[index];
    match from.int_in_range(0..=7)? {
        0 => block.seal = Seal::OfAnotherEpoch,
        1 => block.place = block.place.wrapping_add(from.int_in_range(1..=3)?),
        2 => {
            let lap = ring.blocks * from.int_in_range(1..=2)?;
            let older = block.place.saturating_sub(lap);
            block.bytes[16..24].copy_from_slice(&older.to_le_bytes());
            block.bytes[24..32].copy_from_slice(&older.saturating_sub(1).to_le_bytes());
        }
        3 => drop(blocks.remove(index)),
        4 => {
            let (at, len) = *from.choose(&FIELDS)?;
            let mut found = [0; 8];
            found[..len].copy_from_slice(&block.bytes[at..at + len]);
            let value = number(from, &[&landmarks[..], &[u64::from_le_bytes(found)]].concat())?;
            block.bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            block.previous_is_given |= at == 12;
        }
        5 => {
            let at = from.int_in_range(12..=4095)?;
            block.bytes[at] = block.bytes[at].wrapping_add(1);
            block.previous_is_given |= at < 16;
        }
        _ => block.seal = Seal::Torn,
    }
    Ok(())
}

/// Seals the blocks in order and puts each into its place.
fn lay(image: &ImageCase, ring: &Ring, blocks: Vec<Block>) {
    let mut previous = 0_u32;
    for mut block in blocks {
        if !block.previous_is_given {
            block.bytes[12..16].copy_from_slice(&previous.to_le_bytes());
        }
        let mut seed = SEED;
        if block.seal == Seal::OfAnotherEpoch {
            seed[23] += 1;
        }
        let torn = u32::from(block.seal == Seal::Torn);
        previous = crc32c_of_seeded_block(&seed, &block.bytes) ^ torn;
        block.bytes[8..12].copy_from_slice(&previous.to_le_bytes());
        image.put(ring.at + block.place % ring.blocks * BLOCK, &block.bytes);
    }
}

/// Lays the superblock, and perhaps an older one, and sets the bits of the header.
fn superblock(from: &mut Unstructured<'_>, image: &ImageCase, ring: &Ring) -> Result<()> {
    let mut places = [ring.at, ring.blocks * BLOCK, ring.tail, ring.stable];
    let mut mode = 2_u64;
    match from.int_in_range(0..=31)? {
        30 => {
            let field = from.choose_index(places.len())?;
            places[field] = number(from, &[places[field], ring.tail, FIRST_RING, 1 << 62])?;
        }
        31 => mode = number(from, &[1, 2])?,
        27..30 => places[3] = places[3].wrapping_add(from.int_in_range(0..=ring.blocks)?),
        _ => {}
    }
    let mut sections = vec![section(1, &mode.to_le_bytes()[..4])];
    if from.int_in_range(0..=31)? < 31 {
        sections.push(section(3, &places.map(u64::to_le_bytes).concat()));
    }
    let has_bitmap = from.int_in_range(0..=7)? == 7;
    if has_bitmap {
        let at = FIRST_RING + 512 * from.int_in_range(0..=96)?;
        let bitmap = [at, 512, image.len()].map(u64::to_le_bytes).concat();
        sections.push(section(5, &bitmap));
    }
    let current = from.choose_index(COPIES.len())?;
    image.put(COPIES[current], &copy(ring.generation, &sections.concat()));
    if from.arbitrary()? {
        let is_newer = u64::from(!from.ratio(1, 16)?);
        let generation = ring.generation - is_newer;
        image.put(COPIES[1 - current], &copy(generation, &sections[0]));
    }
    let features = if from.int_in_range(0..=31)? < 31 { ACTIVE } else { 0 };
    image.put64(16, features);
    image.put64(32, JOURNAL | if has_bitmap { TABLE_DIRTY } else { 0 });
    Ok(())
}
