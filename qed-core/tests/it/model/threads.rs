//! Eight threads at work on one disk. Each byte belongs to one of them, which alone writes it and so
//! always knows what it reads; clusters belong to nobody.

use std::collections::BTreeSet;
use std::time::Instant;

use qed_core::{DiscardMode, ExtentKind, GivenBacking, Image, Layout, WriteContext, ZeroMode};
use qed_spec::{Geometry, GuestOffset};

use super::{backing, initial, read_all};
use crate::support::{COMPAT, JOURNAL, Random, context, new_storage_of, open};

const THREADS: u64 = 8;
const SECTOR: u64 = 512;
/// Here sector n belongs to thread n % 8, so that all of them meet in every cluster.
const SHARED: u64 = 1 << 20;
/// Behind it each thread has a part of its own. They begin and end in clusters that others use too.
const OWN: u64 = (1 << 20) + 2560;
const DISK: u64 = SHARED + THREADS * OWN;
/// After that many operations another image begins, where every cluster is new.
const ROUND: u64 = 20_000;
/// In the ordinary run; as many as `QED_OPERATIONS` says otherwise.
const OPERATIONS: u64 = 12 * ROUND;
const LONGEST: u64 = 20_000;

/// One thread: what it has, and what that holds.
struct Worker<'a> {
    image: &'a Image,
    number: u64,
    random: Random,
    /// Bytes to write pieces of.
    noise: &'a [u8],
    /// Its sectors of the shared part, one behind the other, and then its own part.
    model: Vec<u8>,
}

/// A range of bytes of one thread.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: GuestOffset,
    in_model: usize,
    len: usize,
}

impl<'a> Worker<'a> {
    fn new(image: &'a Image, number: u64, seed: u64, noise: &'a [u8], before: &[u8]) -> Self {
        let mut model = vec![0; (SHARED / THREADS + OWN) as usize];
        for place in pieces(number) {
            let from = place.at.get() as usize;
            let to = &mut model[place.in_model..place.in_model + place.len];
            to.copy_from_slice(&before[from..from + place.len]);
        }
        Self { image, number, random: Random(seed * THREADS + number + 1), noise, model }
    }

    /// Does what is its share of a round; gives what its bytes have to be.
    fn work(mut self) -> Vec<u8> {
        for _ in 0..ROUND / THREADS {
            let place = self.place();
            match self.random.below(64) {
                0..28 => self.write(place),
                28..30 => self.zero(place, ZeroMode::IfNeeded),
                30..32 => self.zero(place, ZeroMode::Explicit),
                32..36 => self.zero(place, ZeroMode::Unmap),
                36..38 => self.discard(place),
                38..61 => self.verify(place),
                61..63 => self.image.flush().unwrap(),
                _ => drop(self.image.maintain(Instant::now()).unwrap()),
            }
        }
        self.model
    }

    /// A few bytes of a shared sector or all of it, or a range of its own part of up to six clusters.
    fn place(&mut self) -> Place {
        if self.random.below(2) == 0 {
            let sector = self.random.below(SHARED / SECTOR / THREADS);
            let (from, len) = match self.random.below(2) {
                0 => (0, SECTOR),
                _ => self.range_of(SECTOR, SECTOR),
            };
            return shared(self.number, sector, from, len);
        }
        let longest = [16, 4096, LONGEST][self.random.below(3) as usize];
        let (from, len) = self.range_of(OWN, longest);
        own(self.number, from, len)
    }

    fn range_of(&mut self, size: u64, longest: u64) -> (u64, u64) {
        let from = self.random.below(size);
        (from, (1 + self.random.below(longest)).min(size - from))
    }

    fn write(&mut self, place: Place) {
        let start = self.random.below(LONGEST) as usize;
        let bytes = &self.noise[start..start + place.len];
        self.image.write_at(bytes, place.at).unwrap();
        self.model[place.in_model..place.in_model + place.len].copy_from_slice(bytes);
    }

    fn zero(&mut self, place: Place, mode: ZeroMode) {
        self.image.write_zeroes(place.at, place.len as u64, mode).unwrap();
        self.model[place.in_model..place.in_model + place.len].fill(0);
    }

    fn discard(&mut self, place: Place) {
        self.image.discard(place.at, place.len as u64).unwrap();
        // Whole clusters are gone; they lie behind each other where a place has any.
        let (cluster, from) = (self.image.geometry().cluster_size_bytes(), place.at.get());
        let to = from + place.len as u64;
        let start = from.next_multiple_of(cluster).min(to);
        let end = if to == DISK { to } else { to - to % cluster };
        let whole = (start - from) as usize..(end.max(start) - from) as usize;
        self.model[place.in_model..place.in_model + place.len][whole].fill(0);
    }

    fn verify(&self, place: Place) {
        let mut read = vec![0xee; place.len];
        self.image.read_at(&mut read, place.at).unwrap();
        let expected = &self.model[place.in_model..place.in_model + place.len];
        assert!(read == expected, "thread {} reads other bytes at {place:?}", self.number);
    }
}

fn shared(thread: u64, sector: u64, from: u64, len: u64) -> Place {
    let at = GuestOffset::new((sector * THREADS + thread) * SECTOR + from);
    Place { at, in_model: (sector * SECTOR + from) as usize, len: len as usize }
}

fn own(thread: u64, from: u64, len: u64) -> Place {
    let at = GuestOffset::new(SHARED + thread * OWN + from);
    Place { at, in_model: (SHARED / THREADS + from) as usize, len: len as usize }
}

/// All that a thread has.
fn pieces(thread: u64) -> impl Iterator<Item = Place> {
    let sectors = 0..SHARED / SECTOR / THREADS;
    sectors.map(move |sector| shared(thread, sector, 0, SECTOR)).chain([own(thread, 0, OWN)])
}

/// Runs the threads to their end; what the disk has to hold then.
fn run(image: &Image, seed: u64, noise: &[u8], before: &[u8]) -> Vec<u8> {
    let models = std::thread::scope(|scope| {
        let start = |number| {
            let worker = Worker::new(image, number, seed, noise, before);
            scope.spawn(|| worker.work())
        };
        let workers: Vec<_> = (0..THREADS).map(start).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let mut disk = vec![0; DISK as usize];
    for (number, model) in (0..).zip(models) {
        for place in pieces(number) {
            let at = place.at.get() as usize;
            disk[at..at + place.len]
                .copy_from_slice(&model[place.in_model..place.in_model + place.len]);
        }
    }
    disk
}

/// How many clusters have data, each in a place of its own.
fn clusters(image: &Image) -> usize {
    let cluster = image.geometry().cluster_size_bytes();
    let mut used = BTreeSet::new();
    for at in (0..DISK).step_by(cluster as usize) {
        let extent = image.map(GuestOffset::new(at), 1).unwrap();
        if let ExtentKind::Data(host) = extent.kind {
            assert!(used.insert(host), "guest offset {at:#x} shares {host}");
        }
    }
    used.len()
}

// spec-test: QED-RW-01, QED-RW-02, QED-RW-03
#[test]
fn threads_that_share_clusters_lose_nothing() {
    let operations = std::env::var("QED_OPERATIONS").ok();
    let operations = operations.map_or(OPERATIONS, |text| text.parse().expect("a number"));
    let noise: Vec<u8> = {
        let mut random = Random(99);
        (0..2 * LONGEST).map(|_| random.next().to_le_bytes()[7]).collect()
    };
    for round in 0..operations.div_ceil(ROUND) {
        let layout = [Layout::Classic, COMPAT, JOURNAL][(round % 3) as usize];
        let gate = GivenBacking(
            (round % 2 == 1).then(|| backing(&mut Random(round + 1), DISK * 2 / 3 + 512)),
        );
        let geometry = Geometry::new(4096 << (round % 4), 1 << (round % 3)).unwrap();
        let storage = new_storage_of(layout, geometry, DISK, gate.0.is_some());
        let discard = [DiscardMode::Reuse, DiscardMode::PassDown][(round % 5 % 2) as usize];
        let context = WriteContext { discard, ..context(&gate) };
        let image = Image::open(storage.clone(), &context).unwrap();
        let disk = run(&image, round, &noise, &initial(&gate, DISK));
        assert!(read_all(&image) == disk, "round {round}");
        let allocated = clusters(&image);
        image.close().unwrap();
        let image = open(storage, &gate);
        assert!(read_all(&image) == disk, "round {round} reopened");
        // What was kept for clusters that nobody wrote has become theirs.
        assert!(clusters(&image) >= allocated, "round {round} reopened");
        assert!(allocated as u64 > DISK / geometry.cluster_size_bytes() / 3, "round {round}");
        assert!(image.sweep().unwrap(), "round {round}: nothing is named twice");
    }
}
