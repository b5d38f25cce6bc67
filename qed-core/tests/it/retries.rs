//! Every I/O of a workload fails once, and what failed is tried again: the image goes on as if
//! nothing had happened.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qed_core::{
    BackingFormat, CreateBacking, ExtentKind, GivenBacking, Image, LockPolicy, ReadContext,
    ReadOnlyImage, Shrink, ZeroMode, replay_journal,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, Request, RequestKind, Storage};
use qed_spec::{Geometry, GuestOffset};

use crate::support::{Bytes, JOURNAL, context, new_storage, new_storage_of};

const CLUSTER: u64 = 4096;
/// What one table of 512 entries maps.
const TABLE: u64 = 512 * CLUSTER;
const DISK: u64 = TABLE + 5 * CLUSTER;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Bytes from a place, filled with a value.
    Write(u64, u64, u8),
    Zero(u64, u64),
    Flush,
    Resize(u64),
    SetBacking(&'static [u8]),
}

const STEPS: [Step; 20] = [
    Step::Write(0, 512, 1),
    Step::Write(3 * CLUSTER + 100, 2 * CLUSTER, 2),
    Step::Write(TABLE + 512, 512, 3),
    Step::Flush,
    Step::Write(9 * CLUSTER, 512, 4),
    Step::Zero(2 * CLUSTER, 2 * CLUSTER + 50),
    Step::Zero(20 * CLUSTER + 7, 3 * CLUSTER),
    Step::Flush,
    Step::Flush,
    Step::Write(100 * CLUSTER, 512, 5),
    Step::Resize(TABLE - CLUSTER + 512),
    Step::Write(TABLE - CLUSTER, 512, 6),
    Step::Write(50 * CLUSTER, 512, 7),
    Step::Resize(TABLE + 3 * CLUSTER),
    Step::Write(TABLE + CLUSTER, 512, 8),
    Step::SetBacking(b"another"),
    Step::Resize(60 * CLUSTER),
    Step::Write(51 * CLUSTER, 512, 9),
    Step::Resize(70 * CLUSTER),
    Step::Flush,
];

fn perform(image: &Image, step: Step) -> Result<(), Box<dyn Error>> {
    match step {
        Step::Write(at, len, byte) => {
            image.write_at(&vec![byte; len as usize], GuestOffset::new(at))?;
        }
        Step::Zero(at, len) => image.write_zeroes(GuestOffset::new(at), len, ZeroMode::IfNeeded)?,
        Step::Flush => image.flush()?,
        Step::Resize(size) => image.resize(size, Shrink::Allow)?,
        Step::SetBacking(name) => {
            let backing = CreateBacking { name: name.to_vec(), format: BackingFormat::Raw };
            image.set_backing(Some(&backing))?;
        }
    }
    Ok(())
}

fn model(step: Step, bytes: &mut Vec<u8>) {
    match step {
        Step::Write(at, len, byte) => bytes[at as usize..(at + len) as usize].fill(byte),
        Step::Zero(at, len) => bytes[at as usize..(at + len) as usize].fill(0),
        Step::Resize(size) => bytes.resize(size as usize, 0),
        Step::Flush | Step::SetBacking(_) => {}
    }
}

/// Whether the image reads as the model and no two guest clusters share space.
fn verify(image: &ReadOnlyImage, expected: &[u8], case: &str) {
    let mut all = vec![0xee; usize::try_from(image.image_size()).unwrap()];
    image.read_at(&mut all, GuestOffset::new(0)).unwrap();
    assert!(all == expected, "{case}");
    let (mut at, mut used) = (0, BTreeSet::new());
    while at < image.image_size() {
        let extent = image.map(GuestOffset::new(at), CLUSTER.min(image.image_size() - at)).unwrap();
        if let ExtentKind::Data(host) = extent.kind {
            assert!(used.insert(host), "{case}: guest offset {at:#x} shares {host}");
        }
        at += extent.len;
    }
}

/// Runs all steps, each once more if it fails, and closes the image; what the disk must hold, and
/// whether closing went well.
fn run(faulty: &Arc<Faulty>, gate: &GivenBacking, case: &str) -> (Vec<u8>, bool) {
    let mut expected = vec![if gate.0.is_some() { 9 } else { 0 }; DISK as usize];
    let opened = Image::open(faulty.clone(), &context(gate));
    let image = opened.or_else(|_| Image::open(faulty.clone(), &context(gate))).unwrap();
    for step in STEPS {
        if perform(&image, step).is_err() {
            perform(&image, step).unwrap_or_else(|error| panic!("{case}: {step:?}: {error}"));
        }
        model(step, &mut expected);
    }
    (expected, image.close().is_ok())
}

#[test]
fn what_failed_once_can_be_tried_again() {
    // The backing file is longer than any size the disk has.
    let backing = GivenBacking(Some(Arc::new(Bytes(vec![9; 2 * TABLE as usize]))));
    for gate in [GivenBacking(None), backing] {
        for fault in [Fault::NoSpace, Fault::Partial { bytes: 100 }, Fault::Partial { bytes: 512 }]
        {
            for number in 0.. {
                let geometry = Geometry::new(4096, 1).unwrap();
                let storage = new_storage(geometry, DISK, gate.0.is_some());
                let faulty = Arc::new(Faulty::new(storage.clone()));
                faulty.fail_when(
                    move |request| request.number >= number && request.kind != RequestKind::Flush,
                    fault,
                    Repeat::Once,
                );
                let case = format!("{number} {fault:?} backing {}", gate.0.is_some());
                let (expected, closed) = run(&faulty, &gate, &case);
                if faulty.failures() == 0 {
                    assert!(number > 90, "the workload has more than {number} requests");
                    break;
                }
                let read = ReadContext::new(&gate, LockPolicy::None);
                let again = ReadOnlyImage::open(storage.clone(), &read).unwrap();
                verify(&again, &expected, &case);
                let clusters = storage.len().unwrap() / CLUSTER;
                assert!(!closed || clusters < 24, "{case}: {clusters} clusters");
            }
        }
    }
}

// spec-test: QED-JRN-18
#[test]
fn a_commit_that_found_no_room_is_tried_again_by_maintain() {
    let storage = new_storage_of(JOURNAL, Geometry::new(4096, 1).unwrap(), DISK, false);
    let faulty = Arc::new(Faulty::new(storage.clone()));
    let image = Image::open(faulty.clone(), &context(&GivenBacking(None))).unwrap();
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    image.flush().unwrap();
    // Tables cannot be written, so the ring fills.
    let ring_end = image.header().fields().l1_table_offset.get();
    let writes_tables = move |request: &Request| {
        request.kind == RequestKind::Write && request.range.start >= ring_end
    };
    let mut flushed = 0;
    for cluster in 1..64 {
        image.write_at(&[1; 512], GuestOffset::new(cluster * CLUSTER)).unwrap();
        faulty.fail_when(writes_tables, Fault::Io, Repeat::Always);
        let result = image.flush();
        faulty.heal();
        if result.is_err() {
            flushed = cluster;
            break;
        }
    }
    assert!((4..63).contains(&flushed), "the ring is full after {flushed} flushes");
    let start = Instant::now();
    let mut now = start;
    while let Some(due) = image.maintain(now).unwrap() {
        now = due;
        assert!(now < start + Duration::from_secs(60), "it comes to an end");
    }
    let crashed: Arc<dyn Storage> = Arc::new(MemoryStorage::new(storage.to_vec()));
    replay_journal(&crashed).unwrap();
    let read = ReadContext::new(&GivenBacking(None), LockPolicy::None);
    let after = ReadOnlyImage::open(crashed, &read).unwrap();
    let mut data = [0; 512];
    after.read_at(&mut data, GuestOffset::new(flushed * CLUSTER)).unwrap();
    assert_eq!(data, [1; 512], "nothing waited, and the entry was nowhere");
}
