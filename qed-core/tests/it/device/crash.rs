//! Crashes of an image on a device: whatever of the writes since the last flush the device kept, the image
//! opens without a check, shows no byte of others, and gives out no space that it names.

use std::ops::Range;
use std::sync::Arc;

use qed_core::{Image, Layout, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, ZeroMode};
use qed_io::{MemoryStorage, Operation, Recorder};
use qed_spec::{ErrorKind, GuestOffset};

use super::{CLUSTER, LAYOUTS, new_on_device, read_all};
use crate::support::Random;

const DISK: u64 = 2 * HALF;
/// What one slice of a table maps: who writes in one half reads nothing of what the tables say of the other.
const HALF: u64 = 2 << 20;
const SECTOR: usize = 512;
/// Crashes for each seed.
const CRASHES: u64 = 16;

/// Bytes of the disk that were set, and at which moment.
struct Written {
    moment: u64,
    range: Range<usize>,
    byte: u8,
}

/// What happened to a device, and what the guest was promised.
struct History {
    before: Vec<u8>,
    recorder: Arc<Recorder>,
    written: Vec<Written>,
    /// Moments at which a flush of the guest had begun, and had ended.
    flushes: Vec<(u64, u64)>,
}

fn context() -> WriteContext<'static> {
    const REFUSED: RecoveryPolicy<'_> =
        RecoveryPolicy::Run(&|_, _| Err("no table is in doubt".into()));
    WriteContext {
        cache_limit_bytes: 0,
        ..WriteContext::new(&RefuseBacking, LockPolicy::None, REFUSED)
    }
}

impl History {
    /// Some sessions of an image on a device, most of which end with a close.
    fn new(layout: Layout, random: &mut Random) -> Self {
        let device = new_on_device(layout, DISK, 1 << 20);
        let before = device.to_vec();
        let recorder = Arc::new(Recorder::new(device));
        let mut history = Self { before, recorder, written: Vec::new(), flushes: Vec::new() };
        for _ in 0..3 {
            let image = Image::open(history.recorder.clone(), &context()).unwrap();
            let half = random.below(2);
            for _ in 0..1 + random.below(12) {
                history.act(&image, half, random);
            }
            let moment = history.recorder.tick();
            image.close().unwrap();
            history.flushes.push((moment, history.recorder.tick()));
        }
        history
    }

    fn act(&mut self, image: &Image, half: u64, random: &mut Random) {
        let sectors = HALF / SECTOR as u64;
        let first = half * sectors + random.below(sectors - 40);
        let range = first as usize * SECTOR..(first + 1 + random.below(40)) as usize * SECTOR;
        let (at, moment) = (GuestOffset::new(range.start as u64), self.recorder.tick());
        match random.below(8) {
            0..5 => {
                let byte = 1 + (random.below(200) as u8);
                match image.write_at(&vec![byte; range.len()], at) {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
                }
                self.written.push(Written { moment, range, byte });
            }
            5 => {
                let zeroed = image.write_zeroes(at, range.len() as u64, ZeroMode::Unmap);
                zeroed.unwrap();
                self.written.push(Written { moment, range, byte: 0 });
            }
            6 => drop(image.sweep().unwrap()),
            _ => {
                image.flush().unwrap();
                self.flushes.push((moment, self.recorder.tick()));
            }
        }
    }

    /// A moment to crash at: often while a flush is under way, when most is on its way.
    fn moment(&self, random: &mut Random) -> u64 {
        let records = self.recorder.records();
        let record = &records[random.below(records.len() as u64) as usize];
        let flush = records.iter().find(|flush| {
            flush.operation == Operation::Flush && flush.submitted >= record.submitted
        });
        match flush.and_then(|flush| flush.completion) {
            Some(end) if random.below(4) > 0 => end.order,
            _ => record.submitted,
        }
    }

    /// What the device may hold after a crash at `moment`.
    fn crash(&self, moment: u64, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.before.clone();
        let records = self.recorder.records();
        let happened = records.iter().filter(|record| record.submitted < moment);
        let is_durable = |order: u64| {
            records.iter().any(|flush| {
                flush.operation == Operation::Flush
                    && order < flush.submitted
                    && flush.completion.is_some_and(|end| end.order < moment)
            })
        };
        let taste = random.below(5);
        for record in happened {
            let (offset, new) = match &record.operation {
                Operation::Write { offset, bytes } => (*offset, bytes.clone()),
                Operation::WriteZeroes(range) => {
                    (range.start, vec![0; (range.end - range.start) as usize].into())
                }
                Operation::Flush => continue,
                other => unreachable!("{other:?} on a device"),
            };
            let end = record.completion.expect("all calls returned").order;
            let whole = is_durable(end) || taste == 0 || taste == 4 && random.below(2) == 0;
            for (number, sector) in new.chunks(SECTOR).enumerate() {
                let is_kept = match taste {
                    _ if whole => true,
                    1 | 4 => false,
                    2 => random.below(4) == 0,
                    _ => random.below(2) == 0,
                };
                if is_kept {
                    let at = offset as usize + number * SECTOR;
                    bytes[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        bytes
    }

    /// Whether each sector of a disk is one that it may be after a crash at `moment`.
    fn assert_may_be(&self, disk: &[u8], moment: u64, what: &str) {
        let ended = self.flushes.iter().filter(|(_, end)| *end < moment);
        let durable = ended.map(|(begin, _)| *begin).max().unwrap_or(0);
        for (number, sector) in disk.chunks(SECTOR).enumerate() {
            let at = number * SECTOR;
            let mut may_be = vec![0];
            for written in
                self.written.iter().filter(|it| it.moment < moment && it.range.contains(&at))
            {
                if written.moment < durable {
                    may_be.clear();
                }
                may_be.push(written.byte);
            }
            let is_one = may_be.iter().any(|byte| sector.iter().all(|it| it == byte));
            assert!(is_one, "{what}: sector {number} begins {:?}, not {may_be:?}", &sector[..4]);
        }
    }
}

// spec-test: QED-DEV-01, QED-DEV-02, QED-CONS-02
#[test]
fn after_a_crash_nothing_is_lost_shown_or_given_out_twice() {
    for seed in 1..=24 {
        let mut random = Random(seed * 0x9e37_79b9);
        let layout = LAYOUTS[(seed % 3) as usize];
        let history = History::new(layout, &mut random);
        for crash in 0..CRASHES {
            let moment = history.moment(&mut random);
            let what = format!("seed {seed}, crash {crash} at {moment}");
            let device = Arc::new(MemoryStorage::device(history.crash(moment, &mut random)));
            go_on(&history, device, moment, &what, &mut random);
        }
    }
}

/// Opens what a crash left, and writes where nothing was; what there was stays.
fn go_on(
    history: &History,
    device: Arc<MemoryStorage>,
    moment: u64,
    what: &str,
    random: &mut Random,
) {
    let image = Image::open(device.clone(), &context()).expect(what);
    let reads_first = random.below(2) == 0;
    let mut disk = read_all(
        &Image::open(Arc::new(MemoryStorage::device(device.to_vec())), &context()).expect(what),
    );
    history.assert_may_be(&disk, moment, what);
    if reads_first {
        assert!(read_all(&image) == disk, "{what}");
    }
    let half = random.below(2);
    for _ in 0..30 {
        let first = (half * HALF + random.below(HALF)) / CLUSTER;
        let range = (first * CLUSTER) as usize..((first + 1) * CLUSTER) as usize;
        match image.write_at(&[0xab; CLUSTER as usize], GuestOffset::new(first * CLUSTER)) {
            Ok(()) => disk[range].fill(0xab),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}"),
        }
    }
    assert!(read_all(&image) == disk, "{what}: space was given out twice");
    image.sweep().expect(what);
    image.close().expect(what);
    let image = Image::open(device, &context()).expect(what);
    assert!(read_all(&image) == disk, "{what}: closed and opened");
}
