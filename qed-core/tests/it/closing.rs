//! Closing where one table is out of reach: the others get all that was written, and the error is
//! reported after that.

use std::sync::Arc;

use qed_core::{
    GivenBacking, Image, ImageError, IoAction, Layout, LockPolicy, Prepared, ReadContext,
    ReadOnlyImage, ResizeError, Shrink,
};
use qed_io::{Fault, Faulty, MemoryStorage, Repeat, Request, RequestKind};
use qed_spec::{Geometry, GuestOffset};

use crate::support::{Bytes, COMPAT, JOURNAL, new_storage_of, open};

const CLUSTER: u64 = 4096;
/// Bytes that a table maps, which is one slice.
const TABLE: u64 = 512 * CLUSTER;
/// Tables that share a shard of the cache with the first one: more than it holds.
const SHARING: u64 = 20;
const DISK: u64 = 16 * SHARING * TABLE;
const NOTHING: GivenBacking = GivenBacking(None);

fn at(cluster: u64) -> GuestOffset {
    GuestOffset::new(cluster * CLUSTER)
}

/// Where the L2 table of an L1 slot lies in the file.
fn table(image: &Image, slot: u64) -> u64 {
    let mut offset = [0; 8];
    let l1 = image.header().fields().l1_table_offset.get();
    image.storage().read_at(&mut offset, l1 + slot * 8).unwrap();
    u64::from_le_bytes(offset)
}

/// Allocates clusters with all requests in flight at once.
fn write_at_once(image: &Image, clusters: &[u64]) {
    let requests: Vec<_> = clusters.iter().map(|_| image.request()).collect();
    let allocations = requests.iter().zip(clusters).map(|(request, cluster)| {
        match request.prepare(at(*cluster), CLUSTER).unwrap() {
            Prepared::Allocating(allocation) => allocation,
            Prepared::InPlace { .. } => panic!("{cluster} is there"),
        }
    });
    for allocation in allocations.collect::<Vec<_>>() {
        image.storage().write_at(&[1; CLUSTER as usize], allocation.host().get()).unwrap();
        allocation.commit().unwrap();
    }
}

/// An image whose first table is not in the cache, cannot be read, and has space kept for it; and a
/// write in another table that no flush covered.
fn with_an_unreadable_table(layout: Layout) -> (Arc<MemoryStorage>, Arc<Faulty>, Image) {
    let geometry = Geometry::new(4096, 1).unwrap();
    let storage = new_storage_of(layout, geometry, DISK, false);
    let faulty = Arc::new(Faulty::new(storage.clone()));
    let image = open(faulty.clone(), &NOTHING);
    for slot in 0..SHARING {
        image.write_at(&[1; 512], GuestOffset::new((slot * 16 + 1) * TABLE - 512)).unwrap();
        image.flush().unwrap();
    }
    write_at_once(&image, &[0, 1, 2, 3, 4, 5, 20]);
    // Everything goes home, and the first slice is evicted for others.
    image.set_backing(None).unwrap();
    image.flush().unwrap();
    let first = table(&image, 0)..table(&image, 0) + CLUSTER;
    for slot in (1..SHARING).chain(1..SHARING) {
        image.map(GuestOffset::new(slot * 16 * TABLE), 1).unwrap();
    }
    let reads_it = move |request: &Request| request.touches(RequestKind::Read, &first);
    faulty.fail_when(reads_it, Fault::Io, Repeat::Always);
    image.map(at(0), 1).expect_err("the table is out of reach");
    image.write_at(&[2; 512], GuestOffset::new(16 * TABLE)).unwrap();
    (storage, faulty, image)
}

#[track_caller]
fn assert_unreadable(result: Result<(), ImageError>, layout: Layout) {
    let is_it = matches!(result, Err(ImageError::Io { action: IoAction::ReadTable, .. }));
    assert!(is_it, "{layout:?}: {result:?}");
}

#[track_caller]
fn assert_holds(storage: Arc<MemoryStorage>, gate: &GivenBacking, at: u64, layout: Layout) {
    let read = ReadContext::new(gate, LockPolicy::None);
    let image = ReadOnlyImage::open(storage, &read).unwrap();
    let mut data = [0; 512];
    image.read_at(&mut data, GuestOffset::new(at)).unwrap();
    assert_eq!(data, [2; 512], "{layout:?}");
}

// spec-test: QED-RW-07
#[test]
fn space_that_cannot_be_placed_costs_no_other_table_its_writes() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (storage, _, image) = with_an_unreadable_table(layout);
        assert_unreadable(image.close(), layout);
        assert_holds(storage, &NOTHING, 16 * TABLE, layout);
    }
}

#[test]
fn a_resize_tried_again_goes_on_without_the_space_that_cannot_be_placed() {
    for layout in [Layout::Classic, COMPAT, JOURNAL] {
        let (storage, faulty, image) = with_an_unreadable_table(layout);
        let result = image.resize(DISK - TABLE, Shrink::Allow);
        let Err(ResizeError::Image(error)) = result else { panic!("{layout:?}: {result:?}") };
        assert_unreadable(Err(error), layout);
        assert_holds(storage.clone(), &NOTHING, 16 * TABLE, layout);
        faulty.heal();
        image.resize(DISK - TABLE, Shrink::Allow).unwrap();
        image.write_at(&[2; 512], GuestOffset::new(32 * TABLE)).unwrap();
        image.close().unwrap();
        assert_holds(storage, &NOTHING, 32 * TABLE, layout);
    }
}

// spec-test: QED-RW-07
#[test]
fn a_table_that_cannot_be_written_costs_no_other_its_writes() {
    for layout in [Layout::Classic, COMPAT] {
        for is_backed in [false, true] {
            let gate = GivenBacking(is_backed.then(|| Arc::new(Bytes(vec![9; 4096])) as _));
            let geometry = Geometry::new(4096, 1).unwrap();
            let storage = new_storage_of(layout, geometry, DISK, is_backed);
            let faulty = Arc::new(Faulty::new(storage.clone()));
            let image = open(faulty.clone(), &gate);
            image.write_at(&[1; 512], at(0)).unwrap();
            image.flush().unwrap();
            let first = table(&image, 0)..table(&image, 0) + CLUSTER;
            let writes_it = move |request: &Request| request.touches(RequestKind::Write, &first);
            faulty.fail_when(writes_it, Fault::Io, Repeat::Always);
            image.write_at(&[2; 512], at(1)).unwrap();
            image.write_at(&[2; 512], GuestOffset::new(TABLE)).unwrap();
            image.close().unwrap_err();
            assert_holds(storage, &gate, TABLE, layout);
        }
    }
}
