//! A storage of fixed length whose unused bytes hold whatever was there, as a block device.

use qed_check::{CheckError, CheckOptions, FindingKind, RecoverError, Repair, check, repair};
use qed_io::MemoryStorage;

use crate::image::{CLUSTER, GuestCluster, TestImage, recover};

fn device(image: &TestImage) -> MemoryStorage {
    MemoryStorage::device(image.bytes.clone())
}

/// An image with two guest clusters in one host cluster and `spare` clusters of old bytes behind it.
fn cross_linked(spare: usize) -> TestImage {
    let mut image = TestImage::sample();
    // All zeros, so that a copy has to bring them over what the device held.
    image.clear(7, 1);
    image.set_l2(2, 9, 7 * CLUSTER);
    image.bytes.extend(std::iter::repeat_n(0xee, spare * 4096));
    image
}

#[test]
fn the_rest_of_a_device_is_free_space() {
    let image = cross_linked(3);
    let device = device(&image);
    let report = check(&device, &CheckOptions::default()).unwrap();
    assert_eq!((report.corruptions(), report.leaks()), (1, 0));
    assert_eq!(report.statistics.image_end.get(), 8 * CLUSTER);
}

#[test]
fn copies_go_to_free_space_and_are_written_in_full() {
    let image = cross_linked(1);
    let device = device(&image);
    let report = repair(&device, Repair::All).unwrap();
    assert!(report.is_clean());
    assert_eq!(report.repaired.counts.of(FindingKind::L2Duplicate), 1);
    let after = image.with_bytes(device.to_vec());
    assert_eq!(after.bytes.len(), image.bytes.len());
    assert_eq!(after.guest(600), image.guest(600));
    assert_eq!(after.guest(600)[9], GuestCluster::Data(vec![0; 4096]));
}

// spec-test: QED-CHK-08
#[test]
fn copies_overwrite_nothing_that_was_named() {
    let mut image = cross_linked(2);
    // Cluster 8 is led to by nothing but an entry that is going to be cleared.
    image.set_l2(3, 90, 8 * CLUSTER);
    image.bytes[8 << 12..9 << 12].fill(7);
    let storage = device(&image);
    assert_eq!(repair(&storage, Repair::All).unwrap().corruptions(), 0);
    let after = storage.to_vec();
    assert_eq!(after[8 << 12..9 << 12], [7; 4096], "overwritten");
    assert_eq!(after[9 << 12..], [0; 4096], "the copy");
}

#[test]
fn copies_wait_until_what_a_lost_table_led_to_is_given_up() {
    let mut image = TestImage::sample();
    image.set_l1(1, 1 << 40);
    image.set_l2(2, 9, 4 * CLUSTER);
    let storage = device(&image);
    assert_eq!(repair(&storage, Repair::All).unwrap().corruptions(), 1);
    assert_eq!(storage.to_vec()[6 << 12..], image.bytes[6 << 12..], "overwritten");
    assert_eq!(repair(&storage, Repair::All).unwrap().corruptions(), 0);
}

#[test]
fn a_full_device_is_left_as_good_as_it_was() {
    let image = cross_linked(0);
    let device = device(&image);
    let result = repair(&device, Repair::All);
    assert!(matches!(result, Err(CheckError::NoSpace { clusters: 1, .. })), "{result:?}");
    let after = image.with_bytes(device.to_vec());
    assert_eq!(after.guest(600), image.guest(600));
    let report = check(&device, &CheckOptions::default()).unwrap();
    assert!(report.dirty);
    assert_eq!(report.corruptions(), 1);
}

#[test]
fn a_device_that_cuts_off_a_cluster_in_use_is_not_recovered_and_not_changed() {
    let mut image = cross_linked(0);
    image.set_l2(2, 9, 0);
    image.bytes.truncate(image.bytes.len() - 512);
    image.bytes[16] |= 2;
    // A repair would clear it first of all.
    image.bytes[39] = 1;
    let device = device(&image);
    let result = recover(&device);
    assert!(matches!(result, Err(RecoverError::Corrupt(_))), "{result:?}");
    assert_eq!(device.to_vec(), image.bytes);
}
