//! What a resize leaves in the file, and on which files it works.

use std::ops::Range;
use std::sync::Arc;

use qed_core::{
    BackingError, CreateOptions, ExtentKind, GivenBacking, GuestExtent, GuestExtentKind, Image,
    Layout, RefuseBacking, Shrink, VirtualDisk, ZeroMode, create,
};
use qed_io::{Existing, FileStorage, ImageLock, MemoryStorage, NewFileOptions, Storage};
use qed_spec::{Geometry, GuestOffset};

use crate::support::{new_storage, open, small_geometry};

const CLUSTER: u64 = 4096;

/// Whether the guest reads zeros in this range.
fn reads_zeros(image: &Image, range: Range<u64>) -> bool {
    let mut buf = vec![0xee; (range.end - range.start) as usize];
    image.read_at(&mut buf, GuestOffset::new(range.start)).unwrap();
    buf.iter().all(|byte| *byte == 0)
}

#[test]
fn a_smaller_disk_is_refused_unless_it_is_allowed() {
    let storage = new_storage(small_geometry(), 4 * CLUSTER, false);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[7; 4 * 4096], GuestOffset::new(0)).unwrap();
    image.flush().unwrap();
    let before = storage.to_vec();
    let error = image.resize(4 * CLUSTER - 512, Shrink::Refuse).unwrap_err();
    let text = "shrinking from 16384 to 15872 bytes would delete data past the new end";
    assert_eq!(error.to_string(), text);
    assert!(storage.to_vec() == before && image.image_size() == 4 * CLUSTER);
    image.resize(4 * CLUSTER, Shrink::Refuse).unwrap();
}

#[test]
fn what_a_foreign_writer_left_past_the_end_does_not_show_up_in_a_larger_disk() {
    // What one table of this shape maps.
    const TABLE: u64 = 4 << 20;
    let storage = new_storage(small_geometry(), 2 * TABLE, false);
    let image = open(storage.clone(), &RefuseBacking);
    for at in [0, TABLE - CLUSTER, TABLE, 2 * TABLE - CLUSTER] {
        image.write_at(&[7; 4096], GuestOffset::new(at)).unwrap();
    }
    image.close().unwrap();
    // The disk ends in the middle of the first table, and its tables say nothing of that.
    storage.write_at(&(TABLE / 2).to_le_bytes(), 48).unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    image.resize(2 * TABLE, Shrink::Refuse).unwrap();
    for again in [false, true] {
        assert!(!reads_zeros(&image, 0..CLUSTER));
        assert!(reads_zeros(&image, CLUSTER..2 * TABLE), "opened again: {again}");
        image.flush().unwrap();
    }
    image.close().unwrap();
    let image = open(storage, &RefuseBacking);
    assert!(reads_zeros(&image, CLUSTER..2 * TABLE));
}

/// Whether all of a range is of one kind.
fn is_all(image: &Image, range: Range<u64>, kind: GuestExtentKind) -> bool {
    let mut at = range.start;
    while at < range.end {
        let extent = image.extent_at(at, range.end - at).unwrap();
        if extent.kind != kind {
            return false;
        }
        at += extent.len;
    }
    true
}

/// A backing file of this length, all of it sevens.
#[derive(Debug)]
struct Sevens(u64);

impl VirtualDisk for Sevens {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<(), BackingError> {
        buf.fill(7);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let kind = GuestExtentKind::Data { host_offset: offset };
        Ok(GuestExtent { len: max_len.min(self.0 - offset), depth: 0, kind })
    }
}

#[test]
fn a_resize_hides_and_deletes_more_than_the_cache_holds() {
    // The smallest cache has 128 slices of 512 entries, and a table of this shape 256.
    let geometry = Geometry::new(65536, 16).unwrap();
    let size = 8 << 30;
    let gate = GivenBacking(Some(Arc::new(Sevens(size))));
    let storage = new_storage(geometry, 65536, true);
    let image = open(storage.clone(), &gate);
    image.resize(size, Shrink::Refuse).unwrap();
    assert!(is_all(&image, 65536..size, GuestExtentKind::Zero));
    assert!(!reads_zeros(&image, 0..512) && reads_zeros(&image, size - 512..size));
    image.close().unwrap();

    let image = open(storage.clone(), &gate);
    image.resize(65536, Shrink::Allow).unwrap();
    image.set_backing(None).unwrap();
    image.close().unwrap();
    let image = open(storage, &RefuseBacking);
    image.resize(size, Shrink::Refuse).unwrap();
    assert!(is_all(&image, 0..size, GuestExtentKind::Unallocated));
}

// spec-test: QED-QEMU-18, QED-MAP-04
#[test]
fn a_disk_cut_off_inside_a_cluster_leaves_zeros_behind_its_end() {
    for end in [CLUSTER + 512, 2 * CLUSTER - 512] {
        let storage = new_storage(small_geometry(), 4 * CLUSTER, false);
        let image = open(storage.clone(), &RefuseBacking);
        image.write_at(&[7; 4 * 4096], GuestOffset::new(0)).unwrap();
        image.resize(end, Shrink::Allow).unwrap();
        let ExtentKind::Data(host) = image.map(GuestOffset::new(CLUSTER), 1).unwrap().kind else {
            panic!("the last cluster is still allocated");
        };
        let mut cluster = [0xee; 4096];
        storage.read_at(&mut cluster, host.get()).unwrap();
        let (kept, wiped) = cluster.split_at((end - CLUSTER) as usize);
        assert!(kept.iter().all(|byte| *byte == 7));
        assert!(wiped.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_a_slot_past_the_end_of_the_disk_leads_to_is_not_cut_off() {
    let coverage = small_geometry().l2_coverage_bytes();
    let storage = new_storage(small_geometry(), 3 * coverage, false);
    let image = open(storage.clone(), &RefuseBacking);
    for table in 0..3 {
        image.write_at(&[7; 512], GuestOffset::new(table * coverage)).unwrap();
    }
    image.close().unwrap();
    let whole = storage.to_vec();
    // Another program made the disk smaller and left the slot of its last table.
    storage.write_at(&(2 * coverage).to_le_bytes(), 48).unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    image.resize(coverage, Shrink::Allow).unwrap();
    image.close().unwrap();
    assert_eq!(storage.len().unwrap(), whole.len() as u64);
    let third = whole.len() - 3 * 4096;
    assert!(storage.to_vec()[third..] == whole[third..]);
}

#[test]
fn on_a_block_device_the_disk_shrinks_and_the_device_stays() {
    let storage = new_storage(small_geometry(), 4 * CLUSTER, false);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[7; 4 * 4096], GuestOffset::new(0)).unwrap();
    image.close().unwrap();
    let mut bytes = storage.to_vec();
    bytes.resize(bytes.len() + 512, 0xee);
    let device = Arc::new(MemoryStorage::device(bytes));
    let image = open(device.clone(), &RefuseBacking);
    image.resize(CLUSTER, Shrink::Allow).unwrap();
    image.resize(3 * CLUSTER, Shrink::Allow).unwrap();
    let mut disk = [0xee; 3 * CLUSTER as usize];
    image.read_at(&mut disk, GuestOffset::new(0)).unwrap();
    assert!(disk[..4096] == [7; 4096] && disk[4096..] == [0; 8192]);
    image.close().unwrap();
}

#[test]
fn a_corrupt_entry_elsewhere_does_not_keep_the_file_from_being_cut() {
    let storage = new_storage(small_geometry(), 8 * CLUSTER, false);
    let image = open(storage.clone(), &RefuseBacking);
    image.write_at(&[7; 8 * 4096], GuestOffset::new(0)).unwrap();
    image.close().unwrap();
    // Slot 1 of the table at cluster 3 names nothing that is a cluster.
    storage.write_at(&77_u64.to_le_bytes(), 3 * CLUSTER + 8).unwrap();
    let image = open(storage.clone(), &RefuseBacking);
    image.resize(3 * CLUSTER, Shrink::Allow).unwrap();
    assert_eq!(storage.len().unwrap(), (5 + 3) * CLUSTER);
    image.read_at(&mut [0; 512], GuestOffset::new(CLUSTER)).unwrap_err();
}

#[test]
fn shrinking_reads_no_tables_that_are_holes() {
    const SLOTS: u64 = 32 << 10;
    const TABLE: u64 = 4 << 16;
    let folder = tempfile::tempdir().unwrap();
    let options =
        NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
    let file = FileStorage::create(folder.path().join("huge.qed"), options).unwrap();
    // 64 TiB, the largest disk of this shape: 32,768 tables, 8 GiB of them, all zeros.
    let header = create(&file, &CreateOptions::new(SLOTS << 31)).unwrap();
    let first = file.len().unwrap();
    let tables: Vec<u8> = (0..SLOTS).flat_map(|n| (first + n * TABLE).to_le_bytes()).collect();
    file.write_at(&tables, header.fields().l1_table_offset.get()).unwrap();
    file.set_len(first + SLOTS * TABLE).unwrap();
    let file = Arc::new(file);
    let image = open(file.clone(), &RefuseBacking);
    image.resize((SLOTS / 2) << 31, Shrink::Allow).unwrap();
    assert_eq!(file.len().unwrap(), first + SLOTS / 2 * TABLE);
    let last = GuestOffset::new(((SLOTS / 2) << 31) - 512);
    image.write_at(&[1; 512], last).unwrap();
    image.close().unwrap();
    assert_eq!(file.len().unwrap(), first + SLOTS / 2 * TABLE + (1 << 16));
}

#[test]
fn the_largest_disks_are_written_zeroed_and_resized_at_their_ends() {
    let largest = (1 << 63) - 512;
    for (cluster, size) in [(64 << 20, largest), (1 << 20, 1 << 62)] {
        let folder = tempfile::tempdir().unwrap();
        let options =
            NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
        let file = FileStorage::create(folder.path().join("large.qed"), options).unwrap();
        let geometry = Geometry::new(cluster, 16).unwrap();
        create(
            &file,
            &CreateOptions { geometry, image_size: size, backing: None, layout: Layout::Classic },
        )
        .unwrap();
        let image = open(Arc::new(file), &RefuseBacking);
        let at_the_end = |size| GuestOffset::new(size - 512);
        image.write_at(&[1; 512], at_the_end(size)).unwrap();
        image.resize(size - 512, Shrink::Allow).unwrap();
        image.write_zeroes(at_the_end(size - 512), 512, ZeroMode::IfNeeded).unwrap();
        image.resize(512, Shrink::Allow).unwrap();
        image.resize(size, Shrink::Refuse).unwrap();
        image.resize(largest + 512, Shrink::Refuse).unwrap_err();
        image.resize(!511, Shrink::Refuse).unwrap_err();
        image.write_at(&[1; 512], at_the_end(size)).unwrap();
        let mut sector = [0xee; 512];
        image.read_at(&mut sector, at_the_end(size - 512)).unwrap();
        assert_eq!(sector, [0; 512]);
        image.close().unwrap();
    }
}
