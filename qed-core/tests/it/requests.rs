//! Plan, perform, commit: the caller does the I/O, abandons it, or maps.

use std::sync::Arc;
use std::thread;

use qed_core::{
    ExtentKind, GivenBacking, GuestExtentKind, ImageError, Prepared, RefuseBacking, Request,
    Shrink, VirtualDisk, ZeroMode, read_backing,
};
use qed_io::{Operation, Record, Recorder, Storage};
use qed_spec::GuestOffset;

use crate::support::{Bytes, new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 1 << 20;

#[test]
fn an_abandoned_allocation_is_invisible_and_its_space_is_used_again() {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    let at = GuestOffset::new(CLUSTER + 512);
    for _ in 0..100 {
        let request = image.request();
        let Prepared::Allocating(allocation) = request.prepare(at, 512).unwrap() else {
            panic!("the cluster is unallocated");
        };
        storage.write_at(&[0xbb; 4096], allocation.host().get() - 512).unwrap();
    }
    let mut sector = [1; 512];
    image.read_at(&mut sector, at).unwrap();
    assert_eq!(sector, [0; 512]);
    // The space holds bytes of the abandoned write: what is left of the cluster must be zeroed.
    image.write_at(&[3; 512], at).unwrap();
    let mut cluster = [1; CLUSTER as usize];
    image.read_at(&mut cluster, GuestOffset::new(CLUSTER)).unwrap();
    assert!(cluster[512..1024] == [3; 512]);
    assert!(cluster[..512] == [0; 512] && cluster[1024..] == [0; 3072]);
    image.close().unwrap();
    assert_eq!(storage.len().unwrap(), 6 * CLUSTER, "one data cluster");
}

#[test]
fn a_request_that_shares_the_image_keeps_it_open() {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = Arc::new(open(storage.clone(), &RefuseBacking));
    let at = GuestOffset::new(CLUSTER);
    let request = Request::new(Arc::clone(&image));
    let Prepared::Allocating(allocation) = request.prepare(at, CLUSTER).unwrap() else {
        panic!("the cluster is unallocated");
    };
    drop((image, request));
    storage.write_at(&[3; CLUSTER as usize], allocation.host().get()).unwrap();
    // The last that holds the image closes it.
    allocation.commit().unwrap();
    let image = open(storage, &RefuseBacking);
    let mut cluster = [0; CLUSTER as usize];
    image.read_at(&mut cluster, at).unwrap();
    assert_eq!(cluster, [3; CLUSTER as usize]);
}

// spec-test: QED-RW-05
#[test]
fn a_commit_leaves_nothing_of_the_clusters_to_what_was_there_before() {
    let base = GivenBacking(Some(Arc::new(Bytes(vec![7; DISK as usize]))));
    for (gate, around) in [(GivenBacking(None), 0), (base, 7)] {
        let storage = new_storage(small_geometry(), DISK, gate.0.is_some());
        let image = open(storage.clone(), &gate);
        let at = GuestOffset::new(CLUSTER + 512);
        for commits in [false, true] {
            let request = image.request();
            let Prepared::Allocating(allocation) = request.prepare(at, 512).unwrap() else {
                panic!("the cluster is unallocated");
            };
            let cluster = allocation.host().get() - 512;
            if commits {
                storage.write_at(&[3; 512], cluster + 512).unwrap();
                allocation.commit().unwrap();
            } else {
                storage.write_at(&[0xbb; 4096], cluster).unwrap();
            }
        }
        let mut cluster = [0xee; CLUSTER as usize];
        image.read_at(&mut cluster, GuestOffset::new(CLUSTER)).unwrap();
        let expected: Vec<u8> = (0..4096).map(|i| if i / 512 == 1 { 3 } else { around }).collect();
        assert!(cluster[..] == expected);
    }
}

#[test]
fn allocations_of_one_thread_do_not_wait_for_each_other() {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    let at = |cluster| GuestOffset::new(cluster * CLUSTER);
    let allocate = |cluster, len| match image.request().try_prepare(at(cluster), len).unwrap() {
        Some(Prepared::Allocating(allocation)) => Some(allocation),
        None => None,
        Some(Prepared::InPlace { .. }) => panic!("the cluster is unallocated"),
    };
    let first = allocate(1, 512).unwrap();
    let second = allocate(2, CLUSTER).unwrap();
    assert!(allocate(1, 512).is_none() && allocate(0, 2 * CLUSTER).is_none());
    storage.write_at(&[1; 512], first.host().get()).unwrap();
    // An allocation is part of a request that may have ended as a value.
    first.commit().unwrap();
    let in_place = image.request().try_prepare(at(1), 512).unwrap().unwrap();
    assert!(matches!(in_place, Prepared::InPlace { .. }));
    drop(second);
    assert!(allocate(2, 512).is_some());
    let mut bytes = [0; 1024];
    image.read_at(&mut bytes, at(1)).unwrap();
    assert!(bytes[..512] == [1; 512] && bytes[512..] == [0; 512]);
}

#[test]
fn a_resize_waits_for_an_allocation_and_requests_that_ask_wait_for_neither() {
    let image = open(new_storage(small_geometry(), DISK, false), &RefuseBacking);
    let Prepared::Allocating(allocation) =
        image.request().prepare(GuestOffset::new(DISK - CLUSTER), 512).unwrap()
    else {
        panic!("the cluster is unallocated")
    };
    thread::scope(|scope| {
        let resize = scope.spawn(|| image.resize(DISK / 2, Shrink::Allow).unwrap());
        while image.try_request().is_some() {
            thread::yield_now();
        }
        assert!(!resize.is_finished() && image.image_size() == DISK);
        allocation.commit().unwrap();
        resize.join().unwrap();
    });
    assert_eq!(image.image_size(), DISK / 2);
    assert!(image.try_request().is_some());
}

#[test]
fn what_an_allocation_leaves_of_its_clusters_can_be_the_callers_to_write() {
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![7; DISK as usize]))));
    let storage = new_storage(small_geometry(), DISK, true);
    let image = open(storage.clone(), &gate);
    let at = GuestOffset::new(CLUSTER + 512);
    let Prepared::Allocating(mut allocation) = image.request().prepare(at, 4096).unwrap() else {
        panic!("the clusters are unallocated");
    };
    let ranges = allocation.surroundings().unwrap();
    let [before, behind] = [CLUSTER..CLUSTER + 512, CLUSTER + 4608..3 * CLUSTER];
    assert_eq!(ranges, [before, behind]);
    let mut copied = [0; 512];
    read_backing(image.backing().map(|backing| &**backing), &mut copied, CLUSTER).unwrap();
    assert_eq!(copied, [7; 512]);
    let host = allocation.host().get();
    storage.write_at(&[9; 512], host - 512).unwrap();
    storage.write_at(&[3; 4096], host).unwrap();
    storage.write_at(&[9; 3584], host + 4096).unwrap();
    allocation.commit().unwrap();
    let mut bytes = [0; 2 * CLUSTER as usize];
    image.read_at(&mut bytes, GuestOffset::new(CLUSTER)).unwrap();
    // Other bytes than were given show that nothing else wrote them.
    assert!(
        bytes[..512] == [9; 512] && bytes[512..4608] == [3; 4096] && bytes[4608..] == [9; 3584]
    );
}

#[test]
fn extents_name_the_layer_that_decides() {
    let storage = new_storage(small_geometry(), DISK, true);
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![7; 8 * CLUSTER as usize]))));
    let image = open(storage, &gate);
    image.write_at(&[1; 2 * CLUSTER as usize], GuestOffset::new(CLUSTER)).unwrap();
    image.write_zeroes(GuestOffset::new(4 * CLUSTER), CLUSTER, ZeroMode::IfNeeded).unwrap();
    let data = match image.map(GuestOffset::new(CLUSTER + 5), DISK / 2).unwrap() {
        extent if extent.len == 2 * CLUSTER - 5 => extent.kind,
        extent => panic!("{extent:?}"),
    };
    let ExtentKind::Data(host) = data else { panic!("{data:?}") };
    let at = |offset, len, depth, kind| {
        let extent = image.extent_at(offset, len).unwrap();
        assert_eq!((extent.depth, extent.kind), (depth, kind), "{offset:#x}");
        extent.len
    };
    let below = GuestExtentKind::Data { host_offset: 0 };
    assert_eq!(at(0, DISK, 1, below), CLUSTER);
    let here = GuestExtentKind::Data { host_offset: host.get() - 5 };
    assert_eq!(at(CLUSTER, DISK, 0, here), 2 * CLUSTER);
    assert_eq!(at(4 * CLUSTER, DISK, 0, GuestExtentKind::Zero), CLUSTER);
    assert_eq!(at(100 * CLUSTER, CLUSTER, 0, GuestExtentKind::Unallocated), CLUSTER);
}

#[test]
fn requests_past_the_end_change_nothing() {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    let before = storage.to_vec();
    for (at, len) in [(DISK, 1), (DISK - 511, 512), (u64::MAX, 2), (0, DISK + 1)] {
        let at = GuestOffset::new(at);
        let buf = vec![1; len as usize];
        for error in [
            image.write_at(&buf, at).unwrap_err(),
            image.write_zeroes(at, len, ZeroMode::IfNeeded).unwrap_err(),
            image.map(at, len).unwrap_err(),
            image.request().prepare(at, len).map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, ImageError::OutOfRange { .. }), "{error}");
        }
    }
    assert!(storage.to_vec() == before);
}

#[test]
fn zeros_over_any_backing_hide_what_may_come_and_keep_the_clusters_there_are() {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[1; 2 * CLUSTER as usize], GuestOffset::new(CLUSTER)).unwrap();
    image.write_zeroes(GuestOffset::new(4 * CLUSTER), CLUSTER, ZeroMode::Explicit).unwrap();
    image.write_zeroes(GuestOffset::new(512), 8 * CLUSTER, ZeroMode::Explicit).unwrap();
    let kind_at = |cluster| image.map(GuestOffset::new(cluster * CLUSTER), 1).unwrap().kind;
    for cluster in 0..9 {
        // The clusters at both ends are hidden in part, which takes one of data.
        let is_data = matches!(kind_at(cluster), ExtentKind::Data(_));
        assert_eq!(is_data, [0, 1, 2, 8].contains(&cluster), "guest cluster {cluster}");
        assert!(is_data || kind_at(cluster) == ExtentKind::Zero, "guest cluster {cluster}");
    }
    assert_eq!(kind_at(9), ExtentKind::Unallocated);
    let mut disk = vec![0xee; 9 * CLUSTER as usize];
    image.read_at(&mut disk, GuestOffset::new(0)).unwrap();
    assert!(disk.iter().all(|byte| *byte == 0));
    image.close().unwrap();
    assert_eq!(storage.len().unwrap(), 9 * CLUSTER, "four clusters of data");
}

#[test]
fn a_request_maps_what_it_may_write_and_says_where_it_goes() {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    let at = GuestOffset::new(CLUSTER + 512);
    let request = image.request();
    assert_eq!(request.map(at, 0).unwrap().len, 0);
    assert_eq!(request.map(at, DISK / 2).unwrap().kind, ExtentKind::Unallocated);
    let outside = request.map(at, DISK).unwrap_err();
    assert!(matches!(outside, ImageError::OutOfRange { .. }), "{outside}");
    let Prepared::Allocating(allocation) = request.prepare(at, CLUSTER).unwrap() else {
        panic!("the clusters are unallocated");
    };
    assert_eq!(allocation.guest(), CLUSTER + 512..2 * CLUSTER + 512);
    assert_eq!((allocation.len(), allocation.is_empty()), (CLUSTER, false));
    let host = allocation.host();
    storage.write_at(&[5; 4096], host.get()).unwrap();
    allocation.commit().unwrap();
    let extent = request.map(at, CLUSTER).unwrap();
    assert_eq!((extent.kind, extent.len), (ExtentKind::Data(host), CLUSTER));
    let Prepared::InPlace { host: again, len } = request.prepare(at, CLUSTER).unwrap() else {
        panic!("the clusters are there");
    };
    assert_eq!((again, len), (host, CLUSTER));
}

// spec-test: QED-RW-05
#[test]
fn a_partial_write_over_a_zero_cluster_is_filled_with_zeros() {
    let storage = new_storage(small_geometry(), DISK, true);
    let gate = GivenBacking(Some(Arc::new(Bytes(vec![7; DISK as usize]))));
    let image = open(storage, &gate);
    image.write_zeroes(GuestOffset::new(0), CLUSTER, ZeroMode::IfNeeded).unwrap();
    image.write_at(&[1; 512], GuestOffset::new(1024)).unwrap();
    let mut cluster = [9; 4096];
    image.read_at(&mut cluster, GuestOffset::new(0)).unwrap();
    assert!(cluster[..1024] == [0; 1024] && cluster[1536..] == [0; 2560]);
}

#[test]
fn allocations_that_dirty_half_the_cache_are_written_home_by_the_next_one() {
    let size = 512 << 20;
    let recorder = Arc::new(Recorder::new(new_storage(small_geometry(), size, false)));
    let image = open(recorder.clone(), &RefuseBacking);
    let flushes = || {
        let is_flush = |record: &Record| record.operation == Operation::Flush;
        recorder.records().iter().filter(|record| is_flush(record)).count()
    };
    // The smallest cache has 128 slices; each maps 512 clusters.
    for slice in 0..64 {
        let request = image.request();
        let at = GuestOffset::new(slice * 512 * CLUSTER);
        let Prepared::Allocating(allocation) = request.prepare(at, 512).unwrap() else {
            panic!("the cluster is unallocated");
        };
        allocation.commit().unwrap();
        assert_eq!(flushes(), 0, "slice {slice}");
    }
    drop(image.request().prepare(GuestOffset::new(size - CLUSTER), 512).unwrap());
    assert_eq!(flushes(), 2, "the mark, then the tables");
}

#[test]
fn one_extent_covers_all_tables_that_do_not_exist() {
    let coverage = 1024 * CLUSTER;
    let storage = new_storage(small_geometry(), 100 * coverage + 512, false);
    let image = open(storage, &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(50 * coverage)).unwrap();
    let extent_len = |at, max_len| {
        let extent = image.extent_at(at, max_len).unwrap();
        (extent.kind == GuestExtentKind::Unallocated).then_some(extent.len)
    };
    assert_eq!(extent_len(0, u64::MAX), Some(50 * coverage));
    assert_eq!(extent_len(CLUSTER, 30 * coverage), Some(30 * coverage));
    assert_eq!(extent_len(49 * coverage + 512, u64::MAX), Some(coverage - 512));
    assert_eq!(extent_len(50 * coverage, u64::MAX), None);
    assert_eq!(extent_len(51 * coverage, u64::MAX), Some(49 * coverage + 512));
    assert_eq!(extent_len(100 * coverage, u64::MAX), Some(512));
}
