//! A sound QED image with two L2 tables, to be spoiled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use qed_fuzz::Operation;
use qed_io::{FileOptions, FileStorage, Storage};
use qed_spec::Geometry;

use crate::support::{Folder, Under, create_image, number_at, set_number, write_image};

/// Bytes of a cluster.
pub(super) const CLUSTER: u64 = 4096;
/// Bytes of a table: two clusters.
pub(super) const TABLE: u64 = 2 * CLUSTER;
/// Bytes of the virtual disk, which two L2 tables map.
pub(super) const DISK: u64 = 8 << 20;
/// Where the L1 table lies.
pub(super) const L1: u64 = CLUSTER;

/// Bytes of the header: where each field is and how long.
pub(super) const CLUSTER_SIZE: Field = Field { at: 4, len: 4 };
pub(super) const TABLE_SIZE: Field = Field { at: 8, len: 4 };
pub(super) const HEADER_SIZE: Field = Field { at: 12, len: 4 };
pub(super) const FEATURES: Field = Field { at: 16, len: 8 };
pub(super) const COMPAT_FEATURES: Field = Field { at: 24, len: 8 };
pub(super) const AUTOCLEAR_FEATURES: Field = Field { at: 32, len: 8 };
pub(super) const L1_TABLE_OFFSET: Field = Field { at: 40, len: 8 };
pub(super) const IMAGE_SIZE: Field = Field { at: 48, len: 8 };
pub(super) const NAME_OFFSET: Field = Field { at: 56, len: 4 };
pub(super) const NAME_LEN: Field = Field { at: 60, len: 4 };

/// A field of the header.
#[derive(Clone, Copy)]
pub(super) struct Field {
    at: u64,
    len: usize,
}

impl Field {
    pub(super) fn set(self, image: &Path, value: u64) {
        put(image, self.at, &value.to_le_bytes()[..self.len]);
    }

    /// 0, 1, and each power of two with its neighbours, up to the largest value.
    pub(super) fn edges(self) -> Vec<u64> {
        let bits = u32::try_from(8 * self.len).unwrap();
        let max = u64::MAX >> (64 - bits);
        let near = |bit: u32| [(1 << bit) - 1, 1 << bit, (1_u64 << bit) + 1];
        let mut edges: Vec<u64> = (0..bits).step_by(4).chain([bits - 1]).flat_map(near).collect();
        edges.extend([0, max - 1, max]);
        edges.sort_unstable();
        edges.dedup();
        edges
    }
}

/// An image without a flaw.
pub(super) struct Sound {
    pub(super) path: PathBuf,
    /// The L2 table of guest bytes from 0; entries 0 to 2 name clusters.
    pub(super) first: u64,
    /// The L2 table of guest bytes from 4 MiB; entries 0 to 2 name clusters.
    pub(super) second: u64,
    pub(super) len: u64,
}

impl Sound {
    pub(super) fn new(folder: &Folder, name: &str) -> Self {
        let path = folder.file(name);
        create_image(&path, Geometry::new(4096, 2).unwrap(), DISK, Under::Nothing);
        let write = |start| Operation::Write { range: start..start + 3 * CLUSTER, fill: 7 };
        write_image(&path, &[write(0), write(DISK / 2)]);
        let (first, second) = (number_at(&path, L1), number_at(&path, L1 + 8));
        let len = std::fs::metadata(&path).unwrap().len();
        Self { path, first, second, len }
    }

    /// The cluster of guest byte 0.
    pub(super) fn first_cluster(&self) -> u64 {
        number_at(&self.path, self.first)
    }

    /// The image with the second entry of its first L2 table changed.
    pub(super) fn with_l2(self, value: impl Fn(&Self) -> u64) -> Vec<PathBuf> {
        set_number(&self.path, self.first + 8, value(&self));
        vec![self.path]
    }

    /// The image with the second L1 entry changed.
    pub(super) fn with_l1(self, value: impl Fn(&Self) -> u64) -> Vec<PathBuf> {
        set_number(&self.path, L1 + 8, value(&self));
        vec![self.path]
    }
}

/// The sound image that most cases start from.
pub(super) fn sound(folder: &Folder) -> Sound {
    Sound::new(folder, "image")
}

/// A copy of the sound image for each value of a field.
pub(super) fn each_edge(folder: &Folder, field: Field) -> Vec<PathBuf> {
    let model = Sound::new(folder, "model").path;
    let image = |value: u64| {
        let path = folder.file(&format!("image-{value:x}"));
        std::fs::copy(&model, &path).unwrap();
        field.set(&path, value);
        path
    };
    field.edges().into_iter().map(image).collect()
}

/// Overwrites bytes of a file.
pub(super) fn put(image: &Path, at: u64, bytes: &[u8]) {
    FileStorage::open(image, FileOptions::READ_WRITE).unwrap().write_at(bytes, at).unwrap();
}

/// A file with these bytes, then a hole up to `len`.
pub(super) fn file_of(folder: &Folder, name: &str, bytes: &[u8], len: u64) -> PathBuf {
    let path = folder.file(name);
    let mut file = File::create_new(&path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(len).unwrap();
    path
}

/// The 64 bytes of a header without backing file.
pub(super) fn header(cluster_size: u32, table_size: u32, image_size: u64) -> Vec<u8> {
    let mut bytes = b"QED\0".to_vec();
    for field in [cluster_size, table_size, 1] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend([0; 24]);
    bytes.extend(u64::from(cluster_size).to_le_bytes());
    bytes.extend(image_size.to_le_bytes());
    bytes.extend([0; 8]);
    bytes
}
