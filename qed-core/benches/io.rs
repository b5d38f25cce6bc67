//! Times reads and writes of an image beside the same system calls on a raw file.
//!
//! `cargo bench -p qed-core --bench io [-- CASE]` prints one line a round:
//! `case=NAME ours_ns=N reference_ns=N again_ns=N`, each the time of one operation; the reference
//! is timed twice, before and after, so that a reader sees how much the machine drifts. Files lie
//! in the folder that `QED_BENCH_DIR` names, else in the build output.
//!
//! A case is operation_size_threads, then `_journal` for journal mode instead of compat mode and
//! `_backing` for an image over a raw file that is full of data. Nothing is flushed.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, DEFAULT_RING_LEN_BYTES, GivenBacking, Identity,
    Image, Layout, LockPolicy, RawFile, RecoveryPolicy, VirtualDisk, WriteContext, create,
};
use qed_io::{Access, Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::{Epoch, GuestOffset, ImageUuid};

const ROUNDS: usize = 11;
const CLUSTER: u64 = 64 << 10;
const IDENTITY: Identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };
const JOURNAL: Layout =
    Layout::Journal { identity: IDENTITY, ring_len_bytes: DEFAULT_RING_LEN_BYTES };
const COMPAT: Layout = Layout::Compat(IDENTITY);

/// Clusters of a disk over a backing file, which is full.
const BACKED_CLUSTERS: u64 = 2000;

/// What so many threads do, once or more often in each of so many clusters.
#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    operation: Operation,
    block: usize,
    clusters: u64,
    /// Operations of a round, but for allocating ones: those are as many as there are clusters.
    count: u64,
    threads: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// Reads of what was written before, in a scattered order.
    Read,
    /// Writes over what was written before, in a scattered order.
    WriteInPlace,
    /// The first write into each cluster, from the first to the last.
    WriteAllocating,
}

use Operation::{Read, WriteAllocating, WriteInPlace};

const WORKS: [Work; 18] = [
    small("read_mapped_4k_t1", Read, 1),
    small("read_mapped_4k_t8", Read, 8),
    small("read_mapped_4k_t32", Read, 32),
    large("read_mapped_64k_t1", Read, 1),
    large("read_mapped_64k_t8", Read, 8),
    large("read_mapped_64k_t32", Read, 32),
    small("write_in_place_4k_t1", WriteInPlace, 1),
    small("write_in_place_4k_t8", WriteInPlace, 8),
    small("write_in_place_4k_t32", WriteInPlace, 32),
    large("write_in_place_64k_t1", WriteInPlace, 1),
    large("write_in_place_64k_t8", WriteInPlace, 8),
    large("write_in_place_64k_t32", WriteInPlace, 32),
    small("write_allocating_4k_t1", WriteAllocating, 1),
    small("write_allocating_4k_t8", WriteAllocating, 8),
    small("write_allocating_4k_t32", WriteAllocating, 32),
    large("write_allocating_64k_t1", WriteAllocating, 1),
    large("write_allocating_64k_t8", WriteAllocating, 8),
    large("write_allocating_64k_t32", WriteAllocating, 32),
];

const fn small(name: &'static str, operation: Operation, threads: u64) -> Work {
    Work { name, operation, block: 4 << 10, clusters: 20_000, count: 100_000, threads }
}

const fn large(name: &'static str, operation: Operation, threads: u64) -> Work {
    Work { name, operation, block: 64 << 10, clusters: 2000, count: 10_000, threads }
}

/// Work on one kind of image.
struct Case {
    name: String,
    work: Work,
    layout: Layout,
    has_backing: bool,
    dir: PathBuf,
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    for work in WORKS {
        for (layout, mode) in [(COMPAT, ""), (JOURNAL, "_journal")] {
            for (has_backing, beneath) in [(false, ""), (true, "_backing")] {
                let name = format!("{}{mode}{beneath}", work.name);
                if wanted.is_empty() || wanted.contains(&name) {
                    let clusters = if has_backing { BACKED_CLUSTERS } else { work.clusters };
                    let work = Work { clusters, ..work };
                    Case { name, work, layout, has_backing, dir: dir.clone() }.run();
                }
            }
        }
    }
}

impl Case {
    fn run(&self) {
        if self.has_backing {
            self.fill_backing();
        }
        if self.work.operation == WriteAllocating {
            for _ in 0..ROUNDS {
                let reference = self.time_raw(&self.new_raw());
                let ours = self.time_image(&self.new_image());
                self.print(ours, reference, self.time_raw(&self.new_raw()));
            }
            return;
        }
        let (raw, image) = (self.new_raw(), self.new_image());
        let fill = Work { operation: WriteAllocating, threads: 1, ..self.work };
        // Over a full backing file each write fills its cluster, and larger runs of the page cache
        // cost more: the raw file gets the same.
        let block = if self.has_backing { 64 << 10 } else { self.work.block };
        Work { block, ..fill }.time(|buf, at| raw.write_all_at(buf, at).unwrap());
        fill.time(|buf, at| image.write_at(buf, GuestOffset::new(at)).unwrap());
        for _ in 0..ROUNDS {
            let reference = self.time_raw(&raw);
            let ours = self.time_image(&image);
            self.print(ours, reference, self.time_raw(&raw));
        }
    }

    fn time_raw(&self, raw: &File) -> u128 {
        match self.work.operation {
            Read => self.work.time(|buf, at| raw.read_exact_at(buf, at).unwrap()),
            _ => self.work.time(|buf, at| raw.write_all_at(buf, at).unwrap()),
        }
    }

    fn time_image(&self, image: &Image) -> u128 {
        let offset = GuestOffset::new;
        match self.work.operation {
            Read => self.work.time(|buf, at| image.read_at(buf, offset(at)).unwrap()),
            _ => self.work.time(|buf, at| image.write_at(buf, offset(at)).unwrap()),
        }
    }

    fn print(&self, ours: u128, reference: u128, again: u128) {
        println!("case={} ours_ns={ours} reference_ns={reference} again_ns={again}", self.name);
    }

    fn new_raw(&self) -> File {
        let path = self.dir.join("io-bench.raw");
        let mut options = File::options();
        let raw = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
        raw.set_len(self.work.len_bytes()).unwrap();
        raw
    }

    fn new_image(&self) -> Image {
        let path = self.dir.join("io-bench.qed");
        let options =
            NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
        let storage = FileStorage::create(&path, options).unwrap();
        let backing = CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw };
        let options = CreateOptions {
            layout: self.layout,
            backing: self.has_backing.then_some(backing),
            ..CreateOptions::new(self.work.len_bytes())
        };
        create(&storage, &options).unwrap();
        drop(storage);
        let options = FileOptions { access: Access::ReadWrite, direct: false };
        let storage = Arc::new(FileStorage::open(&path, options).unwrap());
        let beneath = GivenBacking(self.has_backing.then(|| open_raw(&self.backing_path())));
        let context = WriteContext::new(&beneath, LockPolicy::Take, RecoveryPolicy::Refuse);
        Image::open(storage, &context).unwrap()
    }

    fn backing_path(&self) -> PathBuf {
        self.dir.join("io-bench.base")
    }

    fn fill_backing(&self) {
        let backing = File::create(self.backing_path()).unwrap();
        let cluster = vec![1; usize::try_from(CLUSTER).unwrap()];
        (0..self.work.clusters).for_each(|i| backing.write_all_at(&cluster, i * CLUSTER).unwrap());
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for name in ["io-bench.raw", "io-bench.qed", "io-bench.base"] {
            // A case without a backing file made none.
            let _ = std::fs::remove_file(self.dir.join(name));
        }
    }
}

impl Work {
    const fn len_bytes(&self) -> u64 {
        self.clusters * CLUSTER
    }

    /// Nanoseconds an operation takes when the threads share all of them.
    fn time(&self, operation: impl Fn(&mut [u8], u64) + Sync) -> u128 {
        let count = if self.operation == WriteAllocating { self.clusters } else { self.count };
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..self.threads {
                let operation = &operation;
                scope.spawn(move || {
                    let mut buf = vec![7; self.block];
                    let share = (thread..count).step_by(usize::try_from(self.threads).unwrap());
                    share.for_each(|i| operation(&mut buf, self.place(i)));
                });
            }
        });
        start.elapsed().as_nanos() / u128::from(count)
    }

    /// Where operation `i` goes: each cluster has its turn before any has another.
    const fn place(&self, i: u64) -> u64 {
        match self.operation {
            WriteAllocating => i * CLUSTER,
            // 7919 is prime, and no factor of the number of clusters.
            Read | WriteInPlace => (i * 7919 % self.clusters) * CLUSTER,
        }
    }
}

fn open_raw(path: &Path) -> Arc<dyn VirtualDisk> {
    let options = FileOptions { access: Access::ReadOnly, direct: false };
    let file = FileStorage::open(path, options).unwrap();
    Arc::new(RawFile::open(Arc::new(file)).unwrap())
}
