//! QCOW2 images with all that the reader knows: both versions, every cluster size, plain, zero,
//! compressed and extended entries, snapshots, bitmaps, header extensions; sound or near-valid.

mod change;
mod stream;

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use qed_io::Storage;

use crate::model::Model;
use crate::operation::content;
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// The name that images with a backing file have for it.
pub(crate) const BACKING_NAME: &[u8] = b"backing";
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// Features of version 3.
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// A QCOW2 image in memory, and what its disks hold.
#[derive(Debug)]
pub(crate) struct Qcow2Case {
    pub(crate) storage: SparseStorage,
    /// The disk as it is now, over what lies under it.
    pub(crate) model: Model,
    /// Disks of the internal snapshots, named `1`, `2` and so on; they lie over the same.
    pub(crate) snapshots: Vec<Model>,
    pub(crate) bitmaps: usize,
    shape: Shape,
    /// End of what is in use, in bytes.
    end: u64,
    /// Where words lie that changes like to hit: entries of all tables, fields of other structures.
    entries: Vec<u64>,
    fields: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    version: u32,
    cluster_bits: u32,
    is_extended: bool,
    is_zstd: bool,
}

/// One mapped guest cluster.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Data,
    Zero,
    /// A zero cluster that keeps its space.
    ZeroAllocated,
    Compressed,
}

impl Qcow2Case {
    /// A sound image and up to four changes; the models hold for sound ones only.
    pub(crate) fn near_valid(from: &mut Unstructured<'_>) -> Result<Self> {
        let mut case = Self::sound(from, None)?;
        for _ in 0..from.int_in_range(0..=4)? {
            change::change(&mut case, from)?;
        }
        Ok(case)
    }

    /// An image that breaks no rule, over `under` if there is one.
    pub(crate) fn sound(from: &mut Unstructured<'_>, under: Option<&Model>) -> Result<Self> {
        let shape = Shape::any(from)?;
        let size = shape.disk_size(from)?;
        let mut case = Self {
            storage: SparseStorage::of_len(0),
            model: Model::new(0),
            snapshots: Vec::new(),
            bitmaps: 0,
            shape,
            // The header and the refcount table, which nobody reads.
            end: 2 * shape.cluster(),
            entries: Vec::new(),
            fields: Vec::new(),
        };
        let (l1, l1_size);
        (case.model, l1, l1_size) = case.add_disk(from, under, size)?;
        case.write_header(size, l1, l1_size);
        case.add_snapshots(from, under)?;
        case.add_extensions(from, under.is_some())?;
        let len = case.end + from.int_in_range(0..=1)? * 100;
        case.storage.set_len(len.max(case.len())).expect("a small length");
        Ok(case)
    }

    fn write_header(&mut self, size: u64, l1: u64, l1_size: u64) {
        let shape = self.shape;
        self.put(0, b"QFI\xfb");
        self.put32(4, shape.version.into());
        self.put32(20, shape.cluster_bits.into());
        self.put64(24, size);
        self.put32(36, l1_size);
        self.put64(40, l1);
        self.put64(48, shape.cluster());
        self.put32(56, 1);
        if shape.version == 3 {
            let extended = if shape.is_extended { EXTENDED_L2 } else { 0 };
            let zstd = if shape.is_zstd { COMPRESSION_TYPE } else { 0 };
            self.put64(72, extended | zstd);
            self.put32(96, 4);
            self.put32(100, 112);
            self.put(104, &[u8::from(shape.is_zstd)]);
        }
    }

    /// Adds a disk with a few mapped clusters: its model, and its L1 table with the entries of that.
    fn add_disk(
        &mut self,
        from: &mut Unstructured<'_>,
        under: Option<&Model>,
        size: u64,
    ) -> Result<(Model, u64, u64)> {
        let shape = self.shape;
        let mut model = under.map_or_else(|| Model::new(size), |under| Model::over(under, size));
        let clusters = size.div_ceil(shape.cluster());
        let l1_size = size.div_ceil(shape.coverage()) + from.int_in_range(0..=1)?;
        let l1 = self.take_clusters((8 * l1_size).div_ceil(shape.cluster()));
        let mut tables = vec![0; usize_of(l1_size)];
        let mut mapped = BTreeSet::new();
        for _ in 0..from.int_in_range(0..=6)? {
            if clusters == 0 {
                break;
            }
            let first = match from.int_in_range(0..=7)? {
                0 => from.int_in_range(0..=clusters - 1)?,
                1 => clusters - 1,
                near => (near - 2) % clusters,
            };
            for cluster in first..(first + from.int_in_range(1..=3)?).min(clusters) {
                if !mapped.insert(cluster) {
                    continue;
                }
                let slot = usize_of(cluster / shape.entries());
                if tables[slot] == 0 {
                    tables[slot] = self.take_clusters(1);
                    let at = l1 + 8 * slot as u64;
                    self.put64(at, COPIED | tables[slot]);
                    self.entries.push(at);
                }
                let at = tables[slot] + 8 * shape.words() * (cluster % shape.entries());
                self.map_cluster(from, at, cluster, &mut model)?;
            }
        }
        Ok((model, l1, l1_size))
    }

    /// Fills in the entry at `at` of a guest cluster.
    fn map_cluster(
        &mut self,
        from: &mut Unstructured<'_>,
        at: u64,
        cluster: u64,
        model: &mut Model,
    ) -> Result<()> {
        let shape = self.shape;
        let bytes = content(from.arbitrary()?, 0..shape.cluster());
        let mut kind = match from.int_in_range(0..=5)? {
            0..2 => Kind::Data,
            2 if shape.version == 3 => Kind::Zero,
            3 if shape.version == 3 => Kind::ZeroAllocated,
            2 | 3 => Kind::Data,
            _ => Kind::Compressed,
        };
        if let Kind::Compressed = kind {
            let bytes = if from.arbitrary()? { vec![7; bytes.len()] } else { bytes.clone() };
            if let Some(value) = self.take_stream(from, &bytes)? {
                self.put64(at, COMPRESSED | value);
                model.fill(cluster * shape.cluster(), &bytes);
                self.entries.push(at);
                return Ok(());
            }
            kind = Kind::Data;
        }
        let host = match kind {
            Kind::Zero => 0,
            _ => {
                let host = self.take_clusters(1);
                self.put(host, &bytes);
                COPIED | host
            }
        };
        self.entries.push(at);
        if shape.is_extended {
            return self.map_subclusters(from, at, host, &bytes, cluster, model);
        }
        match kind {
            Kind::Data => {
                self.put64(at, host);
                model.fill(cluster * shape.cluster(), &bytes);
            }
            _ => {
                self.put64(at, host | ZERO);
                model.fill(cluster * shape.cluster(), &vec![0; bytes.len()]);
            }
        }
        Ok(())
    }

    /// Fills in an extended entry: each subcluster is data, zero or neither.
    fn map_subclusters(
        &mut self,
        from: &mut Unstructured<'_>,
        at: u64,
        host: u64,
        bytes: &[u8],
        cluster: u64,
        model: &mut Model,
    ) -> Result<()> {
        let zero: u32 = from.arbitrary()?;
        let allocated = if host == 0 { 0 } else { from.arbitrary::<u32>()? & !zero };
        self.put64(at, host);
        self.put64(at + 8, u64::from(zero) << 32 | u64::from(allocated));
        self.entries.push(at + 8);
        let len = self.shape.cluster() / 32;
        for number in 0..32 {
            let within = number * len;
            let guest = cluster * self.shape.cluster() + within;
            if zero >> number & 1 == 1 {
                model.fill(guest, &vec![0; usize_of(len)]);
            } else if allocated >> number & 1 == 1 {
                model.fill(guest, &bytes[usize_of(within)..usize_of(within + len)]);
            }
        }
        Ok(())
    }

    /// Stores a cluster compressed; the entry without its flag, or none if it is too long for one.
    fn take_stream(&mut self, from: &mut Unstructured<'_>, bytes: &[u8]) -> Result<Option<u64>> {
        let shape = self.shape;
        let stream = if shape.is_zstd { stream::zstd(bytes) } else { stream::deflate(bytes) };
        // Streams follow each other byte by byte, and may share a sector with the one before.
        let offset = self.end + from.int_in_range(0..=300)?;
        if !stream::fits(offset, stream.len(), shape.cluster_bits) {
            return Ok(None);
        }
        self.put(offset, &stream);
        self.end = (offset + stream.len() as u64).next_multiple_of(shape.cluster());
        let offset_bits = 62 - (shape.cluster_bits - 8);
        let sectors = stream::sectors(offset, stream.len());
        Ok(Some((sectors - 1) << offset_bits | offset))
    }

    fn add_snapshots(&mut self, from: &mut Unstructured<'_>, under: Option<&Model>) -> Result<()> {
        let mut table = Vec::new();
        for number in 1..=from.int_in_range(0..=2_u64)? {
            let says_size = self.shape.version == 3 || from.arbitrary()?;
            let size = if says_size { self.shape.disk_size(from)? } else { self.model.size() };
            let (model, l1, l1_size) = self.add_disk(from, under, size)?;
            self.snapshots.push(model);
            let start = table.len();
            table.extend(l1.to_be_bytes());
            table.extend(&l1_size.to_be_bytes()[4..]);
            let name = format!("{number}");
            table.extend([0, 1, 0, u8::try_from(name.len()).expect("short")]);
            table.extend([0; 20]);
            let extra = if says_size { 16_u32 } else { 0 };
            table.extend(extra.to_be_bytes());
            if says_size {
                table.extend([0; 8]);
                table.extend(size.to_be_bytes());
            }
            table.extend(name.as_bytes());
            table.extend(name.as_bytes());
            table.resize(start + (table.len() - start).next_multiple_of(8), 0);
        }
        if table.is_empty() {
            return Ok(());
        }
        let at = self.take_clusters((table.len() as u64).div_ceil(self.shape.cluster()));
        self.put(at, &table);
        self.put32(60, self.snapshots.len() as u64);
        self.put64(64, at);
        self.fields.extend((0..table.len() as u64).step_by(4).map(|field| at + field));
        Ok(())
    }

    /// Header extensions, and the backing file name behind them.
    fn add_extensions(&mut self, from: &mut Unstructured<'_>, is_overlay: bool) -> Result<()> {
        let mut area = Vec::new();
        if is_overlay && from.arbitrary()? {
            extend(&mut area, 0xe279_2aca, b"raw");
        }
        if self.shape.version == 3 && from.ratio(1, 4)? {
            let mut row = [0; 48];
            row[1..6].copy_from_slice(b"\0name");
            extend(&mut area, 0x6803_f857, &row);
        }
        if self.shape.version == 3 && from.ratio(1, 4)? {
            let bitmaps = self.add_bitmaps(from)?;
            extend(&mut area, 0x2385_2875, &bitmaps);
        }
        if from.ratio(1, 4)? {
            extend(&mut area, 0x1234_5678, b"unknown");
        }
        extend(&mut area, 0, b"");
        let at = if self.shape.version == 3 { 112 } else { 72 };
        let name_at = at + area.len() as u64;
        if name_at + BACKING_NAME.len() as u64 > self.shape.cluster() {
            return Ok(());
        }
        self.put(at, &area);
        self.fields.extend((0..area.len() as u64).step_by(4).map(|field| at + field));
        if is_overlay {
            self.put(name_at, BACKING_NAME);
            self.put64(8, name_at);
            self.put32(16, BACKING_NAME.len() as u64);
        }
        Ok(())
    }

    /// Adds a directory of bitmaps; the payload of the extension that names it.
    fn add_bitmaps(&mut self, from: &mut Unstructured<'_>) -> Result<[u8; 24]> {
        let mut directory = Vec::new();
        self.bitmaps = from.int_in_range(0..=2)?;
        for _ in 0..self.bitmaps {
            let mut head = [0; 24];
            head[16..20].copy_from_slice(&[1, 16, 0, 2]);
            directory.extend(head);
            directory.extend(b"bm\0\0\0\0\0\0");
        }
        let at = self.take_clusters(1);
        self.put(at, &directory);
        self.put64(88, 1);
        self.fields.extend((0..directory.len() as u64).step_by(4).map(|field| at + field));
        let mut payload = [0; 24];
        payload[3] = u8::try_from(self.bitmaps).expect("at most two");
        payload[8..16].copy_from_slice(&(directory.len() as u64).to_be_bytes());
        payload[16..24].copy_from_slice(&at.to_be_bytes());
        Ok(payload)
    }

    fn take_clusters(&mut self, count: u64) -> u64 {
        let at = self.end;
        self.end += count * self.shape.cluster();
        at
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        // What cannot be laid is left out.
        let _ = self.storage.write_at(bytes, at);
    }

    fn put32(&self, at: u64, value: u64) {
        self.put(at, &value.to_be_bytes()[4..]);
    }

    fn put64(&self, at: u64, value: u64) {
        self.put(at, &value.to_be_bytes());
    }

    fn len(&self) -> u64 {
        self.storage.len().expect("memory has a length")
    }
}

impl Shape {
    fn any(from: &mut Unstructured<'_>) -> Result<Self> {
        let version = if from.ratio(1, 4)? { 2 } else { 3 };
        let cluster_bits = match from.int_in_range(0..=7)? {
            0 => from.int_in_range(9..=21)?,
            1 | 2 => 14,
            3 => 16,
            _ => from.int_in_range(9..=12)?,
        };
        let is_extended = version == 3 && cluster_bits >= 14 && from.arbitrary()?;
        let is_zstd = version == 3 && from.arbitrary()?;
        Ok(Self { version, cluster_bits, is_extended, is_zstd })
    }

    /// Bytes of a disk: a few clusters, perhaps behind a few L2 tables without any.
    fn disk_size(self, from: &mut Unstructured<'_>) -> Result<u64> {
        let sectors = self.cluster() / 512;
        let clusters = from.int_in_range(0..=12)?;
        let size = 512 * (clusters * sectors + from.int_in_range(0..=sectors - 1)?);
        // More than one L2 table, where that is not much.
        let more = if self.cluster_bits < 11 { from.int_in_range(0..=2)? } else { 0 };
        Ok(size.min(4 << 20) + more * self.coverage())
    }

    fn cluster(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Words of an L2 entry.
    fn words(self) -> u64 {
        if self.is_extended { 2 } else { 1 }
    }

    fn entries(self) -> u64 {
        self.cluster() / 8 / self.words()
    }

    /// Guest bytes behind one L2 table.
    fn coverage(self) -> u64 {
        self.entries() * self.cluster()
    }
}

fn extend(area: &mut Vec<u8>, kind: u32, payload: &[u8]) {
    area.extend(kind.to_be_bytes());
    area.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
    area.extend(payload);
    area.resize(area.len().next_multiple_of(8), 0);
}
