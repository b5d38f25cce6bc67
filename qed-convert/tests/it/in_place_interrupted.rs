//! Raw to QED in place and back, interrupted, and what may happen to the file before the next call:
//! nothing is cut but what the conversion itself put behind the disk.

use std::cell::RefCell;
use std::sync::Arc;

use qed_convert::in_place::{
    FromRawOptions, InPlaceError, PlanFault, PlanStore, ToRawOptions, qed_to_raw, raw_to_qed,
};
use qed_core::{
    LockPolicy, ReadContext, ReadOnlyImage, RecoveryPolicy, RefuseBacking, VirtualDisk,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind, Storage};

use crate::lab::{Random, noise};

const RAW_LEN: usize = 300 << 10;
const CLUSTER_LEN: u32 = 16 << 10;
const SECTOR: usize = 512;

/// A plan in memory.
type Kept = RefCell<Option<Vec<u8>>>;

/// What the next call is to make of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Converted,
    Grown,
    Shrunk,
    OtherPlan,
}
use Outcome::{Converted, Grown, OtherPlan, Shrunk};

/// What happens between two calls, and what the next call does.
type Between = (&'static str, fn(&mut Vec<u8>), Outcome);

const BETWEEN: &[Between] = &[
    ("nothing", |_| {}, Converted),
    ("the tail is cut by hand", |file| file.truncate(RAW_LEN), Converted),
    ("a guest writes inside the disk", |file| file[1000..RAW_LEN - 99].fill(0x77), Converted),
    ("the file grows by a sector", |file| file.extend([1; SECTOR]), Grown),
    ("the file grows by zeros", |file| file.resize(file.len() + SECTOR, 0), Grown),
    ("the file grows a lot", |file| file.resize(8 << 20, 5), Grown),
    ("a guest writes behind the disk", |file| file[RAW_LEN + 5] = 1, Grown),
    ("a guest writes at the end of the file", |file| *file.last_mut().expect("bytes") = 1, Grown),
    ("the tail is cut in half", |file| file.truncate(RAW_LEN + 40 * SECTOR), Grown),
    ("one byte more than the disk", |file| file.truncate(RAW_LEN + 1), Grown),
    ("the disk is cut", |file| file.truncate(RAW_LEN - SECTOR), Shrunk),
    ("the first sector is another", |file| file[3] ^= 1, OtherPlan),
    ("it is another, shorter file", |file| *file = vec![9; 1 << 10], OtherPlan),
];

fn disk() -> Vec<u8> {
    noise(&mut Random::new(3), RAW_LEN as u64)
}

fn bytes_of(storage: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(storage.len().expect("memory")).expect("small")];
    storage.read_at(&mut bytes, 0).expect("memory");
    bytes
}

fn to_qed(storage: &dyn Storage, plan: &Kept) -> Result<(), InPlaceError> {
    let options = FromRawOptions { lock: LockPolicy::Take, cluster_len: CLUSTER_LEN };
    raw_to_qed(storage, plan, &options).map(|_| ())
}

fn to_raw(storage: Arc<dyn Storage>, plan: &Kept) -> Result<(), InPlaceError> {
    let options = ToRawOptions { lock: LockPolicy::Take, recovery: RecoveryPolicy::Refuse };
    qed_to_raw(&storage, plan, &options).map(|_| ())
}

/// A raw file, all appended and nothing committed.
fn half_a_qed(plan: &Kept) -> Vec<u8> {
    let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::new(disk()));
    let faulty = Faulty::new(inner.clone());
    faulty.fail_when(|request| request.kind == RequestKind::Flush, Fault::Io, Repeat::Once);
    let failed = to_qed(&faulty, plan).expect_err("the flush before the commit fails");
    assert!(matches!(failed, InPlaceError::Io { .. }), "{failed:?}");
    let left = bytes_of(&*inner);
    assert!(left.len() > RAW_LEN && left[..RAW_LEN] == disk());
    left
}

/// A raw file that is committed and not yet cut.
fn half_a_raw(plan: &Kept) -> Vec<u8> {
    let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::new(disk()));
    to_qed(&*inner, plan).expect("a QED image");
    let faulty = Faulty::new(inner.clone());
    faulty.fail_when(
        |request| request.kind == RequestKind::SetLen && request.range.end == RAW_LEN as u64,
        Fault::Io,
        Repeat::Once,
    );
    let failed = to_raw(Arc::new(faulty), plan).expect_err("the cut fails");
    assert!(matches!(failed, InPlaceError::Io { .. }), "{failed:?}");
    let left = bytes_of(&*inner);
    assert!(left.len() > RAW_LEN && left[..RAW_LEN] == disk());
    left
}

fn kind_of(fault: &PlanFault) -> Outcome {
    match fault {
        PlanFault::Grown { .. } => Grown,
        PlanFault::Shrunk { .. } => Shrunk,
        PlanFault::OtherPlan { .. } => OtherPlan,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_left_alone(what: &str, fault: &PlanFault, wanted: Outcome, before: &[u8], after: &[u8]) {
    assert_eq!(kind_of(fault), wanted, "{what}: {fault}");
    assert!(fault.to_string().contains("the plan"), "{what}: {fault}");
    assert!(before == after, "{what}: the file was changed");
}

fn from_raw_after(what: &str, plan: &Kept, file: Vec<u8>, wanted: Outcome) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(file.clone()));
    let kept = plan.load().expect("memory");
    match to_qed(&*storage, plan) {
        Ok(()) => {
            assert_eq!(wanted, Converted, "{what}");
            let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
            let image = ReadOnlyImage::open(storage, &context).expect(what);
            let mut found = vec![0; RAW_LEN];
            assert_eq!(VirtualDisk::len(&image), RAW_LEN as u64, "{what}");
            VirtualDisk::read_at(&image, &mut found, 0).expect(what);
            assert!(found == file[..RAW_LEN], "{what}: the disk differs");
            assert_eq!(plan.load().expect("memory"), None, "{what}");
        }
        Err(InPlaceError::Plan(fault)) => {
            assert_left_alone(what, &fault, wanted, &file, &bytes_of(&*storage));
            assert_eq!(plan.load().expect("memory"), kept, "{what}: the plan stays");
        }
        Err(other) => panic!("{what}: {other:?}"),
    }
}

#[test]
fn an_interrupted_qed_image_loses_nothing_that_is_not_its_own() {
    for &(what, happens, wanted) in BETWEEN {
        let plan = Kept::default();
        let mut file = half_a_qed(&plan);
        happens(&mut file);
        from_raw_after(what, &plan, file, wanted);
    }
}

/// The plan as earlier versions wrote it: magic, way, length, the two sectors.
fn as_before(plan: &Kept) {
    let new = plan.load().expect("memory").expect("a plan");
    let old = [b"QEDPLAN1".as_slice(), &new[8..24], &new[48..48 + 2 * SECTOR]].concat();
    plan.save(&old).expect("memory");
}

#[test]
fn a_plan_of_an_earlier_version_cuts_nothing_that_is_not_its_own() {
    for &(what, happens, wanted) in BETWEEN {
        let plan = Kept::default();
        let mut file = half_a_qed(&plan);
        as_before(&plan);
        happens(&mut file);
        // It does not know what the first cluster was, of which the tail has a copy.
        let wanted = if what == "a guest writes inside the disk" { Grown } else { wanted };
        from_raw_after(what, &plan, file, wanted);
    }
}

#[test]
fn an_interrupted_raw_file_loses_nothing_that_is_not_its_own() {
    for is_old in [false, true] {
        for &(what, happens, wanted) in BETWEEN {
            let plan = Kept::default();
            let mut file = half_a_raw(&plan);
            happens(&mut file);
            if is_old {
                as_before(&plan);
            }
            // A plan of an earlier version does not say what may be cut.
            let wanted = match wanted {
                Converted if is_old && file.len() > RAW_LEN => Grown,
                other => other,
            };
            let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(file.clone()));
            match to_raw(storage.clone(), &plan) {
                Ok(()) => {
                    assert_eq!(wanted, Converted, "{what}");
                    assert!(bytes_of(&*storage) == file[..RAW_LEN], "{what}: the disk differs");
                    assert_eq!(plan.load().expect("memory"), None, "{what}");
                }
                Err(InPlaceError::Plan(fault)) => {
                    assert_left_alone(what, &fault, wanted, &file, &bytes_of(&*storage));
                }
                Err(other) => panic!("{what}: {other:?}"),
            }
        }
    }
}
