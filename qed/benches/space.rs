//! Times what is done about space: discards, sweeps, writes into free space and compaction, each beside
//! what it is compared with.
//!
//! `cargo bench -p qed --bench space [-- CASE]` prints one line a round:
//! `case=NAME ours_ns=N reference_ns=N again_ns=N`, as the bench `io` of qed-core does. Files lie in the
//! folder that `QED_BENCH_DIR` names, else in the build output. All images are in compat mode, with
//! clusters of 64 KiB. `QED_ROUNDS` says how many rounds, 11 if it does not.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qed_check::{CheckOptions, check};
use qed_core::{
    CompactOptions, CompactStep, CreateOptions, Identity, Image, Layout, LockPolicy, Prepared,
    RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_io::{Access, Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::{Epoch, GuestOffset, ImageUuid};

const CLUSTER: u64 = 64 << 10;
const IDENTITY: Identity = Identity { uuid: ImageUuid::new([1; 16]), epoch: Epoch::new(1) };

/// Clusters of a round of writes.
const WRITES: u64 = 4000;
/// Clusters of a disk of 64 GiB.
const DISCARDED: u64 = (64 << 30) / CLUSTER;
/// Clusters of the image that is swept.
const SWEPT: u64 = 10_000_000;
/// Reads beside a sweep: about as many as fit into the time of one.
const READS: u64 = 200_000;
const PAUSE: Duration = Duration::from_millis(8);

type Time = fn(&Bench) -> Duration;

/// What is timed, and beside what.
const CASES: [(&str, Time, Time); 7] = [
    ("write_reused_64k_beside_raw", |it| it.write_reused(CLUSTER), |it| it.write_raw(CLUSTER)),
    ("write_reused_64k_beside_end", |it| it.write_reused(CLUSTER), |it| it.write_at_end(CLUSTER)),
    ("write_reused_4k_beside_raw", |it| it.write_reused(4096), |it| it.write_raw(4096)),
    ("discard_64g_beside_qemu", Bench::discard, Bench::discard_by_qemu),
    ("sweep_10m_beside_check", Bench::sweep, Bench::check),
    ("read_beside_sweep", |it| it.read(true), |it| it.read(false)),
    ("compact_10g_beside_cp", Bench::compact, Bench::copy),
];

struct Bench {
    dir: PathBuf,
}

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let rounds = std::env::var("QED_ROUNDS").map_or(11, |text| text.parse().unwrap());
    for (name, ours, reference) in CASES {
        if !words.is_empty() && !words.iter().any(|word| word == name) {
            continue;
        }
        let bench = Bench { dir: dir.clone() };
        for _ in 0..rounds {
            let [before, it, again] =
                [reference, ours, reference].map(|time| time(&bench).as_nanos());
            println!("case={name} ours_ns={it} reference_ns={before} again_ns={again}");
        }
        bench.clean();
    }
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("space-bench.{name}"))
    }

    fn clean(&self) {
        for name in ["qed", "raw", "copy", "swept", "half"] {
            // Not every case made each.
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    /// Writes out of free space: all clusters were data and are discarded.
    fn write_reused(&self, block: u64) -> Duration {
        let image = new_image(&self.path("qed"), WRITES * CLUSTER);
        let data = vec![7; usize::try_from(CLUSTER).unwrap()];
        (0..WRITES).for_each(|cluster| image.write_at(&data, at(cluster)).unwrap());
        image.discard(at(0), WRITES * CLUSTER).unwrap();
        assert!(image.sweep().unwrap());
        let end = image.space_usage().unwrap().end;
        let time = timed(|| write_each(&image, block));
        assert_eq!(image.space_usage().unwrap().end, end);
        time
    }

    fn write_at_end(&self, block: u64) -> Duration {
        let image = new_image(&self.path("qed"), WRITES * CLUSTER);
        timed(|| write_each(&image, block))
    }

    /// Writes to a raw file that has data there, as free space has.
    fn write_raw(&self, block: u64) -> Duration {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(true);
        let raw = options.open(self.path("raw")).unwrap();
        let data = vec![7; usize::try_from(CLUSTER).unwrap()];
        (0..WRITES).for_each(|cluster| raw.write_all_at(&data, cluster * CLUSTER).unwrap());
        let data = &data[..usize::try_from(block).unwrap()];
        timed(|| (0..WRITES).for_each(|at| raw.write_all_at(data, at * CLUSTER).unwrap()))
    }

    /// Of a disk that is mapped, whose clusters are holes.
    fn discard(&self) -> Duration {
        let image = mapped_image(&self.path("qed"), DISCARDED, DISCARDED);
        timed(|| {
            image.discard(at(0), 64 << 30).unwrap();
            image.flush().unwrap();
        })
    }

    /// QEMU writes zeros over clusters that are mapped: a part of the disk, and the time of all of it.
    fn discard_by_qemu(&self) -> Duration {
        const PARTS: u32 = 64;
        let path = self.path("qed");
        let clusters = DISCARDED / u64::from(PARTS);
        mapped_image(&path, clusters, clusters).close().unwrap();
        let mut qemu = Command::new("qemu-io");
        let zeroes = format!("write -z -u 0 {}", clusters * CLUSTER);
        qemu.args(["-f", "qed", "-c", &zeroes, "-c", "flush"]).arg(path);
        PARTS
            * timed(|| {
                let done = qemu.output().unwrap();
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
            })
    }

    /// An image of many clusters, made once.
    fn swept(&self) -> Image {
        let path = self.path("swept");
        if path.exists() { open(&path) } else { mapped_image(&path, SWEPT + 1, SWEPT) }
    }

    fn sweep(&self) -> Duration {
        let image = self.swept();
        timed(|| assert!(image.sweep().unwrap()))
    }

    fn check(&self) -> Duration {
        self.swept().close().unwrap();
        let options = FileOptions { access: Access::ReadOnly, direct: false };
        let storage = FileStorage::open(self.path("swept"), options).unwrap();
        timed(|| {
            let report = check(&storage, &CheckOptions::default()).unwrap();
            assert_eq!(report.corruptions(), 0);
        })
    }

    /// Small reads of a small part of the disk, while another thread does what is due, as a server's
    /// does: a sweep, if `sweeps`.
    fn read(&self, sweeps: bool) -> Duration {
        let image = self.swept();
        let mut buf = [0; 4096];
        // The first time that the file becomes longer a sweep is wanted.
        image.write_at(&buf, at(SWEPT)).unwrap();
        let (image, ends) = (&image, &AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let now = Instant::now();
                    let due = if sweeps { image.maintain(now).unwrap() } else { None };
                    let rest = due.map_or(PAUSE, |due| due.saturating_duration_since(now));
                    std::thread::sleep(rest.min(PAUSE));
                }
            });
            let time = timed(|| {
                for index in 0..READS {
                    image.read_at(&mut buf, at(index * 7919 % 20_000)).unwrap();
                }
            });
            ends.store(true, Ordering::Relaxed);
            time
        })
    }

    /// Of 10 GiB of which every second cluster is free; the time for as many bytes as [`Bench::copy`]
    /// copies.
    fn compact(&self) -> Duration {
        let path = self.path("qed");
        let clusters = (10 << 30) / CLUSTER;
        let image = new_image(&path, clusters * CLUSTER);
        let data = vec![7; usize::try_from(CLUSTER).unwrap()];
        (0..clusters).for_each(|cluster| image.write_at(&data, at(cluster)).unwrap());
        (0..clusters / 2).for_each(|half| image.discard(at(2 * half), CLUSTER).unwrap());
        image.flush().unwrap();
        let mut compacted = None;
        let time = timed(|| {
            let mut compaction = image.compact(CompactOptions::default());
            while compacted.is_none() {
                if let CompactStep::Done(done) = compaction.step().unwrap() {
                    compacted = Some(done);
                }
            }
        });
        let done = compacted.unwrap();
        assert!(done.end_after * 100 <= clusters / 2 * CLUSTER * 101, "{done:?}");
        time.mul_f64((2_u64 << 30) as f64 / done.moved_bytes as f64)
    }

    /// 2 GiB, by `cp`, and on the disk.
    fn copy(&self) -> Duration {
        let path = self.path("raw");
        let raw = File::create(&path).unwrap();
        let data = vec![7; 1 << 20];
        (0..2048).for_each(|index| raw.write_all_at(&data, index << 20).unwrap());
        raw.sync_all().unwrap();
        let _ = std::fs::remove_file(self.path("copy"));
        timed(|| {
            let mut copy = Command::new("cp");
            let done = copy.arg("--reflink=never").args([path, self.path("copy")]).status();
            assert!(done.unwrap().success());
            File::open(self.path("copy")).unwrap().sync_all().unwrap();
        })
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * CLUSTER)
}

fn write_each(image: &Image, block: u64) {
    let data = vec![8; usize::try_from(block).unwrap()];
    (0..WRITES).for_each(|cluster| image.write_at(&data, at(cluster)).unwrap());
}

fn new_image(path: &Path, size: u64) -> Image {
    let options =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let storage = FileStorage::create(path, options).unwrap();
    let options = CreateOptions { layout: Layout::Compat(IDENTITY), ..CreateOptions::new(size) };
    create(&storage, &options).unwrap();
    drop(storage);
    open(path)
}

fn open(path: &Path) -> Image {
    let options = FileOptions { access: Access::ReadWrite, direct: false };
    let storage = Arc::new(FileStorage::open(path, options).unwrap());
    let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, RecoveryPolicy::Refuse);
    Image::open(storage, &context).unwrap()
}

/// A disk of so many clusters, of which the first are mapped to clusters that are holes of the file.
fn mapped_image(path: &Path, clusters: u64, mapped: u64) -> Image {
    let image = new_image(path, clusters * CLUSTER);
    let mut next = 0;
    while next < mapped {
        let request = image.request();
        let rest = (mapped - next) * CLUSTER;
        let Prepared::Allocating(new) = request.prepare(at(next), rest).unwrap() else {
            panic!("a new disk has data")
        };
        next += new.len() / CLUSTER;
        new.commit().unwrap();
    }
    image.flush().unwrap();
    image
}
