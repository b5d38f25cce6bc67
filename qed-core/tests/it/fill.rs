//! What a write leaves of new clusters over a backing file: as little I/O as its bytes need.

use std::sync::Arc;

use qed_core::{
    GivenBacking, Image, LockPolicy, Prepared, ReadContext, ReadOnlyImage, RefuseBacking,
    VirtualDisk,
};
use qed_io::{Operation, Recorder};
use qed_spec::GuestOffset;

use crate::support::{Bytes, new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;
const DISK: u64 = 1 << 20;
/// Where each case writes 512 bytes.
const AT: u64 = CLUSTER + 512;

/// A backing image with data in cluster 3 and nothing elsewhere.
fn base() -> Arc<dyn VirtualDisk> {
    let storage = new_storage(small_geometry(), DISK, false);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[7; 4096], GuestOffset::new(3 * CLUSTER)).unwrap();
    image.close().unwrap();
    let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
    Arc::new(ReadOnlyImage::open(storage, &context).unwrap())
}

/// Bytes written while `act` runs on a new image over `backing`, and the cluster that holds [`AT`].
fn written(backing: Arc<dyn VirtualDisk>, act: impl Fn(&Image)) -> (usize, Vec<u8>) {
    let gate = GivenBacking(Some(backing));
    let recorder = Arc::new(Recorder::new(new_storage(small_geometry(), DISK, true)));
    let image = open(recorder.clone(), &gate);
    act(&image);
    let of = |operation: &Operation| match operation {
        Operation::Write { bytes, .. } => bytes.len(),
        Operation::WriteZeroes(range) => usize::try_from(range.end - range.start).unwrap(),
        _ => 0,
    };
    let count = recorder.records().iter().map(|record| of(&record.operation)).sum();
    let mut cluster = vec![0xdd; CLUSTER as usize];
    image.read_at(&mut cluster, GuestOffset::new(CLUSTER)).unwrap();
    (count, cluster)
}

fn write(image: &Image) {
    image.write_at(&[3; 512], GuestOffset::new(AT)).unwrap();
}

fn write_in_steps(image: &Image) {
    let request = image.request();
    let Prepared::Allocating(allocation) = request.prepare(GuestOffset::new(AT), 512).unwrap()
    else {
        panic!("the cluster is unallocated");
    };
    image.storage().write_at(&[3; 512], allocation.host().get()).unwrap();
    allocation.commit().unwrap();
}

/// Leaves bytes in the space that the write gets.
fn write_into_used_space(image: &Image) {
    {
        let request = image.request();
        let prepared = request.prepare(GuestOffset::new(AT), 512).unwrap();
        let Prepared::Allocating(allocation) = prepared else { panic!("it is unallocated") };
        image.storage().write_at(&[0xbb; 4096], allocation.host().get() - 512).unwrap();
    }
    write(image);
}

// spec-test: QED-RW-05
#[test]
fn what_the_backing_file_knows_to_be_zeros_is_not_written_to_fresh_space() {
    let data: Arc<dyn VirtualDisk> = Arc::new(Bytes(vec![7; DISK as usize]));
    let ends_inside: Arc<dyn VirtualDisk> = Arc::new(Bytes(vec![7; CLUSTER as usize + 256]));
    let cases: [(_, fn(&Image), _, _, _); 7] = [
        (base(), write, 512, 0, 0),
        (base(), write_in_steps, 512, 0, 0),
        // The abandoned write, and all of the cluster.
        (base(), write_into_used_space, 2 * 4096, 0, 0),
        (Arc::clone(&data), write, 4096, 7, 7),
        (Arc::clone(&data), write_in_steps, 4096, 7, 7),
        (data, write_into_used_space, 2 * 4096, 7, 7),
        (ends_inside, write, 1024, 7, 0),
    ];
    for (i, (backing, act, bytes, first, last)) in cases.into_iter().enumerate() {
        let (count, cluster) = written(backing, act);
        assert_eq!(count, bytes, "case {i}");
        assert!(cluster[..256] == [first; 256] && cluster[1024..] == [last; 3072], "case {i}");
        assert!(cluster[512..1024] == [3; 512], "case {i}");
    }
}
