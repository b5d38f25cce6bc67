//! Many flushes: threads that each write a cluster of their own in one slice, flush, and look at their
//! slot in the storage, which is what a crash right after the flush would leave. And one that panics.
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use crate::ZeroMode;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use qed_io::{FileOptions, FileStorage, MemoryStorage, Storage};
use qed_journal::DataOrder;
use qed_spec::{Epoch, Geometry, GuestOffset, HostCluster, HostOffset, ImageUuid, L2Entry};

use crate::{
    BackingError, BackingFormat, CreateBacking, CreateOptions, ExtentKind, GivenBacking,
    GuestExtent, GuestExtentKind, Identity, Image, ImageError, Layout, LockPolicy, RecoveryPolicy,
    VirtualDisk, WriteContext, create,
};

const THREADS: u64 = 6;
const CLUSTER: u64 = 4096;
/// A table is one slice.
const SLICE: u64 = 512;
/// After that many slices another image begins.
const SLICES: u64 = 16;
const DISK: u64 = SLICES * SLICE * CLUSTER;
/// Flushes of one image.
const ROUND: u64 = SLICES * (SLICE / THREADS) * THREADS;
/// In the ordinary run, of each kind of storage; as many as `QED_FLUSHES` says otherwise.
const FLUSHES: u64 = 16 * ROUND;

const IDENTITY: Identity = Identity { uuid: ImageUuid::new([5; 16]), epoch: Epoch::new(6) };
const LAYOUTS: [Layout; 2] =
    [Layout::Compat(IDENTITY), Layout::Journal { identity: IDENTITY, ring_len_bytes: 32 << 10 }];

/// A backing file as long as the disk, whose bytes are all the same.
#[derive(Debug)]
struct Sevens;

impl VirtualDisk for Sevens {
    fn len(&self) -> u64 {
        DISK
    }

    fn read_at(&self, buf: &mut [u8], _: u64) -> Result<(), BackingError> {
        buf.fill(7);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let kind = GuestExtentKind::Data { host_offset: offset };
        Ok(GuestExtent { len: max_len.min(DISK - offset), depth: 0, kind })
    }
}

/// A new image in `storage`, open.
fn image(storage: &Arc<dyn Storage>, layout: Layout, is_backed: bool) -> Image {
    let base = || CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw };
    let backing = is_backed.then(base);
    let geometry = Geometry::new(4096, 1).unwrap();
    let options = CreateOptions { geometry, image_size: DISK, backing, layout };
    create(&**storage, &options).unwrap();
    let gate = GivenBacking(is_backed.then(|| Arc::new(Sevens) as _));
    let context = WriteContext::new(&gate, LockPolicy::None, RecoveryPolicy::Refuse);
    Image::open(Arc::clone(storage), &context).unwrap()
}

/// The value of a table slot that a crash would leave: of the file, or of what is committed.
fn stored(image: &Image, at: u64) -> u64 {
    let mut value = [0; 8];
    let at = HostOffset::new(at);
    let read = match image.durability.journal_to_read() {
        Some(journal) => journal.read_at(&mut value, at),
        None => image.storage().read_at(&mut value, at.get()),
    };
    read.unwrap();
    u64::from_le_bytes(value)
}

/// Whether the tables in the storage map a cluster as the image does, which has something there.
fn is_stored(image: &Image, cluster: u64) -> bool {
    let extent = image.map(GuestOffset::new(cluster * CLUSTER), CLUSTER).unwrap();
    let entry = match extent.kind {
        ExtentKind::Data(host) => host.get(),
        ExtentKind::Zero => 1,
        ExtentKind::Unallocated => return false,
    };
    let l1_offset = image.header().fields().l1_table_offset.get();
    let table = stored(image, l1_offset + cluster / SLICE * 8);
    table != 0 && stored(image, table + cluster % SLICE * 8) == entry
}

/// How a thread gives a cluster its entry.
type Write = fn(&Image, GuestOffset) -> Result<(), ImageError>;

const WRITES: [Write; 2] = [
    |image, at| image.write_at(&[9; CLUSTER as usize], at),
    // Without data, so that more threads flush at a time.
    |image, at| image.write_zeroes(at, CLUSTER, ZeroMode::Explicit),
];

/// Writes and flushes a thread's clusters, slice by slice together with the others; how many of
/// them were not stored after their flush.
fn work(image: &Image, write: Write, thread: u64, together: &Barrier) -> u64 {
    let mut lost = 0;
    for slice in 0..SLICES {
        together.wait();
        for slot in (thread..SLICE - SLICE % THREADS).step_by(THREADS as usize) {
            let cluster = slice * SLICE + slot;
            let written = write(image, GuestOffset::new(cluster * CLUSTER));
            // An error is counted, since a thread that panics would leave the others waiting.
            let is_durable = written.and_then(|()| image.flush()).is_ok();
            lost += u64::from(!(is_durable && is_stored(image, cluster)));
        }
    }
    lost
}

#[track_caller]
fn assert_none_is_lost(storage: impl Fn() -> Arc<dyn Storage>) {
    let flushes = std::env::var("QED_FLUSHES").ok();
    let flushes: u64 = flushes.map_or(FLUSHES, |text| text.parse().expect("a number"));
    for round in 0..flushes.div_ceil(ROUND) {
        let kind = (round % 8) as usize;
        let (layout, is_backed, write) = (LAYOUTS[kind % 2], kind / 2 % 2 == 1, WRITES[kind / 4]);
        let image = image(&storage(), layout, is_backed);
        let (together, lost) = (Barrier::new(THREADS as usize), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (image, together, lost) = (&image, &together, &lost);
                scope.spawn(move || {
                    lost.fetch_add(work(image, write, thread, together), Ordering::Relaxed);
                });
            }
        });
        image.close().unwrap();
        let lost = lost.into_inner();
        assert_eq!(lost, 0, "round {round}, {layout:?}, with a backing file: {is_backed}");
    }
}

// spec-test: QED-RW-07
#[test]
fn each_of_many_flushes_holds_in_memory() {
    assert_none_is_lost(|| Arc::new(MemoryStorage::default()));
}

// spec-test: QED-RW-07
#[test]
fn each_of_many_flushes_holds_in_a_file() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs on every Debian");
    let path: &Path = &folder.path().join("disk.qed");
    std::fs::write(path, b"").unwrap();
    assert_none_is_lost(|| Arc::new(FileStorage::open(path, FileOptions::READ_WRITE).unwrap()));
}

// spec-test: QED-RW-07
#[test]
fn after_a_flush_that_panics_before_its_records_are_submitted_nothing_is_acknowledged() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let image = image(&storage, LAYOUTS[1], false);
    image.write_at(&[9; CLUSTER as usize], GuestOffset::new(0)).unwrap();
    // An entry past all space: the journal refuses to say it.
    let entry = L2Entry::Data(HostCluster::new(1 << 40).unwrap());
    let entries = std::iter::once(entry);
    let log = |_: &mut dyn Iterator<Item = u64>| ();
    image.map.set_entries(GuestOffset::new(CLUSTER), entries, DataOrder::Together, log).unwrap();
    catch_unwind(AssertUnwindSafe(|| image.flush())).unwrap_err();
    for result in [image.flush(), image.close()] {
        assert!(matches!(result, Err(ImageError::WritesStopped)), "{result:?}");
    }
}
