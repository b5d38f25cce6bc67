//! A small QCOW2 image built field by field, for tests that need it wrong in one place.

use std::io::Write;
use std::sync::Arc;

use qed_convert::qcow2::{Qcow2Image, Qcow2OpenError, Qcow2Options, Qcow2SnapshotSelector};
use qed_core::{LockPolicy, RefuseBacking};
use qed_io::MemoryStorage;

/// Bytes of a cluster of the image.
pub(crate) const CLUSTER: u64 = 4096;
/// Bytes of its virtual disk.
pub(crate) const SIZE: u64 = 1 << 20;
pub(crate) const FILE_LEN: u64 = 8 * CLUSTER;

// Where the fields of the header lie.
pub(crate) const VERSION: usize = 4;
pub(crate) const BACKING_OFFSET: usize = 8;
pub(crate) const BACKING_LEN: usize = 16;
pub(crate) const CLUSTER_BITS: usize = 20;
pub(crate) const IMAGE_SIZE: usize = 24;
pub(crate) const CRYPT_METHOD: usize = 32;
pub(crate) const L1_ENTRIES: usize = 36;
pub(crate) const L1_OFFSET: usize = 40;
pub(crate) const REFCOUNT_OFFSET: usize = 48;
pub(crate) const REFCOUNT_CLUSTERS: usize = 56;
pub(crate) const SNAPSHOT_COUNT: usize = 60;
pub(crate) const SNAPSHOT_OFFSET: usize = 64;
pub(crate) const INCOMPATIBLE: usize = 72;
pub(crate) const AUTOCLEAR: usize = 88;
pub(crate) const REFCOUNT_ORDER: usize = 96;
pub(crate) const HEADER_LEN: usize = 100;
pub(crate) const COMPRESSION: usize = 104;
pub(crate) const EXTENSIONS: usize = 112;

// Where the rest lies.
pub(crate) const REFCOUNT_TABLE: u64 = CLUSTER;
pub(crate) const L1_TABLE: u64 = 2 * CLUSTER;
pub(crate) const L2_TABLE: u64 = 3 * CLUSTER;
pub(crate) const DATA: u64 = 4 * CLUSTER;
pub(crate) const STREAM: u64 = 5 * CLUSTER;
pub(crate) const SNAPSHOTS: u64 = 6 * CLUSTER;

pub(crate) const COPIED: u64 = 1 << 63;
pub(crate) const COMPRESSED: u64 = 1 << 62;

/// The image: guest cluster 0 is data, 1 is compressed text, the others are unallocated.
pub(crate) struct Crafted {
    pub(crate) bytes: Vec<u8>,
}

impl Crafted {
    pub(crate) fn new() -> Self {
        let mut image = Self { bytes: vec![0; at(FILE_LEN)] };
        image.put(0, b"QFI\xfb");
        for (field, value) in [
            (VERSION, 3),
            (CLUSTER_BITS, 12),
            (L1_ENTRIES, 1),
            (REFCOUNT_CLUSTERS, 1),
            (REFCOUNT_ORDER, 4),
            (HEADER_LEN, 112),
        ] {
            image.u32(field, value);
        }
        image.u64(IMAGE_SIZE, SIZE);
        image.u64(L1_OFFSET, L1_TABLE);
        image.u64(REFCOUNT_OFFSET, REFCOUNT_TABLE);
        image.u64(at(L1_TABLE), COPIED | L2_TABLE);
        image.l2(0, COPIED | DATA);
        image.bytes[at(DATA)..at(STREAM)].fill(0xda);
        image.stream(&deflated(&text()));
        image
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_be_bytes());
    }

    /// Sets an entry of the L2 table.
    pub(crate) fn l2(&mut self, index: u64, value: u64) {
        self.u64(at(L2_TABLE + index * 8), value);
    }

    /// Makes `stream` the compressed bytes of guest cluster 1, with as many sectors as it needs.
    pub(crate) fn stream(&mut self, stream: &[u8]) {
        self.put(at(STREAM), stream);
        let sectors = stream.len().div_ceil(512) as u64;
        self.l2(1, COMPRESSED | (sectors - 1) << 58 | STREAM);
    }

    /// Says that compressed clusters are zstd frames.
    pub(crate) fn zstd(&mut self) {
        self.u64(INCOMPATIBLE, 1 << 3);
        self.put(COMPRESSION, &[1]);
    }

    /// Lists one snapshot with the entry `head`, `extra`, `id` and `name`.
    pub(crate) fn snapshot(&mut self, l1_offset: u64, l1_entries: u32, image_size: u64) {
        self.u32(SNAPSHOT_COUNT, 1);
        self.u64(SNAPSHOT_OFFSET, SNAPSHOTS);
        let start = at(SNAPSHOTS);
        self.u64(start, l1_offset);
        self.u32(start + 8, l1_entries);
        self.put(start + 12, &[0, 1, 0, 3]);
        self.u32(start + 36, 16);
        self.u64(start + 48, image_size);
        self.put(start + 56, b"1one");
    }

    /// Adds a header extension at the front of the header area.
    pub(crate) fn extension(&mut self, kind: u32, len: u32, payload: &[u8]) {
        self.u32(EXTENSIONS, kind);
        self.u32(EXTENSIONS + 4, len);
        self.put(EXTENSIONS + 8, payload);
    }

    pub(crate) fn open(
        self,
        snapshot: Option<Qcow2SnapshotSelector>,
    ) -> Result<Qcow2Image, Qcow2OpenError> {
        let options =
            Qcow2Options { snapshot, ..Qcow2Options::new(&RefuseBacking, LockPolicy::Take) };
        Qcow2Image::open(Arc::new(MemoryStorage::new(self.bytes)), &options)
    }
}

/// What guest cluster 1 holds.
pub(crate) fn text() -> Vec<u8> {
    b"lorem ipsum ".iter().copied().cycle().take(at(CLUSTER)).collect()
}

pub(crate) fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).expect("memory")
}

pub(crate) fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("64 bits")
}
