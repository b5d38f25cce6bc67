//! The paths that take nothing from the heap: once a slice is in the cache, mapping, reading and
//! writing in place cost no allocation, and neither does a write to new clusters that fills nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use allocation_counter::measure;
use qed_core::{
    CreateOptions, Image, LockPolicy, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_io::{FileStorage, MemoryStorage, Storage};
use qed_spec::GuestOffset;

const CLUSTER: u64 = 64 << 10;
const DISK: u64 = 64 << 20;
/// Clusters that are allocated, and read and written again.
const CLUSTERS: u64 = 100;

/// An image with its first clusters allocated, and each lookup done once by this thread.
fn image(storage: Arc<dyn Storage>) -> Image {
    create(&*storage, &CreateOptions::new(DISK)).unwrap();
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Image::open(storage, &context).unwrap();
    for cluster in 0..CLUSTERS {
        image.write_at(&[7; 4096], GuestOffset::new(cluster * CLUSTER)).unwrap();
    }
    image.read_at(&mut [0; 4096], GuestOffset::new(0)).unwrap();
    image
}

/// Allocations while `act` runs for each of some clusters.
fn allocations(clusters: std::ops::Range<u64>, act: impl Fn(GuestOffset)) -> u64 {
    let info = measure(|| clusters.for_each(|cluster| act(GuestOffset::new(cluster * CLUSTER))));
    info.count_total
}

#[test]
fn the_hot_paths_allocate_nothing() {
    let file = || FileStorage::from_fd(tempfile::tempfile().unwrap()).unwrap();
    let storages: [(&str, Arc<dyn Storage>); 2] =
        [("memory", Arc::new(MemoryStorage::default())), ("file", Arc::new(file()))];
    for (name, storage) in storages {
        let image = image(storage);
        let read = |at| image.read_at(&mut [0; 4096], at).unwrap();
        assert_eq!(allocations(0..CLUSTERS, read), 0, "mapped reads, {name}");
        let write = |at| image.write_at(&[8; 4096], at).unwrap();
        assert_eq!(allocations(0..CLUSTERS, write), 0, "writes in place, {name}");
        let map = |at| assert!(image.map(at, CLUSTER).unwrap().len > 0);
        assert_eq!(allocations(0..CLUSTERS, map), 0, "maps, {name}");
        // Memory that grows is allocated; a file is not.
        if name == "file" {
            let fresh = allocations(CLUSTERS..2 * CLUSTERS, write);
            assert_eq!(fresh, 0, "writes to new clusters, {name}");
        }
    }
}

#[test]
fn the_counter_counts() {
    assert!(measure(|| drop(std::hint::black_box(vec![0; 100]))).count_total > 0);
}
