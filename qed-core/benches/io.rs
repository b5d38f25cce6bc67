//! Times reads and allocating writes of an image beside plain system calls on a raw file.
//!
//! `cargo bench -p qed-core --bench io [-- CASE]` prints one line a round:
//! `case=NAME ours_ns=N reference_ns=N again_ns=N`, each the time of one operation; the reference
//! is timed twice, before and after, so that a reader sees how much the machine drifts. Files lie
//! in the folder that `QED_BENCH_DIR` names, else in the build output.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_io::{Access, Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::GuestOffset;

const ROUNDS: usize = 11;
const BLOCK: usize = 4096;
/// One operation in each cluster.
const STRIDE: u64 = 64 << 10;
const CLUSTERS: u64 = 40_000;
const READS: u64 = 400_000;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    if is_wanted("read_mapped_4k") {
        read_mapped(&dir);
    }
    for threads in [1, 8] {
        if is_wanted(&format!("write_allocating_4k_t{threads}")) {
            write_allocating(&dir, threads);
        }
    }
}

/// Random reads of blocks that all lie in the page cache.
fn read_mapped(dir: &Path) {
    let (raw, image) = (filled_raw(dir), filled_image(dir));
    let mut buf = [0; BLOCK];
    for _ in 0..ROUNDS {
        let reference = time(READS, |i| raw.read_exact_at(&mut buf, place(i)).unwrap());
        let mut buf = [0; BLOCK];
        let ours = time(READS, |i| image.read_at(&mut buf, GuestOffset::new(place(i))).unwrap());
        let again = time(READS, |i| raw.read_exact_at(&mut buf, place(i)).unwrap());
        print_round("read_mapped_4k", ours, reference, again);
    }
}

/// One write into each cluster of a fresh sparse file, from `threads` threads.
fn write_allocating(dir: &Path, threads: u64) {
    for _ in 0..ROUNDS {
        let reference = write_raw(dir, threads);
        let image = new_image(dir);
        let ours = spread(threads, |i| {
            image.write_at(&[7; BLOCK], GuestOffset::new(i * STRIDE)).unwrap();
        });
        drop(image);
        let again = write_raw(dir, threads);
        print_round(&format!("write_allocating_4k_t{threads}"), ours, reference, again);
    }
}

fn write_raw(dir: &Path, threads: u64) -> u128 {
    let raw = new_raw(dir);
    spread(threads, |i| raw.write_all_at(&[7; BLOCK], i * STRIDE).unwrap())
}

/// Nanoseconds an operation takes when `threads` threads share all clusters.
fn spread(threads: u64, operation: impl Fn(u64) + Sync) -> u128 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let operation = &operation;
            let share = (0..CLUSTERS).filter(move |i| i % threads == thread);
            scope.spawn(move || share.for_each(operation));
        }
    });
    start.elapsed().as_nanos() / u128::from(CLUSTERS)
}

fn time(count: u64, operation: impl FnMut(u64)) -> u128 {
    let start = Instant::now();
    (0..count).for_each(operation);
    start.elapsed().as_nanos() / u128::from(count)
}

/// The clusters in a scattered order that visits each.
fn place(i: u64) -> u64 {
    (i * 7919 % CLUSTERS) * STRIDE
}

fn new_raw(dir: &Path) -> File {
    let path = dir.join("io-bench.raw");
    let mut options = File::options();
    let raw = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
    raw.set_len(CLUSTERS * STRIDE).unwrap();
    raw
}

fn new_image(dir: &Path) -> Image {
    let path = dir.join("io-bench.qed");
    let options =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let storage = FileStorage::create(&path, options).unwrap();
    create(&storage, &CreateOptions::new(CLUSTERS * STRIDE)).unwrap();
    drop(storage);
    let options = FileOptions { access: Access::ReadWrite, direct: false };
    let storage = Arc::new(FileStorage::open(&path, options).unwrap());
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    Image::open(storage, &context).unwrap()
}

fn filled_raw(dir: &Path) -> File {
    let raw = new_raw(dir);
    (0..CLUSTERS).for_each(|i| raw.write_all_at(&[7; BLOCK], i * STRIDE).unwrap());
    raw
}

fn filled_image(dir: &Path) -> Image {
    let image = new_image(dir);
    (0..CLUSTERS).for_each(|i| image.write_at(&[7; BLOCK], GuestOffset::new(i * STRIDE)).unwrap());
    image
}

fn print_round(name: &str, ours: u128, reference: u128, again: u128) {
    println!("case={name} ours_ns={ours} reference_ns={reference} again_ns={again}");
}
