//! Requests that overtake each other: what they write in order lies in order, nothing is lost for it,
//! and what was kept for one that never came is no leak.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qed_core::{
    BackingFormat, CreateBacking, ExtentKind, GivenBacking, Image, Layout, Prepared, Shrink,
    ZeroMode,
};
use qed_io::Storage;
use qed_spec::{Geometry, GuestOffset};

use crate::support::{Bytes, COMPAT, JOURNAL, new_storage_of, open};

const CLUSTER: u64 = 4096;
const DISK: u64 = 4096 * CLUSTER;
const NOTHING: GivenBacking = GivenBacking(None);

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * CLUSTER)
}

/// Writes clusters with their numbers, all requests being in flight at once, in this order.
fn write(image: &Image, clusters: &[u64]) {
    let requests: Vec<_> = clusters.iter().map(|_| image.request()).collect();
    let allocations = requests.iter().zip(clusters).map(|(request, cluster)| {
        let prepared = request.prepare(at(*cluster), CLUSTER).unwrap();
        let Prepared::Allocating(allocation) = prepared else { panic!("{cluster} is there") };
        (allocation, *cluster)
    });
    for (allocation, cluster) in allocations.collect::<Vec<_>>() {
        let data = [cluster as u8; CLUSTER as usize];
        image.storage().write_at(&data, allocation.host().get()).unwrap();
        allocation.commit().unwrap();
    }
}

fn host(image: &Image, cluster: u64) -> Option<u64> {
    match image.map(at(cluster), CLUSTER).unwrap().kind {
        ExtentKind::Data(host) => Some(host.get() / CLUSTER),
        _ => None,
    }
}

fn byte(image: &Image, cluster: u64) -> u8 {
    let mut data = [0xee; CLUSTER as usize];
    image.read_at(&mut data, at(cluster)).unwrap();
    assert!(data.iter().all(|byte| *byte == data[0]), "cluster {cluster}");
    data[0]
}

/// Clusters that have data in an image whose file has no more than those, the tables and what an
/// empty image has.
#[track_caller]
fn data_clusters_of(storage: &dyn Storage, image: &Image, empty: u64, tables: u64) -> u64 {
    let data = (0..DISK / CLUSTER).filter(|cluster| host(image, *cluster).is_some()).count() as u64;
    let table = image.geometry().table_size_bytes();
    assert_eq!(storage.len().unwrap(), empty + tables * table + data * CLUSTER, "leaks");
    data
}

#[test]
fn what_overtakes_lies_in_order() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let storage = new_storage_of(layout, Geometry::new(4096, 2).unwrap(), DISK, false);
        let empty = storage.len().unwrap();
        let image = open(storage.clone(), &NOTHING);
        write(&image, &[0, 1, 2, 3, 4, 5]);
        write(&image, &[7, 6, 9, 8, 13, 11, 10, 12, 14, 40, 39]);
        write(&image, &(15..39).rev().collect::<Vec<_>>());
        let first = host(&image, 0).unwrap();
        for cluster in 0..41 {
            assert_eq!(host(&image, cluster), Some(first + cluster), "cluster {cluster}");
        }
        image.close().unwrap();
        let image = open(storage.clone(), &NOTHING);
        assert_eq!(data_clusters_of(&*storage, &image, empty, 1), 41);
        (0..41).for_each(|cluster| assert_eq!(byte(&image, cluster), cluster as u8));
    }
}

#[test]
fn what_was_kept_and_did_not_come_reads_as_before_and_is_no_leak() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let storage = new_storage_of(layout, Geometry::new(4096, 2).unwrap(), DISK, false);
        let empty = storage.len().unwrap();
        let image = open(storage.clone(), &NOTHING);
        write(&image, &[0, 1, 2, 3, 4, 5]);
        image.write_zeroes(at(10), CLUSTER, ZeroMode::Explicit).unwrap();
        write(&image, &[20]);
        assert_eq!(host(&image, 10), None, "it is named by nothing");
        image.close().unwrap();
        let image = open(storage.clone(), &NOTHING);
        assert_eq!(data_clusters_of(&*storage, &image, empty, 1), 21);
        (6..20).for_each(|cluster| assert_eq!(byte(&image, cluster), 0));
        assert_eq!((byte(&image, 5), byte(&image, 20)), (5, 20));
    }
}

#[test]
fn a_disk_that_shrinks_keeps_nothing_past_its_end() {
    let storage = new_storage_of(COMPAT, Geometry::new(4096, 2).unwrap(), DISK, false);
    let empty = storage.len().unwrap();
    let image = open(storage.clone(), &NOTHING);
    write(&image, &[0, 1, 2, 3, 4, 5]);
    write(&image, &[20]);
    image.resize(8 * CLUSTER, Shrink::Allow).unwrap();
    image.resize(DISK, Shrink::Refuse).unwrap();
    image.close().unwrap();
    let image = open(storage.clone(), &NOTHING);
    assert_eq!(data_clusters_of(&*storage, &image, empty, 1), 8);
    (6..DISK / CLUSTER).for_each(|cluster| assert_eq!(byte(&image, cluster), 0));
}

#[test]
fn nothing_is_kept_over_a_backing_file_for_what_is_there_or_for_one_request_at_a_time() {
    let backing = GivenBacking(Some(Arc::new(Bytes(vec![7; DISK as usize]))));
    let storage = new_storage_of(COMPAT, Geometry::new(4096, 2).unwrap(), DISK, true);
    let image = open(storage, &backing);
    write(&image, &[0, 1, 2, 3, 4, 5, 9]);
    let first = host(&image, 0).unwrap();
    assert_eq!(host(&image, 9), Some(first + 6));

    let storage = new_storage_of(COMPAT, Geometry::new(4096, 2).unwrap(), DISK, false);
    let image = open(storage, &NOTHING);
    (0..6).for_each(|cluster| write(&image, &[cluster]));
    write(&image, &[9]);
    let first = host(&image, 0).unwrap();
    assert_eq!(host(&image, 9), Some(first + 6));
    // Of those between one has its place already.
    write(&image, &[10, 11, 12, 13]);
    write(&image, &[20, 21]);
    write(&image, &[14, 15, 16, 17, 18, 19, 8]);
    let used: std::collections::BTreeSet<_> = (0..22).filter_map(|it| host(&image, it)).collect();
    assert_eq!(used.len(), 20, "{used:?}");
}

#[test]
fn threads_that_go_through_a_disk_together_leave_it_in_order() {
    const THREADS: u64 = 8;
    let storage = new_storage_of(COMPAT, Geometry::new(4096, 2).unwrap(), DISK, false);
    let empty = storage.len().unwrap();
    let image = open(storage.clone(), &NOTHING);
    // As soon as there were two at a time.
    write(&image, &[0, 1]);
    let next = AtomicU64::new(2);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let cluster = next.fetch_add(1, Ordering::Relaxed);
                    if cluster >= DISK / CLUSTER {
                        break;
                    }
                    image.write_at(&[cluster as u8; CLUSTER as usize], at(cluster)).unwrap();
                }
            });
        }
    });
    let hosts: Vec<u64> = (0..DISK / CLUSTER).map(|it| host(&image, it).unwrap()).collect();
    let apart = hosts.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert!(apart * 20 < hosts.len(), "{apart} of {} do not follow the one before", hosts.len());
    image.close().unwrap();
    let image = open(storage.clone(), &NOTHING);
    assert_eq!(data_clusters_of(&*storage, &image, empty, 4), DISK / CLUSTER);
    (0..DISK / CLUSTER).for_each(|cluster| assert_eq!(byte(&image, cluster), cluster as u8));
}

// spec-test: QED-BACK-06
#[test]
fn what_was_kept_hides_no_backing_file_that_the_image_gets() {
    let sevens = GivenBacking(Some(Arc::new(Bytes(vec![7; DISK as usize]))));
    let base = CreateBacking { name: b"base".to_vec(), format: BackingFormat::Raw };
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let storage = new_storage_of(layout, Geometry::new(4096, 2).unwrap(), DISK, false);
        let image = open(storage.clone(), &NOTHING);
        write(&image, &[0, 1, 2, 3, 4, 5]);
        write(&image, &[20]);
        image.set_backing(Some(&base)).unwrap();
        // Nor is anything kept after that.
        write(&image, &[21, 22, 23, 24, 25, 26, 40]);
        image.close().unwrap();
        let image = open(storage.clone(), &sevens);
        for cluster in (6..20).chain(27..40) {
            assert_eq!(byte(&image, cluster), 7, "{layout:?}, cluster {cluster}");
        }
        for cluster in [0, 5, 20, 21, 26, 40] {
            assert_eq!(byte(&image, cluster), cluster as u8, "{layout:?}");
        }
        image.close().unwrap();
        // Opened without it, the image keeps nothing either.
        let image = open(storage.clone(), &NOTHING);
        write(&image, &[50, 51, 52, 53, 54, 55, 60]);
        image.close().unwrap();
        let image = open(storage, &sevens);
        (56..60).for_each(|cluster| assert_eq!(byte(&image, cluster), 7, "{layout:?}"));
    }
}
