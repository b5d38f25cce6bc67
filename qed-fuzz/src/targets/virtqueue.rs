//! Rings of a guest: whatever it writes, each request does what its bytes say, no other byte of the guest or
//! of the disk changes, and every page that changes is in the dirty log.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use qed_core::RawFile;
use qed_export::server::Export;
use qed_export::vhost::{
    LoneOptions, LoneQueue, Memory, RegionInfo, RingAddress, VhostOptions, memory_file,
};
use qed_export::{BlockDevice, RawDisk, ReadOnlyDisk};
use qed_io::MemoryStorage;

use crate::branches::Branches;
use crate::generators::virtqueue::{AVAILABLE, DISK_SIZE, Poke, QueueCase, REGIONS, TABLE, USED};
use crate::oracles::virtqueue::{Step, World};
use crate::size::usize_of;

/// Where a frontend has the first region.
const FRONTEND: u64 = 1 << 40;
/// A bit for each page of the first two regions, and far ones are not logged.
const LOG_BYTES: u64 = 4096;
/// More than a ring can have waiting.
const MAX_STEPS: usize = 100;

/// What branches are named by.
#[derive(Debug)]
enum Status {
    Ok,
    IoError,
    Unsupported,
}

#[derive(Debug)]
enum Log {
    Uncovered,
}

pub(super) fn run(from: &mut Unstructured<'_>, branches: &mut Branches) -> Result<()> {
    let case = QueueCase::any(from)?;
    Rig::new(&case).run(&case, branches);
    Ok(())
}

/// A queue and what it is to do.
struct Rig {
    memory: Memory,
    device: Arc<dyn BlockDevice>,
    log: std::fs::File,
    queue: LoneQueue,
    world: World,
}

impl Rig {
    fn new(case: &QueueCase) -> Self {
        let bytes: Vec<u8> = (0..DISK_SIZE).map(|at| (at % 253).to_le_bytes()[0]).collect();
        let storage = Arc::new(MemoryStorage::new(bytes));
        let device: Arc<dyn BlockDevice> = if case.is_read_only {
            let raw = RawFile::open(storage).expect("memory has a length");
            Arc::new(ReadOnlyDisk::new(Arc::new(raw)))
        } else {
            Arc::new(RawDisk::open(storage).expect("memory has a length"))
        };
        // A raw file that is read has whole sectors, with zeros behind its end.
        let mut disk = vec![0; usize_of(device.size())];
        device.read_at(&mut disk, 0).expect("it can be read");
        let world = World::new(case, disk);
        let mut memory = Memory::default();
        for (index, (guest, len)) in (0..).zip(REGIONS) {
            let frontend = FRONTEND * (index + 1);
            let info = RegionInfo { guest, len, frontend, file_offset: 0 };
            memory = memory.with(info, memory_file(len).expect("a file")).expect("a region");
        }
        for (bytes, (guest, _)) in world.regions().iter().zip(REGIONS) {
            memory.write(bytes, guest).expect("it is there");
        }
        let log = memory_file(LOG_BYTES).expect("a file");
        let export = Arc::new(Export::new("disk", Arc::clone(&device)));
        let options = VhostOptions { serial: "virtqueue".to_owned(), ..VhostOptions::default() };
        let lone = LoneOptions {
            size: case.size,
            address: RingAddress {
                descriptors: FRONTEND + TABLE,
                available: FRONTEND + AVAILABLE,
                used: FRONTEND + USED,
                used_log: case.is_logged.then_some(USED),
            },
            features: case.features,
            base: case.base,
            log: case.is_logged.then(|| (log.try_clone().expect("a file"), LOG_BYTES)),
            inflight: case
                .has_inflight
                .then(|| LoneQueue::inflight_file(case.size).expect("a file")),
        };
        let queue = LoneQueue::new(export, &options, memory.clone(), lone).expect("a queue");
        Self { memory, device, log, queue, world }
    }

    fn run(mut self, case: &QueueCase, branches: &mut Branches) {
        for pokes in &case.rounds {
            pokes.iter().for_each(|poke| self.poke(case, poke));
            for step in 0.. {
                assert!(step < MAX_STEPS, "a ring without end");
                let expected = self.world.step(case);
                let found = self.queue.serve_next();
                branches.note("step", expected);
                // What is written far away has no bit: to go on would lose it.
                if !self.is_covered() && case.is_logged {
                    branches.note("log", Log::Uncovered);
                    assert!(found.is_err(), "a page without a bit");
                    return;
                }
                if let Err(error) = &found {
                    let why = std::error::Error::source(error).expect("it says why");
                    assert_eq!(expected, Step::Broken, "{why}");
                }
                self.compare(case);
                match (expected, found) {
                    (Step::Served(status), Ok(true)) => {
                        let all = [Status::Ok, Status::IoError, Status::Unsupported];
                        branches.note("status", &all[usize::from(status)]);
                    }
                    (Step::Nothing, Ok(false)) => break,
                    (Step::Broken, Err(_)) => return,
                    (expected, found) => panic!("{expected:?}, and it did {found:?}"),
                }
            }
            let wants = self.queue.wants_interrupt().expect("the ring is there");
            assert_eq!(wants, self.world.wants_interrupt(case), "an interrupt");
            branches.note("interrupt", wants);
        }
    }

    /// What the guest writes, in both worlds.
    fn poke(&mut self, case: &QueueCase, poke: &Poke) {
        let index = self.world.u16_at(AVAILABLE + 2);
        let slot = u64::from(index % case.size);
        match poke {
            Poke::Bytes { at, bytes } => self.write(*at, bytes),
            Poke::Offer(head) => {
                self.write(AVAILABLE + 4 + slot * 2, &head.to_le_bytes());
                self.write(AVAILABLE + 2, &index.wrapping_add(1).to_le_bytes());
            }
            Poke::Jump(by) => {
                self.write(AVAILABLE + 2, &index.wrapping_add(*by).to_le_bytes());
            }
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let fits = self.memory.write(bytes, at).is_ok();
        assert_eq!(fits, self.world.poke(at, bytes), "{} bytes at {at:#x}", bytes.len());
    }

    fn is_covered(&self) -> bool {
        self.world.pages.iter().all(|page| *page < LOG_BYTES * 8)
    }

    /// Every byte of the guest and of the disk is as it has to be, and the log has what was written.
    fn compare(&mut self, case: &QueueCase) {
        for (bytes, (guest, len)) in self.world.regions().iter().zip(REGIONS) {
            let mut found = vec![0; usize_of(len)];
            self.memory.read(&mut found, guest).expect("it is there");
            let differs = found.iter().zip(bytes).position(|(found, want)| found != want);
            if let Some(at) = differs {
                let end = (at + 16).min(found.len());
                let (found, want) = (&found[at..end], &bytes[at..end]);
                panic!("bytes at {at:#x} of the region at {guest:#x}: {found:x?}, not {want:x?}");
            }
        }
        let mut disk = vec![0; self.world.disk.len()];
        self.device.read_at(&mut disk, 0).expect("it can be read");
        assert!(disk == self.world.disk, "the disk");
        if case.is_logged {
            let mut log = vec![0; usize_of(LOG_BYTES)];
            self.log.read_exact_at(&mut log, 0).expect("it can be read");
            let has = |page: &u64| log[usize_of(page / 8)] & 1 << (page % 8) != 0;
            let marked: Vec<u64> = (0..LOG_BYTES * 8).filter(has).collect();
            let written: Vec<u64> = self.world.pages.iter().copied().collect();
            assert_eq!(marked, written, "pages in the log");
        }
    }
}
