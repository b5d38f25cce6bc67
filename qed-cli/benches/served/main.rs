//! Times disks that are served to virtual machines and as files, beside qemu-storage-daemon: a frontend
//! of vhost-user-blk without a guest, and direct I/O on a FUSE export.
//!
//! `cargo bench -p qed-cli --bench served [-- CASE]` prints one line a round:
//! `case=NAME ours_ns=N reference_ns=N again_ns=N`, nanoseconds of a request. Files lie in the folder that
//! `QED_BENCH_DIR` names, else in the build output. `QED_ROUNDS` says how many rounds, 11 if it does not.
//!
//! `-- --attach SOCKET CASE` times the requests of a case at a server that runs, once. `-- --soak SECONDS`
//! writes and reads back by four queues of `qed vhost`, and fails if what comes back is wrong or the
//! server's memory grows.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

mod frontend;
mod servers;
mod soak;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qed_engine::{Direction, Engine, EngineRequest};
use qed_io::{Access, FileOptions, FileStorage};

use frontend::{Guest, Kind};
use servers::{Cache, Content, DISK, Protocol, Server, Who, clean};

const CLUSTER: u64 = 64 << 10;

/// What is timed, and beside what.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    protocol: Protocol,
    cache: Cache,
    work: Work,
    ours: Who,
    reference: (Who, Protocol),
}

/// Requests, as many in flight in each queue.
#[derive(Debug, Clone, Copy)]
struct Work {
    kind: Kind,
    content: Content,
    block: u64,
    depth: usize,
    count: u64,
}

const ONE: Protocol = Protocol::VhostUser { queues: 1 };
const FOUR: Protocol = Protocol::VhostUser { queues: 4 };

const fn work(kind: Kind, content: Content, block: u64, depth: usize, count: u64) -> Work {
    Work { kind, content, block, depth, count }
}

const READ_Q1: Work = work(Kind::Read, Content::Full, 4096, 1, 20_000);
const READ_Q32: Work = work(Kind::Read, Content::Full, 4096, 32, 200_000);
/// For each of four queues.
const READ_Q32X4: Work = work(Kind::Read, Content::Full, 4096, 32, 50_000);
const ALLOCATING: Work = work(Kind::Write, Content::Fresh, 4096, 32, DISK / CLUSTER);
const IN_PLACE: Work = work(Kind::Write, Content::Full, 4096, 32, 50_000);
const READ_1M: Work = work(Kind::Read, Content::Full, 1 << 20, 4, 2048);
const WRITE_1M: Work = work(Kind::Write, Content::Full, 1 << 20, 4, 512);

const fn vhost(name: &'static str, work: Work, reference: Who) -> Case {
    let (protocol, cache, ours) = (ONE, Cache::PageCache, Who::Ours);
    Case { name, protocol, cache, work, ours, reference: (reference, protocol) }
}

const fn direct(name: &'static str, work: Work, reference: Who) -> Case {
    Case { cache: Cache::Direct, ..vhost(name, work, reference) }
}

const fn fuse(name: &'static str, work: Work, reference: Who) -> Case {
    let protocol = Protocol::Fuse;
    Case { protocol, reference: (reference, protocol), ..vhost(name, work, reference) }
}

const CASES: [Case; 20] = [
    vhost("vhost_read_4k_q1", READ_Q1, Who::QemuRaw),
    vhost("vhost_read_4k_q32", READ_Q32, Who::QemuRaw),
    vhost("vhost_write_allocating_4k_q32", ALLOCATING, Who::QemuRaw),
    vhost("vhost_write_in_place_4k_q32", IN_PLACE, Who::QemuRaw),
    vhost("vhost_read_1m_q4", READ_1M, Who::QemuRaw),
    vhost("vhost_write_1m_q4", WRITE_1M, Who::QemuRaw),
    Case {
        protocol: FOUR,
        reference: (Who::QemuRaw, FOUR),
        ..vhost("vhost_read_4k_q32x4", READ_Q32X4, Who::QemuRaw)
    },
    Case {
        protocol: FOUR,
        reference: (Who::Ours, ONE),
        ..vhost("vhost_read_4k_q32x4_beside_one", READ_Q32X4, Who::Ours)
    },
    vhost("vhost_read_4k_q32_qed", READ_Q32, Who::QemuQed),
    vhost("vhost_write_allocating_4k_q32_qed", ALLOCATING, Who::QemuQed),
    vhost("vhost_write_in_place_4k_q32_qed", IN_PLACE, Who::QemuQed),
    Case { ours: Who::OursRaw, ..vhost("vhost_raw_read_4k_q32", READ_Q32, Who::QemuRaw) },
    direct("vhost_direct_read_4k_q32", READ_Q32, Who::QemuRaw),
    direct("vhost_direct_write_in_place_4k_q32", IN_PLACE, Who::QemuRaw),
    direct("vhost_direct_write_allocating_4k_q32", ALLOCATING, Who::QemuRaw),
    fuse("fuse_read_4k_q1", READ_Q1, Who::QemuRaw),
    fuse("fuse_read_4k_q32", READ_Q32, Who::QemuRaw),
    fuse("fuse_write_in_place_4k_q32", IN_PLACE, Who::QemuRaw),
    fuse("fuse_read_1m_q4", READ_1M, Who::QemuRaw),
    fuse("fuse_write_1m_q4", WRITE_1M, Who::QemuRaw),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let dir = std::env::var_os("QED_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--soak", seconds] => {
            soak::run(&dir, Duration::from_secs(seconds.parse().unwrap()));
        }
        ["--attach", socket, name] => {
            let case = CASES.iter().find(|case| case.name == name).expect("a case of that name");
            let time = case.work.time(case.protocol, Path::new(socket));
            println!("case={name} ours_ns={}", time.as_nanos());
        }
        _ => {
            let is_wanted = |case: &&Case| words.is_empty() || words.contains(&case.name);
            CASES.iter().filter(is_wanted).for_each(|case| case.run(&dir));
            clean(&dir);
        }
    }
}

impl Case {
    fn run(&self, dir: &Path) {
        let rounds = std::env::var("QED_ROUNDS").map_or(11, |text| text.parse().unwrap());
        let ours = || self.time(dir, self.ours, self.protocol);
        let reference = || self.time(dir, self.reference.0, self.reference.1);
        // One that is not counted: it makes the disks.
        let _ = (ours(), reference());
        for _ in 0..rounds {
            let [before, it, again] = [reference(), ours(), reference()].map(|it| it.as_nanos());
            println!("case={} ours_ns={it} reference_ns={before} again_ns={again}", self.name);
        }
    }

    fn time(&self, dir: &Path, who: Who, protocol: Protocol) -> Duration {
        let server = Server::start(dir, who, protocol, self.work.content, self.cache);
        // As many requests in all, however many queues share them.
        let count = match (self.protocol, protocol) {
            (Protocol::VhostUser { queues }, Protocol::VhostUser { queues: now }) => {
                self.work.count * queues as u64 / now as u64
            }
            _ => self.work.count,
        };
        Work { count, ..self.work }.time(protocol, &server.place)
    }
}

impl Work {
    /// The time of a request at a server.
    fn time(&self, protocol: Protocol, place: &Path) -> Duration {
        match protocol {
            Protocol::VhostUser { queues } => self.time_queues(place, queues),
            Protocol::Fuse => self.time_file(place),
        }
    }

    fn time_queues(&self, socket: &Path, queues: usize) -> Duration {
        let block = usize::try_from(self.block).unwrap();
        let mut guest = Guest::connect(socket, queues, block);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (index, queue) in guest.queues.iter_mut().enumerate() {
                scope.spawn(move || queue.run(self.kind, self.depth, self.places(index as u64)));
            }
        });
        start.elapsed().div_f64((self.count * queues as u64) as f64)
    }

    /// By io_uring past the page cache, which neither server's file is kept in then.
    fn time_file(&self, path: &Path) -> Duration {
        let options = FileOptions { access: Access::ReadWrite, direct: true };
        let file = Arc::new(FileStorage::open(path, options).unwrap());
        let depth = u32::try_from(self.depth).unwrap();
        let mut engine = Engine::for_raw(file, depth).unwrap();
        let block = usize::try_from(self.block).unwrap();
        let mut buffers: Vec<_> = (0..self.depth).map(|_| engine.buffer(block)).collect();
        let direction = match self.kind {
            Kind::Read => Direction::Read,
            Kind::Write => Direction::Write,
        };
        let mut places = self.places(0);
        let start = Instant::now();
        loop {
            while let Some(buffer) = buffers.pop() {
                let Some(at) = places.next() else { break };
                engine.start(EngineRequest { tag: at, direction, at, buffer });
            }
            let Some(served) = engine.wait().unwrap() else { break };
            served.result.unwrap();
            buffers.push(served.buffer);
        }
        start.elapsed().div_f64(self.count as f64)
    }

    /// Where the requests of a queue go: small ones anywhere, but that each new cluster has one; large ones
    /// one after the other.
    fn places(&self, queue: u64) -> impl Iterator<Item = u64> + use<> {
        let (content, block, blocks) = (self.content, self.block, DISK / self.block);
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ (queue + 1);
        (0..self.count).map(move |i| match content {
            // 7919 is prime, and no factor of the number of clusters.
            Content::Fresh => i * 7919 % (DISK / CLUSTER) * CLUSTER,
            Content::Full if block > CLUSTER => i % blocks * block,
            Content::Full => {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % blocks * block
            }
        })
    }
}
