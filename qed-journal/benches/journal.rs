//! Times commits beside plain writes of as many bytes, and recovery beside reading the ring.
//!
//! `cargo bench -p qed-journal --bench journal [-- CASE]` prints one line a round:
//! `case=NAME ours_ns=N reference_ns=N again_ns=N`; the reference is timed twice, before and after,
//! so that a reader sees how much the machine drifts. Files lie in the folder that `QED_BENCH_DIR`
//! names, else in the build output: a file system in memory has no flush to time.
//!
//! - `commit_ring_vs_append`: one record committed, beside 4 KiB appended to a file and fdatasync.
//! - `commit_ring_vs_overwrite`: the same, beside 4 KiB written over what a file has.
//! - `commit_ring_vs_hole`: the same, beside a ring that is a hole when its first lap begins.
//! - `recover_1m`, `recover_64m`: a full ring of single entries at random places of tables, read,
//!   checked, written home and flushed, beside reading the bytes of the ring. The entries are those
//!   of 1 MiB and 4 MiB of tables: a journal that holds more makes a checkpoint before its ring is
//!   full.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use qed_io::{Existing, FileStorage, ImageLock, NewFileOptions};
use qed_journal::{Batch, DataOrder, Journal, Opened, TestImage};
use qed_spec::JournalRecord;

const ROUNDS: u64 = 11;
const BLOCK: usize = 4096;
const MIB: u64 = 1 << 20;
/// Commits of a round: no more than a ring of 1 MiB takes.
const COMMITS: u64 = 200;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let is_wanted = |name: &&str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let references: [(&str, Reference); 3] = [
        ("commit_ring_vs_append", append),
        ("commit_ring_vs_overwrite", overwrite),
        ("commit_ring_vs_hole", commit_into_hole),
    ];
    for (name, reference) in references.into_iter().filter(|(name, _)| is_wanted(name)) {
        commit(name, &dir, reference);
    }
    let rings = [("recover_1m", MIB), ("recover_64m", 64 * MIB)];
    for (name, ring_len) in rings.into_iter().filter(|(name, _)| is_wanted(name)) {
        recover(name, &dir, ring_len);
    }
}

/// Nanoseconds a write takes that is made durable, in files of this folder.
type Reference = fn(&Path) -> u128;

/// Commits into a ring whose blocks were written before, each beside the reference.
fn commit(name: &str, dir: &Path, reference: Reference) {
    let image = new_image(dir, MIB, 512);
    let journal = opened(&image);
    commits(&image, &journal);
    for _ in 0..ROUNDS {
        journal.checkpoint(&image).unwrap();
        let before = reference(dir);
        let ours = commits(&image, &journal);
        print_round(name, ours, before, reference(dir));
    }
}

fn commits(image: &TestImage, journal: &Journal) -> u128 {
    time(COMMITS, |i| {
        journal.commit_batch(batch(image, vec![record(image, i)]), image).unwrap();
    })
}

fn append(dir: &Path) -> u128 {
    write_and_sync(&new_file(dir))
}

fn overwrite(dir: &Path) -> u128 {
    let file = new_file(dir);
    file.write_all_at(&vec![1; usize::try_from(MIB).unwrap()], 0).unwrap();
    file.sync_all().unwrap();
    write_and_sync(&file)
}

fn write_and_sync(file: &File) -> u128 {
    time(COMMITS, |i| {
        file.write_all_at(&[7; BLOCK], i * BLOCK as u64).unwrap();
        file.sync_data().unwrap();
    })
}

fn commit_into_hole(dir: &Path) -> u128 {
    let dir = dir.join("hole");
    std::fs::create_dir_all(&dir).unwrap();
    let image = new_image(&dir, MIB, 512);
    let ring = image.setup().unwrap().ring;
    image.storage().punch_hole(ring.offset().get()..ring.end().get()).unwrap();
    image.storage().flush().unwrap();
    commits(&image, &opened(&image))
}

/// Recovers an image whose ring is full.
fn recover(name: &str, dir: &Path, ring_len: u64) {
    let tables = (ring_len / BLOCK as u64).min(1024);
    let image = new_image(dir, ring_len, tables);
    let ring = image.setup().unwrap().ring;
    for round in 0..ROUNDS {
        fill(&image, round);
        let before = read_ring(dir, ring.offset().get(), ring_len);
        let start = Instant::now();
        let journal = image.recovered().unwrap();
        let ours = start.elapsed().as_nanos();
        let again = read_ring(dir, ring.offset().get(), ring_len);
        print_round(name, ours, before, again);
        journal.quiesce(&image).unwrap();
    }
}

/// Commits until the ring is full, then forgets the journal.
fn fill(image: &TestImage, round: u64) {
    let journal = opened(image);
    let (max, blocks) = (journal.max_records() as u64, journal.usage().blocks);
    while journal.usage().used_blocks < blocks {
        let first = journal.usage().used_blocks * 168 + round;
        let records = (first..first + max).map(|i| record(image, i)).collect();
        journal.commit_batch(batch(image, records), image).unwrap();
    }
}

fn read_ring(dir: &Path, offset: u64, len: u64) -> u128 {
    let file = File::open(dir.join("journal-bench.qed")).unwrap();
    let mut buf = vec![0; usize::try_from(len).unwrap()];
    let start = Instant::now();
    file.read_exact_at(&mut buf, offset).unwrap();
    start.elapsed().as_nanos()
}

/// One entry in a scattered order over all tables.
fn record(image: &TestImage, i: u64) -> JournalRecord {
    let slots = image.slots();
    image.record(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % slots, 1, 2 + i % slots)
}

fn batch(image: &TestImage, records: Vec<JournalRecord>) -> Batch {
    let physical_size = image.physical_size(2 * image.slots());
    Batch { records, physical_size, data: DataOrder::Together }
}

fn opened(image: &TestImage) -> Journal {
    match image.journal().unwrap() {
        Opened::Clean(journal) => journal,
        Opened::Dirty(recovery) => panic!("{recovery:?}"),
    }
}

fn new_image(dir: &Path, ring_len: u64, tables: u64) -> TestImage {
    let path = dir.join("journal-bench.qed");
    let options =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let storage = Arc::new(FileStorage::create(&path, options).unwrap());
    TestImage::create_with_tables(storage, ring_len / BLOCK as u64, tables).unwrap()
}

fn new_file(dir: &Path) -> File {
    let path = dir.join("journal-bench.raw");
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

fn time(count: u64, operation: impl FnMut(u64)) -> u128 {
    let start = Instant::now();
    (0..count).for_each(operation);
    start.elapsed().as_nanos() / u128::from(count)
}

fn print_round(name: &str, ours: u128, reference: u128, again: u128) {
    println!("case={name} ours_ns={ours} reference_ns={reference} again_ns={again}");
}
