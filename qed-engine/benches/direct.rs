//! Times requests to an image beside the same requests to a raw file: direct I/O, one thread, many
//! requests in flight by the same engine.
//!
//! `cargo bench -p qed-engine --bench direct [-- CASE]` prints lines as the bench `io` of qed-core
//! does, for cases that are named as there, with the requests in flight instead of the threads.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, DEFAULT_RING_LEN_BYTES, GivenBacking, Identity,
    Image, Layout, LockPolicy, RawFile, RecoveryPolicy, VirtualDisk, WriteContext, create,
};
use qed_engine::{Direction, Engine, EngineRequest};
use qed_io::{Access, Existing, FileOptions, FileStorage, ImageLock, NewFileOptions, Storage};
use qed_spec::{Epoch, ImageUuid};

const ROUNDS: usize = 11;
const CLUSTER: u64 = 64 << 10;
const IDENTITY: Identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };
const JOURNAL: Layout =
    Layout::Journal { identity: IDENTITY, ring_len_bytes: DEFAULT_RING_LEN_BYTES };
const COMPAT: Layout = Layout::Compat(IDENTITY);
const DIRECT: NewFileOptions =
    NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: true };

/// One thread's requests, one or more for each of so many clusters.
#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    direction: Direction,
    /// Every cluster was written before the work begins.
    is_mapped: bool,
    block: usize,
    clusters: u64,
    /// Requests of a round, each to another cluster than the ones before.
    count: u64,
    depth: u32,
}

use Direction::{Read, Write};

const WORKS: [Work; 18] = [
    work("direct_read_mapped_4k_q1", Read, true, 4 << 10, 1),
    work("direct_read_mapped_4k_q8", Read, true, 4 << 10, 8),
    work("direct_read_mapped_4k_q32", Read, true, 4 << 10, 32),
    work("direct_read_mapped_64k_q1", Read, true, 64 << 10, 1),
    work("direct_read_mapped_64k_q8", Read, true, 64 << 10, 8),
    work("direct_read_mapped_64k_q32", Read, true, 64 << 10, 32),
    work("direct_write_in_place_4k_q1", Write, true, 4 << 10, 1),
    work("direct_write_in_place_4k_q8", Write, true, 4 << 10, 8),
    work("direct_write_in_place_4k_q32", Write, true, 4 << 10, 32),
    work("direct_write_in_place_64k_q1", Write, true, 64 << 10, 1),
    work("direct_write_in_place_64k_q8", Write, true, 64 << 10, 8),
    work("direct_write_in_place_64k_q32", Write, true, 64 << 10, 32),
    work("direct_write_allocating_4k_q1", Write, false, 4 << 10, 1),
    work("direct_write_allocating_4k_q8", Write, false, 4 << 10, 8),
    work("direct_write_allocating_4k_q32", Write, false, 4 << 10, 32),
    work("direct_write_allocating_64k_q1", Write, false, 64 << 10, 1),
    work("direct_write_allocating_64k_q8", Write, false, 64 << 10, 8),
    work("direct_write_allocating_64k_q32", Write, false, 64 << 10, 32),
];

const fn work(
    name: &'static str,
    direction: Direction,
    is_mapped: bool,
    block: usize,
    depth: u32,
) -> Work {
    Work { name, direction, is_mapped, block, clusters: 4000, count: 4000, depth }
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
                    Case { name, work, layout, has_backing, dir: dir.clone() }.run();
                }
            }
        }
    }
}

/// Work on one kind of image.
struct Case {
    name: String,
    work: Work,
    layout: Layout,
    has_backing: bool,
    dir: PathBuf,
}

impl Case {
    fn run(&self) {
        if self.has_backing {
            fill(&self.backing_path(), self.work.len_bytes());
        }
        if self.work.is_mapped {
            return self.run_mapped();
        }
        for _ in 0..ROUNDS {
            let reference = self.time_raw(&self.new_raw());
            let image = self.new_image();
            let ours = self.time_image(&image);
            drop(image);
            self.print(ours, reference, self.time_raw(&self.new_raw()));
        }
    }

    fn run_mapped(&self) {
        let (raw, image) = (self.new_raw(), self.new_image());
        let fill = Work { direction: Write, block: 64 << 10, depth: 32, ..self.work };
        fill.run(&mut Engine::for_raw(raw.clone(), 32).unwrap());
        fill.run(&mut Engine::for_image(image.clone(), 32).unwrap());
        for _ in 0..ROUNDS {
            let reference = self.time_raw(&raw);
            let ours = self.time_image(&image);
            self.print(ours, reference, self.time_raw(&raw));
        }
    }

    fn time_raw(&self, raw: &Arc<FileStorage>) -> u128 {
        self.work.run(&mut Engine::for_raw(raw.clone(), self.work.depth).unwrap())
    }

    fn time_image(&self, image: &Arc<Image>) -> u128 {
        self.work.run(&mut Engine::for_image(image.clone(), self.work.depth).unwrap())
    }

    fn print(&self, ours: u128, reference: u128, again: u128) {
        println!("case={} ours_ns={ours} reference_ns={reference} again_ns={again}", self.name);
    }

    fn new_raw(&self) -> Arc<FileStorage> {
        let raw = FileStorage::create(self.dir.join("direct-bench.raw"), DIRECT).unwrap();
        raw.set_len(self.work.len_bytes()).unwrap();
        Arc::new(raw)
    }

    fn new_image(&self) -> Arc<Image> {
        let path = self.dir.join("direct-bench.qed");
        let file = Arc::new(FileStorage::create(&path, DIRECT).unwrap());
        let backing = CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw };
        let options = CreateOptions {
            layout: self.layout,
            backing: self.has_backing.then_some(backing),
            ..CreateOptions::new(self.work.len_bytes())
        };
        create(&*file, &options).unwrap();
        let beneath = GivenBacking(self.has_backing.then(|| open_raw(&self.backing_path())));
        let context = WriteContext::new(&beneath, LockPolicy::None, RecoveryPolicy::Refuse);
        Arc::new(Image::open(file, &context).unwrap())
    }

    fn backing_path(&self) -> PathBuf {
        self.dir.join("direct-bench.base")
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for name in ["direct-bench.raw", "direct-bench.qed", "direct-bench.base"] {
            // A case without a backing file made none.
            let _ = std::fs::remove_file(self.dir.join(name));
        }
    }
}

impl Work {
    const fn len_bytes(&self) -> u64 {
        self.clusters * CLUSTER
    }

    /// Nanoseconds a request takes while the queue is kept full.
    fn run(&self, engine: &mut Engine) -> u128 {
        let mut buffers: Vec<_> = (0..self.depth).map(|_| engine.buffer(self.block)).collect();
        let start = Instant::now();
        let mut next = 0;
        loop {
            while next < self.count
                && let Some(buffer) = buffers.pop()
            {
                let direction = self.direction;
                engine.start(EngineRequest { tag: next, direction, at: self.place(next), buffer });
                next += 1;
            }
            let Some(served) = engine.wait().unwrap() else { break };
            served.result.unwrap();
            buffers.push(served.buffer);
        }
        start.elapsed().as_nanos() / u128::from(self.count)
    }

    /// Where request `i` goes: each cluster has its turn before any has another.
    const fn place(&self, i: u64) -> u64 {
        if self.is_mapped {
            // 7919 is prime, and no factor of the number of clusters.
            (i * 7919 % self.clusters) * CLUSTER
        } else {
            i * CLUSTER
        }
    }
}

fn open_raw(path: &Path) -> Arc<dyn VirtualDisk> {
    let options = FileOptions { access: Access::ReadOnly, direct: true };
    let file = FileStorage::open(path, options).unwrap();
    Arc::new(RawFile::open(Arc::new(file)).unwrap())
}

fn fill(path: &Path, len: u64) {
    let file = FileStorage::create(path, NewFileOptions { direct: false, ..DIRECT }).unwrap();
    let cluster = vec![1; usize::try_from(CLUSTER).unwrap()];
    (0..len / CLUSTER).for_each(|i| file.write_at(&cluster, i * CLUSTER).unwrap());
    file.flush().unwrap();
}
