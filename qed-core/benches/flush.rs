//! Times allocating writes with guest flushes beside the same writes and `fdatasync` on a fresh
//! sparse raw file.
//!
//! `cargo bench -p qed-core --bench flush [-- CASE]` prints lines as the bench `io` does. Files lie
//! in the folder that `QED_BENCH_DIR` names, else in the build output; a file system in memory
//! flushes for nothing and says nothing here.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, DEFAULT_RING_LEN_BYTES, GivenBacking, Identity,
    Image, Layout, LockPolicy, RawFile, RecoveryPolicy, VirtualDisk, WriteContext, create,
};
use qed_io::{Access, Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::{Epoch, GuestOffset, ImageUuid};

const ROUNDS: usize = 11;
const CLUSTER: u64 = 64 << 10;
/// Clusters of the disk: several L2 tables.
const CLUSTERS: u64 = 1 << 18;
const IDENTITY: Identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };
const JOURNAL: Layout =
    Layout::Journal { identity: IDENTITY, ring_len_bytes: DEFAULT_RING_LEN_BYTES };

/// What a case does again and again: as many writes of `len` bytes, each in a new cluster, then a
/// flush.
struct Case {
    name: &'static str,
    layout: Layout,
    has_backing: bool,
    len: usize,
    writes_per_flush: u64,
    flushes: u64,
}

const CASES: [Case; 6] = [
    scattered("flush_journal_8x64k", JOURNAL, false),
    scattered("flush_journal_8x64k_backing", JOURNAL, true),
    scattered("flush_compat_8x64k", Layout::Compat(IDENTITY), false),
    scattered("flush_compat_8x64k_backing", Layout::Compat(IDENTITY), true),
    frequent("write_journal_4k_flush16", JOURNAL),
    frequent("write_compat_4k_flush16", Layout::Compat(IDENTITY)),
];

const fn scattered(name: &'static str, layout: Layout, has_backing: bool) -> Case {
    Case { name, layout, has_backing, len: 64 << 10, writes_per_flush: 8, flushes: 100 }
}

const fn frequent(name: &'static str, layout: Layout) -> Case {
    Case { name, layout, has_backing: false, len: 4 << 10, writes_per_flush: 16, flushes: 400 }
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let is_wanted = |case: &&Case| wanted.is_empty() || wanted.iter().any(|it| it == case.name);
    for case in CASES.iter().filter(is_wanted) {
        for _ in 0..ROUNDS {
            let reference = write_raw(case, &dir);
            let ours = write_image(case, &dir);
            let again = write_raw(case, &dir);
            let [ours, reference, again] = [ours, reference, again].map(|it| it.as_nanos());
            println!("case={} ours_ns={ours} reference_ns={reference} again_ns={again}", case.name);
        }
    }
}

impl Case {
    /// Runs the writes and flushes; the time from one flush to the next.
    fn time(&self, mut write: impl FnMut(&[u8], u64), mut flush: impl FnMut()) -> Duration {
        let buf = vec![7; self.len];
        let start = Instant::now();
        for flushed in 0..self.flushes {
            for i in 0..self.writes_per_flush {
                write(&buf, place(flushed * self.writes_per_flush + i));
            }
            flush();
        }
        start.elapsed() / u32::try_from(self.flushes).unwrap()
    }
}

/// The clusters in a scattered order that visits each.
fn place(i: u64) -> u64 {
    (i * 92_821 % CLUSTERS) * CLUSTER
}

fn write_raw(case: &Case, dir: &Path) -> Duration {
    let path = dir.join("flush-bench.raw");
    let mut options = File::options();
    let raw = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
    raw.set_len(CLUSTERS * CLUSTER).unwrap();
    raw.sync_all().unwrap();
    case.time(|buf, at| raw.write_all_at(buf, at).unwrap(), || raw.sync_data().unwrap())
}

fn write_image(case: &Case, dir: &Path) -> Duration {
    let image = new_image(case, &dir.join("flush-bench.qed"));
    let time = case.time(
        |buf, at| image.write_at(buf, GuestOffset::new(at)).unwrap(),
        || image.flush().unwrap(),
    );
    image.close().unwrap();
    time
}

fn new_image(case: &Case, path: &Path) -> Image {
    let options =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let storage = FileStorage::create(path, options).unwrap();
    let backing = case
        .has_backing
        .then(|| CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw });
    let options =
        CreateOptions { layout: case.layout, backing, ..CreateOptions::new(CLUSTERS * CLUSTER) };
    create(&storage, &options).unwrap();
    drop(storage);
    let options = FileOptions { access: Access::ReadWrite, direct: false };
    let storage = Arc::new(FileStorage::open(path, options).unwrap());
    let beneath = GivenBacking(case.has_backing.then(|| holes(&path.with_extension("base"))));
    let context = WriteContext::new(&beneath, LockPolicy::Take, RecoveryPolicy::Refuse);
    Image::open(storage, &context).unwrap()
}

/// A raw backing file as long as the disk, all hole.
fn holes(path: &Path) -> Arc<dyn VirtualDisk> {
    File::create(path).unwrap().set_len(CLUSTERS * CLUSTER).unwrap();
    let options = FileOptions { access: Access::ReadOnly, direct: false };
    let raw = FileStorage::open(path, options).unwrap();
    Arc::new(RawFile::open(Arc::new(raw)).unwrap())
}
