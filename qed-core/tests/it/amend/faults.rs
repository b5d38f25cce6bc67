//! Every request of an amend failed, once and from then on: the disk stays readable as it was, and
//! another call finishes.

use std::sync::Arc;

use qed_core::{Checked, CrashLeft, Layout, LockPolicy, Recovered, RecoveryPolicy, amend};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, Storage};
use qed_spec::{Features, Geometry};

use crate::amend::scene::{COMPAT, Scene, journal};

/// As a program recovers that finds every table in order: the scenes have no other.
pub(crate) fn recover(
    storage: &dyn Storage,
    _: &CrashLeft,
) -> Result<Recovered, Box<dyn std::error::Error + Send + Sync>> {
    let mut features = [0; 8];
    storage.read_at(&mut features, 16)?;
    let features = u64::from_le_bytes(features) & !Features::NEED_CHECK.bits();
    storage.write_at(&features.to_le_bytes(), 16)?;
    storage.flush()?;
    Ok(Recovered { checked: Checked::AllTables, mended: 0 })
}

fn amend_recovered(storage: Arc<dyn Storage>, layout: Layout) -> Result<(), qed_core::AmendError> {
    amend(&storage, layout, LockPolicy::Take, RecoveryPolicy::Run(&recover))
}

/// How many requests an amend makes, each of which failed.
fn fail_each(from: Layout, to: Layout, geometry: Geometry, backing: bool) -> u64 {
    let original = Scene::new(from, geometry, backing);
    for (fault, repeat) in [
        (Fault::Io, Repeat::Once),
        (Fault::Io, Repeat::Always),
        (Fault::NoSpace, Repeat::Once),
        (Fault::Partial { bytes: 512 }, Repeat::Once),
        (Fault::Partial { bytes: 8 }, Repeat::Always),
    ] {
        for number in 0.. {
            let storage = Arc::new(MemoryStorage::new(original.storage.to_vec()));
            let faulty = Arc::new(Faulty::new(storage.clone()));
            faulty.fail_nth(number, fault, repeat);
            let case = format!("{from:?} to {to:?}: request {number}, {fault:?} {repeat:?}");
            let outcome = amend_recovered(faulty.clone(), to);
            if faulty.failures() == 0 {
                outcome.unwrap_or_else(|error| panic!("{case}: {error}"));
                if fault == Fault::Io && repeat == Repeat::Always {
                    return number;
                }
                break;
            }
            outcome.unwrap_err();
            original.assert_shown_by(storage.clone());
            amend_recovered(storage.clone(), to).unwrap_or_else(|error| panic!("{case}: {error}"));
            original.assert_shown_by(storage);
        }
    }
    unreachable!("the second kind of fault returns")
}

#[test]
fn every_failed_request_leaves_the_disk_and_another_call_finishes() {
    let (small, large) = (Geometry::new(4096, 2).unwrap(), Geometry::new(64 << 10, 2).unwrap());
    let ring = journal(32 << 10);
    for backing in [false, true] {
        for (from, to, geometry, least) in [
            (Layout::Classic, COMPAT, small, 40),
            (Layout::Classic, ring, small, 70),
            (COMPAT, ring, small, 60),
            (ring, COMPAT, small, 15),
            (ring, journal(64 << 10), small, 50),
            (COMPAT, Layout::Classic, small, 15),
            (Layout::Classic, ring, large, 20),
        ] {
            let requests = fail_each(from, to, geometry, backing);
            assert!(requests >= least, "{from:?} to {to:?}: {requests} requests");
        }
    }
}
