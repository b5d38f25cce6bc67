//! A few operations of a guest on a tiny image, recorded.

use std::sync::Arc;

use qed_core::{
    BackingFormat, CreateBacking, CreateOptions, Identity, Image, Layout, LockPolicy, OpenError,
    Prepared, RawFile, RecoveryPolicy, Shrink, WriteContext, create,
};
use qed_fuzz::{Beneath, CrashDisk, DiskContent, Random, SECTOR};
use qed_io::{MemoryStorage, Record, Recorder, Storage};
use qed_spec::{Epoch, Geometry, GuestOffset, ImageUuid};

use crate::guest::{BACKING, Event, Guest, Tag, What, ZERO, content};

/// Sectors of a cluster.
pub(crate) const CLUSTER: u64 = 8;

/// Compat mode with an identity that is the same each time.
pub(crate) const COMPAT: Layout =
    Layout::Compat(Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(7) });

/// Journal mode with the smallest ring, so that it wraps within a few flushes.
pub(crate) const JOURNAL: Layout = Layout::Journal {
    identity: Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(7) },
    ring_len_bytes: 32 << 10,
};

/// One step; places and lengths are in sectors.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write {
        first: u64,
        count: u64,
    },
    Zero {
        first: u64,
        count: u64,
    },
    Flush,
    Resize(u64),
    /// Prepares an allocating write, does a part of its I/O and gives it up.
    Abandon {
        first: u64,
    },
    /// A write whose data is on its way while another thread flushes.
    FlushBetween {
        first: u64,
    },
    SetBacking(Option<Vec<u8>>),
    Reopen,
}

/// An image and what is done to it.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Sectors of the disk.
    pub(crate) size: u64,
    /// Sectors of the backing file; 0 for none.
    pub(crate) backing: u64,
    pub(crate) layout: Layout,
    pub(crate) steps: Vec<Step>,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) start: DiskContent,
    pub(crate) records: Vec<Record>,
    pub(crate) events: Vec<Event>,
    /// What the guest knew at the start.
    pub(crate) guest: Guest,
    pub(crate) gate: Beneath,
}

/// A list of steps of a seed.
pub(crate) fn random(seed: u64) -> Workload {
    let mut random = Random::new(seed);
    let mut size = 5 * CLUSTER + 3;
    let backing = if seed.is_multiple_of(2) { 0 } else { size - 12 + random.below(24) };
    let step = |_| {
        let first = random.below(size);
        let first = if random.below(2) == 0 { first } else { first / CLUSTER * CLUSTER };
        let count = (1 + random.below(2 * CLUSTER)).min(size - first);
        match random.below(16) {
            0..5 => Step::Write { first, count: count.min(2) },
            5 => Step::Write { first, count },
            6..8 => Step::Zero { first, count },
            8..12 => Step::Flush,
            12 => Step::Abandon { first },
            13 => Step::FlushBetween { first },
            14 => {
                size = 2 * CLUSTER + random.below(5 * CLUSTER);
                Step::Resize(size)
            }
            _ => Step::Reopen,
        }
    };
    let steps = (0..9).map(step).collect();
    let layout = [Layout::Classic, COMPAT, JOURNAL][usize::try_from(seed / 2 % 3).unwrap()];
    Workload { size: 5 * CLUSTER + 3, backing, layout, steps }
}

impl Workload {
    /// Runs the steps on a new image, then closes it.
    pub(crate) fn run(&self) -> Run {
        let name = (self.backing > 0).then(|| b"base".to_vec());
        let disk = Arc::new(CrashDisk::new(DiskContent::default()));
        let options = CreateOptions {
            geometry: Geometry::new(4096, 1).unwrap(),
            image_size: self.size * SECTOR,
            backing: name.clone().map(|name| CreateBacking { name, format: BackingFormat::Raw }),
            layout: self.layout,
        };
        create(&*disk, &options).unwrap();
        let start = disk.content();
        let gate = self.gate();
        let mut runner = Runner {
            recorder: Arc::new(Recorder::new(disk)),
            events: Vec::new(),
            next_tag: BACKING + 1,
        };
        let mut image = runner.open(&gate);
        for step in &self.steps {
            image = runner.step(image, &gate, step);
        }
        runner.close(image);
        let guest = Guest::new(self.size, self.backing, name);
        Run { start, records: runner.recorder.records(), events: runner.events, guest, gate }
    }

    fn gate(&self) -> Beneath {
        if self.backing == 0 {
            return Beneath(None);
        }
        let bytes = (0..self.backing).flat_map(|sector| content(BACKING, sector)).collect();
        let raw = RawFile::open(Arc::new(MemoryStorage::new(bytes))).unwrap();
        Beneath(Some(Arc::new(raw)))
    }
}

pub(crate) fn open(storage: Arc<dyn Storage>, gate: &Beneath) -> Image {
    try_open(storage, gate, RecoveryPolicy::Refuse).unwrap()
}

pub(crate) fn try_open(
    storage: Arc<dyn Storage>,
    gate: &Beneath,
    recovery: RecoveryPolicy<'_>,
) -> Result<Image, OpenError> {
    let context = WriteContext {
        cache_limit_bytes: 0,
        ..WriteContext::new(gate, LockPolicy::Take, recovery)
    };
    Image::open(storage, &context)
}

struct Runner {
    recorder: Arc<Recorder>,
    events: Vec<Event>,
    next_tag: Tag,
}

impl Runner {
    fn open(&self, gate: &Beneath) -> Image {
        open(self.recorder.clone(), gate)
    }

    fn close(&mut self, image: Image) {
        image.close().unwrap();
        self.log(What::Acknowledged);
    }

    fn step(&mut self, image: Image, gate: &Beneath, step: &Step) -> Image {
        match step {
            Step::Write { first, count } => {
                let data = self.ask(*first, *count);
                image.write_at(&data, GuestOffset::new(first * SECTOR)).unwrap();
            }
            Step::Zero { first, count } => {
                self.log(What::Asked { first: *first, count: *count, tag: ZERO });
                image.write_zeroes(GuestOffset::new(first * SECTOR), count * SECTOR).unwrap();
            }
            Step::Flush => self.flush(&image),
            Step::Resize(size) => {
                self.log(What::ResizeAsked(*size));
                image.resize(size * SECTOR, Shrink::Allow).unwrap();
                self.log(What::Resized(*size));
            }
            Step::Abandon { first } => self.abandon(&image, *first),
            Step::FlushBetween { first } => self.flush_between(&image, *first),
            Step::SetBacking(name) => {
                self.log(What::Renaming(name.clone()));
                let backing =
                    name.clone().map(|name| CreateBacking { name, format: BackingFormat::Raw });
                image.set_backing(backing.as_ref()).unwrap();
                self.log(What::Renamed);
            }
            Step::Reopen => {
                self.close(image);
                return self.open(gate);
            }
        }
        image
    }

    fn abandon(&mut self, image: &Image, first: u64) {
        let request = image.request();
        let prepared = request.prepare(GuestOffset::new(first * SECTOR), SECTOR).unwrap();
        if let Prepared::Allocating(allocation) = prepared {
            let foreign = content(self.tag(), u64::from(u32::MAX));
            self.recorder.write_at(&foreign, allocation.host().get()).unwrap();
        }
    }

    fn flush_between(&mut self, image: &Image, first: u64) {
        let data = self.ask(first, 1);
        let request = image.request();
        match request.prepare(GuestOffset::new(first * SECTOR), SECTOR).unwrap() {
            Prepared::InPlace { host, .. } => self.recorder.write_at(&data, host.get()).unwrap(),
            Prepared::Allocating(allocation) => {
                image.flush().unwrap();
                self.recorder.write_at(&data, allocation.host().get()).unwrap();
                image.flush().unwrap();
                allocation.commit().unwrap();
            }
        }
    }

    fn flush(&mut self, image: &Image) {
        image.flush().unwrap();
        self.log(What::Acknowledged);
    }

    /// Notes a write of new content.
    fn ask(&mut self, first: u64, count: u64) -> Vec<u8> {
        let tag = self.tag();
        self.log(What::Asked { first, count, tag });
        (first..first + count).flat_map(|sector| content(tag, sector)).collect()
    }

    fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        self.next_tag
    }

    fn log(&mut self, what: What) {
        self.events.push(Event { position: self.recorder.records().len(), what });
    }
}
