//! Two disks over one file: the image is handed over, refused, lost and taken back.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use qed_core::{
    Checked, CrashLeft, CreateOptions, DEFAULT_RING_LEN_BYTES, Identity, Image, Layout, LockPolicy,
    ReadContext, ReadOnlyImage, Recovered, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_export::{
    Activity, BlockDevice, DeviceError, Durability, HandOver, QedDisk, ReadOnlyDisk, Shrink, Space,
    Speed, TakeOver, Zeroing,
};
use qed_io::{
    Access, Fault, Faulty, FileOptions, FileStorage, Repeat, Request, RequestKind, Storage,
};
use qed_spec::{Epoch, ImageUuid};
use tempfile::TempDir;

const SIZE: u64 = 4 << 20;
const LATER: Durability = Durability::AfterFlush;

/// An image that several may open, and how often one of them had to recover it.
struct Lab {
    dir: TempDir,
    recoveries: Arc<AtomicUsize>,
}

/// What an opener puts between a disk and the file.
type Under = Arc<dyn Fn(Arc<dyn Storage>) -> Arc<dyn Storage> + Send + Sync>;

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> DeviceError {
    DeviceError::Failed(error.into())
}

fn open_file(path: &Path, access: Access) -> Result<Arc<dyn Storage>, DeviceError> {
    let options = FileOptions { access, direct: false };
    Ok(Arc::new(FileStorage::open(path, options).map_err(failed)?))
}

impl Lab {
    fn new(layout: Layout) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        fs::write(&path, b"").unwrap();
        let mut options = CreateOptions::new(SIZE);
        options.layout = layout;
        create(&*open_file(&path, Access::ReadWrite).unwrap(), &options).unwrap();
        Self { dir, recoveries: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// A disk that does not have the image yet.
    fn inactive(&self) -> HandOver {
        self.inactive_over(Arc::new(|file| file))
    }

    fn inactive_over(&self, under: Under) -> HandOver {
        let (to_view, to_own) = (self.path(), self.path());
        let recoveries = Arc::clone(&self.recoveries);
        let view = move || {
            let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
            let file = open_file(&to_view, Access::ReadOnly)?;
            let image = ReadOnlyImage::open(file, &context).map_err(failed)?;
            Ok(Arc::new(ReadOnlyDisk::new(Arc::new(image))) as Arc<dyn BlockDevice>)
        };
        let own = move |_| {
            let hook = |storage: &dyn Storage, _: &CrashLeft| {
                recoveries.fetch_add(1, Ordering::Relaxed);
                all_is_well(storage)
            };
            let policy = RecoveryPolicy::Run(&hook);
            let context = WriteContext::new(&RefuseBacking, LockPolicy::Take, policy);
            let file = under(open_file(&to_own, Access::ReadWrite)?);
            let image = Image::open(file, &context).map_err(failed)?;
            Ok(Arc::new(QedDisk::new(image)) as Arc<dyn BlockDevice>)
        };
        HandOver::inactive(view, own).unwrap()
    }

    /// The bytes of the file, and when it was written last.
    fn file(&self) -> (Vec<u8>, (i64, i64)) {
        let meta = fs::metadata(self.path()).unwrap();
        (fs::read(self.path()).unwrap(), (meta.mtime(), meta.mtime_nsec()))
    }

    fn recoveries(&self) -> usize {
        self.recoveries.load(Ordering::Relaxed)
    }

    fn is_clean(&self) -> bool {
        let file = open_file(&self.path(), Access::ReadOnly).unwrap();
        let header = qed_core::read_header(&*file).unwrap();
        header.features().is_empty()
    }
}

/// Stands for a check: the processes that die here leave everything that they wrote to the file.
fn all_is_well(storage: &dyn Storage) -> Result<Recovered, Box<dyn Error + Send + Sync>> {
    let mut sector = [0; 512];
    storage.read_at(&mut sector, 0)?;
    sector[16] &= !2;
    storage.write_at(&sector, 0)?;
    storage.flush()?;
    Ok(Recovered { checked: Checked::AllTables, mended: 0 })
}

fn layouts() -> [Layout; 3] {
    let identity = Identity { uuid: ImageUuid::new([7; 16]), epoch: Epoch::new(9) };
    let ring_len_bytes = DEFAULT_RING_LEN_BYTES;
    [Layout::Classic, Layout::Compat(identity), Layout::Journal { identity, ring_len_bytes }]
}

fn read(disk: &dyn BlockDevice, at: u64) -> u8 {
    let mut byte = [0];
    disk.read_at(&mut byte, at).unwrap();
    byte[0]
}

fn is_inactive<T: std::fmt::Debug>(answer: Result<T, DeviceError>) -> bool {
    matches!(answer, Err(DeviceError::Inactive))
}

// spec-test: QED-HAND-03, QED-HAND-04
#[test]
fn an_image_goes_over_and_comes_back_without_a_check() {
    for layout in layouts() {
        let lab = Lab::new(layout);
        let (here, there) = (lab.inactive(), lab.inactive());
        here.activate(TakeOver::No).unwrap();
        for round in 1..=3_u8 {
            let at = u64::from(round) * 200_000;
            here.write_at(&[round; 512], at, LATER).unwrap();
            here.maintain(Instant::now() + Duration::from_secs(60)).unwrap();
            here.write_at(&[round; 512], at + 512, LATER).unwrap();
            assert!(there.activate(TakeOver::No).is_err(), "two have the image");
            assert_ne!(there.activity(), Activity::Active);
            here.deactivate().unwrap();
            assert_eq!(here.activity(), Activity::Ended);
            assert!(lab.is_clean(), "{layout:?}");
            assert!(is_inactive(here.read_at(&mut [0], 0)));
            assert!(is_inactive(here.write_at(&[1], 0, LATER)));
            here.flush().unwrap();

            there.activate(TakeOver::No).unwrap();
            assert!(here.activate(TakeOver::No).is_err(), "two have the image");
            let found = [at, at + 1023].map(|at| read(&there, at));
            assert_eq!(found, [round; 2], "{layout:?}");
            there.write_at(&[round + 100; 512], at, LATER).unwrap();
            there.deactivate().unwrap();
            here.activate(TakeOver::No).unwrap();
            assert_eq!(read(&here, at), round + 100, "{layout:?}");
        }
        here.close().unwrap();
        assert_eq!(lab.recoveries(), 0, "a check runs after a clean hand-over: {layout:?}");
    }
}

/// What is read before is of no use after: the source changes everything meanwhile.
// spec-test: QED-HAND-03
#[test]
fn nothing_read_before_counts_after() {
    for layout in layouts() {
        let lab = Lab::new(layout);
        let (here, there) = (lab.inactive(), lab.inactive());
        here.activate(TakeOver::No).unwrap();
        here.write_at(&[1; 4096], 0, LATER).unwrap();
        there.activate(TakeOver::No).unwrap_err();
        assert_eq!(
            (there.size(), read(&there, 9)),
            (SIZE, 0),
            "a view is of what is in the tables"
        );
        here.deactivate().unwrap();
        assert_eq!(read(&there, 9), 1);
        there.activate(TakeOver::No).unwrap();
        there.deactivate().unwrap();
        here.activate(TakeOver::No).unwrap();
        here.resize(2 * SIZE, Shrink::Refuse).unwrap();
        here.write_at(&[2; 4096], SIZE, LATER).unwrap();
        here.deactivate().unwrap();
        there.activate(TakeOver::No).unwrap();
        assert_eq!((there.size(), read(&there, SIZE)), (2 * SIZE, 2), "{layout:?}");
    }
}

// spec-test: QED-HAND-01
#[test]
fn an_inactive_disk_shows_the_image_and_writes_nothing() {
    for layout in layouts() {
        let lab = Lab::new(layout);
        // Left as a crash does.
        let source = lab.inactive();
        source.activate(TakeOver::No).unwrap();
        source.write_at(&[5; 512], 0, Durability::AtReturn).unwrap();
        let left = lab.file();
        let there = lab.inactive();
        let mut sector = [0; 512];
        there.read_at(&mut sector, 0).unwrap();
        assert_eq!(sector, [5; 512], "{layout:?}");
        there.flush().unwrap();
        assert!(there.extent_at(0, SIZE).unwrap().len > 0);
        for hours in 1..=3 {
            let now = Instant::now() + Duration::from_secs(3600 * hours);
            assert_eq!(there.maintain(now).unwrap(), None);
        }
        assert_eq!(there.space_usage().unwrap(), None);
        assert!(is_inactive(there.check()));
        assert!(is_inactive(there.resize(2 * SIZE, Shrink::Allow)));
        assert!(there.compact().is_err());
        there.close().unwrap();
        assert_eq!(there.activity(), Activity::Ended);
        assert!(lab.file() == left, "an inactive disk writes: {layout:?}");
        source.close().unwrap();
    }
}

// spec-test: QED-HAND-01
#[test]
fn changes_wait_until_the_image_is_there() {
    let lab = Lab::new(Layout::Classic);
    let zeroing = Zeroing { space: Space::MayHaveHoles, speed: Speed::Any, durability: LATER };
    let there = &lab.inactive();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| there.write_at(&[7; 512], 0, Durability::AtReturn));
        let others = [
            scope.spawn(|| there.write_zeroes(65536, 512, zeroing)),
            scope.spawn(|| there.trim(131_072, 512, LATER)),
        ];
        there.flush().unwrap();
        there.activate(TakeOver::No).unwrap();
        write.join().unwrap().unwrap();
        others.into_iter().for_each(|other| other.join().unwrap().unwrap());
    });
    assert_eq!(read(there, 511), 7);
}

#[test]
fn changes_are_refused_when_the_server_ends_before_the_image_came() {
    let lab = Lab::new(Layout::Classic);
    let there = &lab.inactive();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| there.write_at(&[7; 512], 0, LATER));
        there.close().unwrap();
        assert!(is_inactive(write.join().unwrap()));
    });
}

/// A compaction that is under way keeps the image open no longer than its disk.
#[test]
fn a_compaction_ends_with_the_hand_over() {
    let lab = Lab::new(layouts()[1]);
    let (here, there) = (lab.inactive(), lab.inactive());
    here.activate(TakeOver::No).unwrap();
    let mut compaction = here.compact().unwrap().unwrap();
    here.deactivate().unwrap();
    there.activate(TakeOver::No).unwrap();
    assert!(is_inactive(compaction.step()));
}

/// The source dies at each of its requests to the file in `deactivate`: nothing after it arrives.
// spec-test: QED-HAND-04
#[test]
fn a_source_that_dies_in_any_step_of_deactivate_loses_nothing_that_was_flushed() {
    for layout in layouts() {
        let mut number = 0;
        loop {
            let lab = Lab::new(layout);
            // Weak, so that the file is closed where the disk lets it go.
            let faulty = Arc::new(Mutex::new(Weak::<Faulty>::new()));
            let kept = Arc::clone(&faulty);
            let source = lab.inactive_over(Arc::new(move |file| {
                let faulty = Arc::new(Faulty::new(file));
                *kept.lock().unwrap() = Arc::downgrade(&faulty);
                faulty
            }));
            source.activate(TakeOver::No).unwrap();
            for cluster in 0..5_u8 {
                source.write_at(&[cluster + 1; 600], u64::from(cluster) * 300_000, LATER).unwrap();
            }
            source.flush().unwrap();
            source.write_at(&[9; 600], SIZE / 2, LATER).unwrap();
            let changes = |request: &Request| {
                !matches!(request.kind, RequestKind::Len | RequestKind::Read | RequestKind::Run)
            };
            let (seen, dies_at) = (Arc::new(AtomicUsize::new(0)), number);
            let counted = Arc::clone(&seen);
            let dies = move |request: &Request| {
                changes(request) && counted.fetch_add(1, Ordering::Relaxed) >= dies_at
            };
            let file = faulty.lock().unwrap().upgrade().unwrap();
            file.fail_when(dies, Fault::Io, Repeat::Always);
            drop(file);
            let ended = source.deactivate();
            let has_died = seen.load(Ordering::Relaxed) > dies_at;
            if has_died {
                let at_once = lab.inactive();
                // It failed before it let go, or it has let go.
                let kept = source.activity() == Activity::Active;
                assert_eq!(at_once.activate(TakeOver::No).is_err(), kept, "{layout:?} {number}");
                assert_eq!(is_inactive(source.flush()), !kept, "{layout:?} {number}");
                at_once.close().unwrap();
                source.close().unwrap_err();
            }
            drop(source);
            let there = lab.inactive();
            there.activate(TakeOver::No).unwrap();
            for cluster in 0..5_u8 {
                let found = read(&there, u64::from(cluster) * 300_000 + 599);
                assert_eq!(found, cluster + 1, "{layout:?} {number}");
            }
            there.close().unwrap();
            assert!(lab.is_clean(), "{layout:?} {number}");
            if !has_died {
                ended.unwrap();
                break;
            }
            ended.unwrap_err();
            number += 1;
        }
        assert!(number > 2, "{layout:?}: {number} steps");
    }
}
