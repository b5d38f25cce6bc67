//! Near-valid images: a sound one with a few tables, and a few changes of the kind that crashes,
//! bugs and attackers make.

mod change;
mod compat;
pub(crate) mod journal;

use std::ops::Range;

use arbitrary::{Result, Unstructured};
use qed_io::Storage;
use qed_spec::Geometry;

use crate::generators::header::any_geometry;
use crate::operation::content;
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// The name that images with a backing file have for it, and where in the header area it lies.
const BACKING_NAME: &[u8] = b"backing";
const BACKING_NAME_AT: u64 = 64;
/// Clusters larger than this get data in their first and last bytes only.
const FILL_BYTES: u64 = 4096;

/// An image in memory. Most break a rule or two.
#[derive(Debug)]
pub(crate) struct ImageCase {
    pub(crate) storage: SparseStorage,
    /// What lies in it, as far as it is sound: where changes like to point to.
    parts: Parts,
}

/// The parts of the image before anything was changed.
#[derive(Debug)]
struct Parts {
    geometry: Geometry,
    header_end: u64,
    l1_at: u64,
    /// L1 slots that the virtual disk needs.
    l1_slots: u64,
    tables: Vec<Table>,
    /// First bytes of the data clusters.
    data: Vec<u64>,
    /// End of the last cluster in use.
    end: u64,
}

#[derive(Debug)]
struct Table {
    l1: u64,
    at: u64,
    /// Slots that have an entry.
    slots: Vec<u64>,
}

impl ImageCase {
    /// A sound image and up to four changes.
    pub(crate) fn near_valid(from: &mut Unstructured<'_>) -> Result<Self> {
        let mut case = Self::sound(from)?;
        compat::dress(&case, from)?;
        for _ in 0..from.int_in_range(0..=4)? {
            change::change(&mut case, from)?;
        }
        Ok(case)
    }

    /// An image that breaks no rule, without a backing file.
    pub(crate) fn sound(from: &mut Unstructured<'_>) -> Result<Self> {
        let geometry = shape(from)?;
        let header_size = from.int_in_range(1..=5_u64)?;
        Self::of(from, geometry, header_size)
    }

    /// As [`Self::sound`], with a header area of so many clusters.
    fn of(from: &mut Unstructured<'_>, geometry: Geometry, header_size: u64) -> Result<Self> {
        let (cluster, coverage) = (geometry.cluster_size_bytes(), geometry.l2_coverage_bytes());
        let header_end = header_size * cluster;
        let l1_slots = from.int_in_range(1..=3_u64)?;
        let last_part = match from.int_in_range(0..=3)? {
            0 => coverage,
            1 => 512 * from.int_in_range(1..=64)?,
            _ => cluster * from.int_in_range(1..=16)?,
        };
        let image_size = (l1_slots - 1).saturating_mul(coverage).saturating_add(last_part);
        let image_size = image_size.min(geometry.max_image_size_bytes()).min((1 << 63) - 512);
        let l1_slots = geometry.l1_entries_for(image_size);
        let parts = Parts {
            geometry,
            header_end,
            l1_at: header_end,
            l1_slots,
            tables: Vec::new(),
            data: Vec::new(),
            end: header_end + geometry.table_size_bytes(),
        };
        let mut case = Self { storage: SparseStorage::of_len(parts.end), parts };
        case.write_header(header_size, image_size);
        for _ in 0..from.int_in_range(0..=3)? {
            case.add_table(from, image_size)?;
        }
        case.set_len(case.parts.end);
        Ok(case)
    }

    fn write_header(&mut self, header_size: u64, image_size: u64) {
        self.put(0, b"QED\0");
        self.put32(4, self.parts.geometry.cluster_size_bytes());
        self.put32(8, self.parts.geometry.table_size_clusters());
        self.put32(12, header_size);
        self.put64(40, self.parts.l1_at);
        self.put64(48, image_size);
    }

    /// Adds an L2 table, unless its L1 slot has one, with a few entries.
    fn add_table(&mut self, from: &mut Unstructured<'_>, image_size: u64) -> Result<()> {
        let l1 = from.int_in_range(0..=self.parts.l1_slots.min(4) - 1)?;
        if self.parts.tables.iter().any(|table| table.l1 == l1) {
            return Ok(());
        }
        let geometry = self.parts.geometry;
        let at = self.take(geometry.table_size_bytes());
        self.put64(self.parts.l1_at + 8 * l1, at);
        let before = l1 * geometry.l2_coverage_bytes();
        let clusters = geometry.clusters_for(image_size - before).get();
        let slots = clusters.min(geometry.table_entries());
        let mut table = Table { l1, at, slots: Vec::new() };
        for _ in 0..from.int_in_range(0..=4)? {
            let first = match from.int_in_range(0..=7)? {
                0 => from.int_in_range(0..=slots - 1)?,
                1 => slots - 1,
                near => (near - 2) % slots,
            };
            let run = from.int_in_range(1..=3)?;
            let is_zero = from.ratio(1, 4)?;
            for slot in first..(first + run).min(slots) {
                if table.slots.contains(&slot) {
                    continue;
                }
                let value = if is_zero { 1 } else { self.take_data() };
                self.put64(at + 8 * slot, value);
                table.slots.push(slot);
            }
        }
        self.parts.tables.push(table);
        Ok(())
    }

    /// A data cluster at the end of the image, with bytes that no other has.
    fn take_data(&mut self) -> u64 {
        let cluster = self.parts.geometry.cluster_size_bytes();
        let at = self.take(cluster);
        let fill = |range: Range<u64>| self.put(range.start, &content(1, range.clone()));
        fill(at..at + cluster.min(FILL_BYTES));
        fill(at + cluster - 512..at + cluster);
        self.parts.data.push(at);
        at
    }

    fn take(&mut self, len: u64) -> u64 {
        let at = self.parts.end;
        self.parts.end += len;
        at
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        // What cannot be laid is left out: the image is as good without it.
        let _ = self.storage.write_at(bytes, at);
    }

    fn put32(&self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes()[..4]);
    }

    fn put64(&self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    fn get64(&self, at: u64) -> u64 {
        let bytes = self.storage.content().bytes(at..at + 8);
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    fn len(&self) -> u64 {
        self.storage.len().expect("memory has a length")
    }

    fn set_len(&self, len: u64) {
        // A length that no file has is not set.
        let _ = self.storage.set_len(len);
    }
}

/// Mostly the smallest shapes, which make most happen in little space.
fn shape(from: &mut Unstructured<'_>) -> Result<Geometry> {
    if from.ratio(1, 8)? {
        return any_geometry(from);
    }
    let table_size = *from.choose(&[1, 1, 2, 4])?;
    Ok(Geometry::new(4096, table_size).expect("a legal shape"))
}

/// Bytes that a raw backing file of near-valid images has: they differ from all data of the image.
pub(crate) fn backing_bytes(len: u64) -> Vec<u8> {
    let mut bytes = content(101, 0..len);
    bytes.truncate(usize_of(len));
    bytes
}
