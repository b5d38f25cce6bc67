//! An L1 table that lies last comes down: the file gets shorter, the disk stays, whatever request fails.

use std::sync::Arc;

use qed_core::{
    AmendError, CompactOptions, CompactStep, Image, Layout, LockPolicy, ReadContext, ReadOnlyImage,
    RecoveryPolicy, RefuseBacking, VirtualDisk, lower_l1,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, Storage};
use qed_spec::{Geometry, GuestOffset};

use crate::amend::faults::recover;
use crate::amend::scene::{COMPAT, amend_to, header, journal, leaks, uses_of};
use crate::support::{new_storage_of, open};

const CLUSTER: u64 = 4096;
const DISK: u64 = 8 << 20;

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * CLUSTER)
}

/// An image whose L1 table was moved behind 24 clusters of data, of which the last four are left.
fn pinned(layout: Layout) -> Arc<MemoryStorage> {
    let geometry = Geometry::new(4096, 2).unwrap();
    let storage = new_storage_of(Layout::Classic, geometry, DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    for cluster in 0..24 {
        image.write_at(&[cluster as u8 + 1; CLUSTER as usize], at(cluster)).unwrap();
    }
    image.close().unwrap();
    amend_to(&storage, layout).unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    image.discard(at(0), 20 * CLUSTER).unwrap();
    compact(&image);
    image.close().unwrap();
    storage
}

/// The end of the image after it.
fn compact(image: &Image) -> u64 {
    let mut compaction = image.compact(CompactOptions::default());
    loop {
        if let CompactStep::Done(done) = compaction.step().unwrap() {
            return done.end_after;
        }
    }
}

fn assert_reads(disk: &dyn VirtualDisk, case: &str) {
    for cluster in 0..24 {
        let mut bytes = [0xee; CLUSTER as usize];
        disk.read_at(&mut bytes, cluster * CLUSTER).unwrap();
        let expected = if cluster < 20 { 0 } else { cluster as u8 + 1 };
        assert_eq!(bytes, [expected; CLUSTER as usize], "{case}: cluster {cluster}");
    }
}

fn lower(storage: Arc<dyn Storage>) -> Result<bool, AmendError> {
    lower_l1(&storage, LockPolicy::Take, RecoveryPolicy::Run(&recover))
}

// spec-test: QED-HDR-09
#[test]
fn the_file_ends_behind_what_it_stores_once_the_l1_table_is_down() {
    for layout in [COMPAT, journal(32 << 10)] {
        let storage = pinned(layout);
        let (long, last) =
            (storage.len().unwrap(), header(&storage).fields().l1_table_offset.get());
        assert_eq!(last + 2 * CLUSTER, long, "{layout:?}: the L1 table lies last");
        assert!(lower(storage.clone()).unwrap());
        assert!(header(&storage).fields().l1_table_offset.get() < last);
        let image = open(storage.clone(), &RefuseBacking);
        assert_reads(&image, "moved");
        let end = compact(&image);
        assert_reads(&image, "compact");
        image.write_at(&[99; CLUSTER as usize], at(500)).unwrap();
        image.discard(at(500), CLUSTER).unwrap();
        compact(&image);
        image.close().unwrap();
        assert_eq!(storage.len().unwrap(), end, "{layout:?}");
        assert!(end < long, "{layout:?}: {end} of {long}");
        assert_eq!(uses_of(&storage).data.len(), 4);
        assert_eq!(leaks(&storage), 0, "{layout:?}");
        assert!(!lower(storage.clone()).unwrap(), "{layout:?}: nothing is free below");
    }
}

#[test]
fn every_failed_request_leaves_one_of_the_two_tables() {
    for layout in [COMPAT, journal(32 << 10)] {
        let original = pinned(layout).to_vec();
        for (fault, repeat) in [
            (Fault::Io, Repeat::Once),
            (Fault::Io, Repeat::Always),
            (Fault::Partial { bytes: 512 }, Repeat::Once),
            (Fault::Partial { bytes: 8 }, Repeat::Always),
        ] {
            for number in 0.. {
                let storage = Arc::new(MemoryStorage::new(original.clone()));
                let faulty = Arc::new(Faulty::new(storage.clone()));
                faulty.fail_nth(number, fault, repeat);
                let case = format!("{layout:?}: request {number}, {fault:?} {repeat:?}");
                let outcome = lower(faulty.clone());
                if faulty.failures() == 0 {
                    assert!(outcome.unwrap() && number > 10, "{case}");
                    break;
                }
                outcome.unwrap_err();
                let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
                let image = ReadOnlyImage::open(storage.clone(), &context).unwrap();
                assert_reads(&image, &case);
                drop(image);
                lower(storage.clone()).unwrap_or_else(|error| panic!("{case}: {error}"));
                let image = open(storage.clone(), &RefuseBacking);
                assert_reads(&image, &case);
                compact(&image);
                image.close().unwrap();
                assert_eq!(uses_of(&storage).data.len(), 4, "{case}");
            }
        }
    }
}
