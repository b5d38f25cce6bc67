//! Many threads on a disk whose tables do not fit the cache: slices are evicted, loaded again and
//! written home while others publish in them, and the disk grows and shrinks under them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use qed_core::{ExtentKind, GivenBacking, Image, Prepared, Shrink, ZeroMode};
use qed_io::{Operation, Record, Recorder};
use qed_spec::{Features, Geometry, GuestOffset};

use crate::support::{Bytes, Random, new_storage, open};

const CLUSTER: u64 = 4096;
/// What one slice of a table maps.
const SLICE: u64 = 512 * CLUSTER;
/// Four times what the smallest cache holds.
const SLICES: u64 = 512;
const DISK: u64 = SLICES * SLICE;
/// Bytes of the backing file, if there is one.
const BACKED: u64 = 2 * SLICE + 512;

/// What one thread wrote: it owns one sector of each cluster.
struct Worker<'a> {
    image: &'a Image,
    sector: u64,
    random: Random,
    wrote: HashMap<u64, u8>,
    backed: u64,
}

impl Worker<'_> {
    /// Works for a while; gives what each sector must hold.
    fn work(mut self) -> HashMap<u64, u8> {
        for _ in 0..4000 {
            let (slice, cluster) = (self.random.below(SLICES), self.random.below(4));
            let at = slice * SLICE + cluster * CLUSTER + self.sector * 512;
            let byte = self.random.next().to_le_bytes()[7];
            match self.random.below(40) {
                0..20 => self.write(at, byte),
                20..24 => {
                    self.image.write_zeroes(GuestOffset::new(at), 512, ZeroMode::IfNeeded).unwrap();
                    self.wrote.insert(at, 0);
                }
                24..36 => self.verify(at),
                36..38 => self.abandon(at),
                38 => self.image.flush().unwrap(),
                _ => drop(self.image.maintain(Instant::now()).unwrap()),
            }
        }
        self.wrote
    }

    fn write(&mut self, at: u64, byte: u8) {
        self.image.write_at(&[byte; 512], GuestOffset::new(at)).unwrap();
        self.wrote.insert(at, byte);
    }

    fn verify(&self, at: u64) {
        let unwritten = if at < self.backed { 7 } else { 0 };
        let expected = self.wrote.get(&at).copied().unwrap_or(unwritten);
        assert_eq!(read(self.image, at), [expected; 512], "at {at:#x}");
    }

    /// Begins an allocating write and gives it up half-way.
    fn abandon(&self, at: u64) {
        let request = self.image.request();
        let prepared = request.prepare(GuestOffset::new(at), 512).unwrap();
        if let Prepared::Allocating(allocation) = prepared {
            self.image.storage().write_at(&[0xee; 512], allocation.host().get()).unwrap();
        }
    }
}

fn read(image: &Image, at: u64) -> [u8; 512] {
    let mut sector = [0xdd; 512];
    image.read_at(&mut sector, GuestOffset::new(at)).unwrap();
    sector
}

/// Grows the disk and shrinks it again, with data in what comes and goes.
fn resize(image: &Image) {
    for round in 1..=12_u64 {
        image.resize(DISK + round * SLICE, Shrink::Refuse).unwrap();
        let last = DISK + round * SLICE - 512;
        assert_eq!(read(image, last), [0; 512], "what was cut off is back");
        image.write_at(&[0xcc; 512], GuestOffset::new(last)).unwrap();
        image.resize(DISK, Shrink::Allow).unwrap();
    }
}

fn assert_nothing_is_shared(image: &Image) {
    let mut used = BTreeSet::new();
    for at in (0..SLICES).flat_map(|slice| (0..4).map(move |n| slice * SLICE + n * CLUSTER)) {
        let extent = image.map(GuestOffset::new(at), CLUSTER).unwrap();
        if let ExtentKind::Data(host) = extent.kind {
            assert!(used.insert(host), "guest offset {at:#x} shares {host}");
        }
    }
    assert!(used.len() > 1000);
}

/// Every write of a table comes after a flush that covered the mark in the header, and no unmark
/// after that. Of this file's writes those of 8 and of 4096 bytes are tables.
fn assert_marked_before_tables(records: &[Record]) {
    let (mut marked, mut durable) = (None, None);
    let mut tables = 0;
    for record in records {
        let done = record.completion.unwrap().order;
        match &record.operation {
            Operation::Write { offset: 0, bytes } => {
                let features = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
                marked = (features & Features::NEED_CHECK.bits() != 0).then_some(done);
                durable = durable.filter(|_| marked.is_some());
            }
            Operation::Write { bytes, .. } if matches!(bytes.len(), 8 | 4096) => {
                tables += 1;
                assert!(durable.is_some_and(|since| since < record.submitted), "{record:?}");
            }
            Operation::Flush if marked.is_some_and(|written| written < record.submitted) => {
                durable = durable.or(Some(done));
            }
            _ => {}
        }
    }
    assert!(tables > 1000);
}

// spec-test: QED-CONS-02, QED-CONS-03
#[test]
fn threads_find_what_they_wrote_while_slices_come_and_go() {
    for backed in [0, BACKED] {
        let gate =
            GivenBacking((backed > 0).then(|| Arc::new(Bytes(vec![7; backed as usize])) as _));
        let storage = new_storage(Geometry::new(4096, 4).unwrap(), DISK, backed > 0);
        let recorder = Arc::new(Recorder::new(storage));
        let mut image = open(recorder.clone(), &gate);
        let wrote: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(|| resize(&image));
            let start = |sector| {
                let (random, wrote) = (Random(sector + 1), HashMap::new());
                let worker = Worker { image: &image, sector, random, wrote, backed };
                scope.spawn(|| worker.work())
            };
            let workers: Vec<_> = (0..8).map(start).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        for _ in 0..2 {
            assert_nothing_is_shared(&image);
            for (at, byte) in &wrote {
                assert_eq!(read(&image, *at), [*byte; 512], "at {at:#x}");
            }
            image.close().unwrap();
            image = open(recorder.clone(), &gate);
        }
        if backed == 0 {
            assert_marked_before_tables(&recorder.records());
        }
    }
}
