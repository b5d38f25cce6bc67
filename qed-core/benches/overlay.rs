//! What cluster size an overlay is best made with: small writes over a full backing file, the space that
//! they take, long reads through the overlay, and what the tables cost and allow.
//!
//! `cargo bench -p qed-core --bench overlay [-- CASE]` prints, for each cluster and table size,
//! `case=NAME ours_ns=N reference_ns=N again_ns=N` for each round, as the bench `io` does, then one line
//! of the space in the file system, and one of the tables. QED_BENCH_WRITES says how many writes (16000),
//! each of 4 KiB and in 64 KiB of its own; the disk is as long as they need. Files lie in the folder that
//! QED_BENCH_DIR names, else in the build output. Nothing is flushed.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, GivenBacking, Identity, Image, Layout, LockPolicy,
    RawFile, RecoveryPolicy, WriteContext, create,
};
use qed_io::{Access, Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::{Epoch, Geometry, GuestOffset, ImageUuid};

const ROUNDS: usize = 7;
const BLOCK: usize = 4 << 10;
/// Each write has so much of the disk to itself: with larger clusters none would share one.
const PLACE: u64 = 64 << 10;
const LONG: usize = 1 << 20;
const LAYOUT: Layout =
    Layout::Compat(Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) });

/// KiB of a cluster, and clusters of a table. QEMU opens no image whose tables have one cluster, and
/// the format allows no more than sixteen.
const SHAPES: [(u32, u32); 8] =
    [(4, 4), (4, 16), (8, 4), (8, 16), (16, 4), (16, 16), (64, 4), (64, 16)];

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let writes = std::env::var("QED_BENCH_WRITES").map_or(16_000, |text| text.parse().unwrap());
    let bench = Bench { dir, writes };
    bench.fill(&bench.path("base"));
    for (cluster, table) in SHAPES {
        let name = format!("overlay_{cluster}k_table{table}");
        if wanted.is_empty() || wanted.contains(&name) {
            bench.run(&name, Geometry::new(cluster << 10, table).unwrap());
        }
    }
}

struct Bench {
    dir: PathBuf,
    writes: u64,
}

impl Bench {
    fn run(&self, name: &str, geometry: Geometry) {
        let base = File::open(self.path("base")).unwrap();
        let base = || self.read(|buf, at| base.read_exact_at(buf, at).unwrap());
        for _ in 0..ROUNDS {
            let (before, image) = (self.write_raw(), self.image(geometry));
            let fresh = self.read(|buf, at| image.read_at(buf, GuestOffset::new(at)).unwrap());
            let ours = self.write(|buf, at| image.write_at(buf, GuestOffset::new(at)).unwrap());
            print(&format!("{name}_write_4k"), ours, before, self.write_raw());
            print(&format!("{name}_read_1m_unwritten"), fresh, base(), base());
            let before = base();
            let ours = self.read(|buf, at| image.read_at(buf, GuestOffset::new(at)).unwrap());
            print(&format!("{name}_read_1m_written"), ours, before, base());
            image.close().unwrap();
        }
        let (ours, raw) = (self.space("qed"), self.space("raw"));
        println!("case={name} writes={} file_bytes={ours} raw_file_bytes={raw}", self.writes);
        let clusters_per_gib = (1 << 30) / geometry.cluster_size_bytes();
        println!(
            "case={name} l2_bytes_per_gib={} l1_bytes={} largest_disk_bytes={}",
            clusters_per_gib * 8,
            geometry.table_size_bytes(),
            geometry.max_image_size_bytes()
        );
    }

    /// Nanoseconds of one write, each to a place of its own, in a scattered order.
    fn write(&self, mut write: impl FnMut(&[u8], u64)) -> u128 {
        let buf = [7; BLOCK];
        let start = Instant::now();
        for i in 0..self.writes {
            // 7919 is prime; blocks lie anywhere in their places.
            let place = i * 7919 % self.writes;
            write(&buf, place * PLACE + place % 16 * BLOCK as u64);
        }
        start.elapsed().as_nanos() / u128::from(self.writes)
    }

    fn write_raw(&self) -> u128 {
        let raw = File::create(self.path("raw")).unwrap();
        raw.set_len(self.len()).unwrap();
        self.write(|buf, at| raw.write_all_at(buf, at).unwrap())
    }

    /// Nanoseconds of one long read, from the first byte of the disk to the last.
    fn read(&self, mut read: impl FnMut(&mut [u8], u64)) -> u128 {
        let mut buf = vec![0; LONG];
        let start = Instant::now();
        let count = self.len() / LONG as u64;
        (0..count).for_each(|i| read(&mut buf, i * LONG as u64));
        start.elapsed().as_nanos() / u128::from(count.max(1))
    }

    fn image(&self, geometry: Geometry) -> Image {
        let new =
            NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
        let file = FileStorage::create(self.path("qed"), new).unwrap();
        let backing = CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw };
        let mut options = CreateOptions::new(self.len());
        (options.geometry, options.layout, options.backing) = (geometry, LAYOUT, Some(backing));
        create(&file, &options).unwrap();
        let read_only = FileOptions { access: Access::ReadOnly, direct: false };
        let base = FileStorage::open(self.path("base"), read_only).unwrap();
        let gate = GivenBacking(Some(Arc::new(RawFile::open(Arc::new(base)).unwrap())));
        let context = WriteContext::new(&gate, LockPolicy::None, RecoveryPolicy::Refuse);
        Image::open(Arc::new(file), &context).unwrap()
    }

    fn fill(&self, path: &Path) {
        let file = File::create(path).unwrap();
        let bytes = vec![1; LONG];
        (0..self.len() / LONG as u64)
            .for_each(|i| file.write_all_at(&bytes, i * LONG as u64).unwrap());
        file.sync_all().unwrap();
    }

    /// Bytes that a file takes, once they are on their way to the disk.
    fn space(&self, name: &str) -> u64 {
        let file = File::open(self.path(name)).unwrap();
        file.sync_all().unwrap();
        file.metadata().unwrap().blocks() * 512
    }

    /// Bytes of the disk, a whole number of long reads.
    const fn len(&self) -> u64 {
        (self.writes * PLACE).next_multiple_of(LONG as u64)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("overlay-bench.{name}"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in ["raw", "qed", "base"] {
            // Without a case there is nothing but the base.
            let _ = std::fs::remove_file(self.path(name));
        }
    }
}

fn print(name: &str, ours: u128, reference: u128, again: u128) {
    println!("case={name} ours_ns={ours} reference_ns={reference} again_ns={again}");
}
