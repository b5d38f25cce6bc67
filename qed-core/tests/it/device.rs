//! Images on a block device, which has a length of its own and holds anything where nothing was written.

use std::sync::Arc;

use qed_core::{
    CompactOptions, CompactStep, CreateError, CreateOptions, GivenBacking, Image, ImageError,
    Layout, RefuseBacking, Shrink, ZeroMode, create,
};
use qed_io::{MemoryStorage, Storage};
use qed_layout::{SuperblockBytes, stored_physical_size};
use qed_spec::{AutoclearFeatures, ErrorKind, GuestOffset, Header, PhysicalSize};

use crate::support::{COMPAT, JOURNAL, Random, open, small_geometry};

mod crash;
mod order;

const CLUSTER: u64 = 4096;
const LAYOUTS: [Layout; 3] = [Layout::Classic, COMPAT, JOURNAL];
/// What is on a device before anything is written.
const STALE: u8 = 0xee;

/// A new image of `size` bytes on a device of `len` bytes.
fn new_on_device(layout: Layout, size: u64, len: u64) -> Arc<MemoryStorage> {
    let device = Arc::new(MemoryStorage::device(vec![STALE; len as usize]));
    let geometry = small_geometry();
    create(&*device, &CreateOptions { geometry, image_size: size, backing: None, layout }).unwrap();
    device
}

/// What is recorded of the end of the image, where it is believed.
fn recorded(storage: &dyn Storage) -> Option<PhysicalSize> {
    let mut sector = [0; 512];
    storage.read_at(&mut sector, 0).unwrap();
    let features = qed_layout::SUPPORTED;
    let header = Header::parse(&sector, storage.len().unwrap(), features).unwrap();
    let copies = SuperblockBytes::read(storage, &header).unwrap()?;
    let choice = copies.choose().unwrap();
    stored_physical_size(&choice.current()?.1, &header)
}

fn read_all(image: &Image) -> Vec<u8> {
    let mut disk = vec![STALE; image.image_size() as usize];
    image.read_at(&mut disk, GuestOffset::new(0)).unwrap();
    disk
}

/// Writes a cluster at a time until there is no space; how many.
fn fill(image: &Image, from: u64, byte: u8) -> u64 {
    for cluster in from.. {
        let written =
            image.write_at(&[byte; CLUSTER as usize], GuestOffset::new(cluster * CLUSTER));
        if let Err(error) = written {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            return cluster - from;
        }
    }
    unreachable!("a device is finite")
}

// spec-test: QED-DEV-01
#[test]
fn a_new_image_takes_its_metadata_and_leaves_the_rest() {
    for layout in LAYOUTS {
        let device = new_on_device(layout, 64 << 10, 1 << 20);
        let bytes = device.to_vec();
        let image = open(device.clone(), &RefuseBacking);
        let fields = *image.header().fields();
        let end = fields.l1_table_offset.get() + image.geometry().table_size_bytes();
        let (metadata, rest) = bytes.split_at(end as usize);
        assert!(!metadata.contains(&STALE) && rest.iter().all(|byte| *byte == STALE));
        assert_eq!(read_all(&image), [0; 64 << 10]);
        let said = recorded(&*device).map(|it| (it.physical_size(), it.device_size()));
        assert_eq!(said, (layout != Layout::Classic).then_some((end, 1 << 20)));
        image.close().unwrap();
        assert!(device.to_vec() == bytes, "nothing to say that it did not say");
    }
}

// spec-test: QED-DEV-01
#[test]
fn a_device_too_small_for_the_metadata_is_refused_and_unchanged() {
    for (layout, needed) in [(Layout::Classic, 3), (COMPAT, 7), (JOURNAL, 15)] {
        let (needed, geometry) = (needed * CLUSTER, small_geometry());
        for len in [0, needed - 1] {
            let device = MemoryStorage::device(vec![STALE; len as usize]);
            let options = CreateOptions { geometry, image_size: 512, backing: None, layout };
            let error = create(&device, &options).unwrap_err();
            assert!(
                matches!(error, CreateError::DeviceTooSmall { capacity, needed: found }
                    if (capacity, found) == (len, needed)),
                "{error}"
            );
            assert!(device.to_vec().iter().all(|byte| *byte == STALE));
        }
        let device = new_on_device(layout, CLUSTER, needed);
        let image = open(device, &RefuseBacking);
        assert_eq!(fill(&image, 0, 1), 0);
    }
}

// spec-test: QED-DEV-02, QED-RW-05
#[test]
fn random_operations_on_stale_space_equal_the_model() {
    const DISK: u64 = 1 << 20;
    for seed in 1..=36 {
        let mut random = Random(seed * 0x9e37_79b9);
        let layout = LAYOUTS[(seed % 3) as usize];
        let device = new_on_device(layout, DISK, 3 << 20);
        let mut model = vec![0; DISK as usize];
        let mut image = open(device.clone(), &RefuseBacking);
        for _ in 0..100 {
            let size = image.image_size();
            let at = random.below(size);
            let len = (1 + random.below(20_000)).min(size - at);
            let (start, end, place) = (at as usize, (at + len) as usize, GuestOffset::new(at));
            match random.below(16) {
                0..8 => {
                    let byte = random.next().to_le_bytes()[7];
                    image.write_at(&vec![byte; end - start], place).unwrap();
                    model[start..end].fill(byte);
                }
                8..10 => {
                    let modes = [ZeroMode::IfNeeded, ZeroMode::Explicit, ZeroMode::Unmap];
                    image.write_zeroes(place, len, modes[random.below(3) as usize]).unwrap();
                    model[start..end].fill(0);
                }
                10 => {
                    let (start, end) =
                        (at.next_multiple_of(CLUSTER), end as u64 / CLUSTER * CLUSTER);
                    if start < end {
                        image.discard(GuestOffset::new(start), end - start).unwrap();
                        model[start as usize..end as usize].fill(0);
                    }
                }
                11 => image.flush().unwrap(),
                12 => {
                    image.sweep().unwrap();
                }
                13 => {
                    let new_size = DISK / 2 + random.below(DISK / 1024) * 512;
                    image.resize(new_size, Shrink::Allow).unwrap();
                    model.resize(new_size as usize, 0);
                }
                _ => {
                    image.close().unwrap();
                    image = open(device.clone(), &RefuseBacking);
                }
            }
        }
        assert!(read_all(&image) == model, "seed {seed}");
        image.close().unwrap();
        let image = open(device, &GivenBacking(None));
        assert!(read_all(&image) == model, "seed {seed}, opened again");
    }
}

// spec-test: QED-DEV-01, QED-DEV-03
#[test]
fn a_full_device_stays_writable_and_goes_on_when_it_grows() {
    for layout in LAYOUTS {
        let device = new_on_device(layout, 4 << 20, 100 * CLUSTER);
        let image = open(device.clone(), &RefuseBacking);
        let first = fill(&image, 0, 1);
        assert!(first > 80, "{first} of 100 clusters hold data");
        image.write_at(&[2; 100], GuestOffset::new(CLUSTER)).unwrap();
        image.flush().unwrap();
        device.grow_device(150 * CLUSTER as usize, STALE);
        let second = fill(&image, first, 3);
        assert_eq!(second, 50, "what it grew by");
        image.flush().unwrap();
        if layout != Layout::Classic {
            assert_eq!(recorded(&*device).unwrap().device_size(), 150 * CLUSTER);
        }
        // Space that the guest gives up is used again.
        image.discard(GuestOffset::new(8 * CLUSTER), 4 * CLUSTER).unwrap();
        assert_eq!(fill(&image, first + second, 4), 4);
        let disk = read_all(&image);
        image.close().unwrap();
        let image = open(device, &RefuseBacking);
        assert!(read_all(&image) == disk);
        assert!(disk[..100] == [1; 100] && disk[CLUSTER as usize..][..100] == [2; 100]);
        assert!(!disk.contains(&STALE));
    }
}

/// Writes as a program does that appends where it takes the end to be: an entry of guest cluster 1000,
/// whose table there is, and what it names.
fn append(device: &dyn Storage, host: u64) {
    let mut word = [0; 8];
    let mut read = |at| {
        device.read_at(&mut word, at).unwrap();
        u64::from_le_bytes(word)
    };
    let table = {
        let l1 = read(40);
        read(l1)
    };
    device.write_at(&(host * CLUSTER).to_le_bytes(), table + 8 * 1000).unwrap();
    device.write_at(&[9; CLUSTER as usize], host * CLUSTER).unwrap();
}

#[track_caller]
fn assert_has_what_was_appended(image: &Image) {
    let mut bytes = [0; CLUSTER as usize];
    image.read_at(&mut bytes, GuestOffset::new(1000 * CLUSTER)).unwrap();
    assert_eq!(bytes, [9; CLUSTER as usize]);
}

// spec-test: QED-DEV-03
#[test]
fn what_a_device_gained_while_it_was_closed_is_used_after_a_look_at_all_tables() {
    for layout in LAYOUTS {
        let device = new_on_device(layout, 4 << 20, 100 * CLUSTER);
        let image = open(device.clone(), &RefuseBacking);
        let first = fill(&image, 0, 1);
        image.close().unwrap();
        device.grow_device(120 * CLUSTER as usize, STALE);
        append(&*device, 110);
        let image = open(device.clone(), &RefuseBacking);
        assert_eq!(fill(&image, first, 2), 20 - 1, "all but what the other program took");
        assert_has_what_was_appended(&image);
        image.close().unwrap();
        if layout != Layout::Classic {
            let said = recorded(&*device).unwrap();
            assert_eq!(said.physical_size(), 120 * CLUSTER);
            assert_eq!(said.device_size(), 120 * CLUSTER);
        }
    }
}

// spec-test: QED-DEV-05
#[test]
fn where_nothing_is_believed_the_end_is_that_of_the_tables() {
    for (name, spoil) in SPOILERS {
        let device = new_on_device(COMPAT, 4 << 20, 100 * CLUSTER);
        let image = open(device.clone(), &RefuseBacking);
        image.write_at(&[1; 5 * CLUSTER as usize], GuestOffset::new(0)).unwrap();
        image.close().unwrap();
        append(&*device, 60);
        let device = spoil(device);
        let image = open(device.clone(), &RefuseBacking);
        assert_eq!(recorded(&*device), None, "{name}: not believed");
        let usage = image.space_usage().unwrap();
        assert_eq!(usage.end, device.len().unwrap(), "{name}: it may be anywhere");
        // Without a write nothing is looked for, and nothing recorded.
        image.close().unwrap();
        assert_eq!(recorded(&*device), None, "{name}");
        let image = open(device.clone(), &RefuseBacking);
        image.write_at(&[2; 512], GuestOffset::new(900 * CLUSTER)).unwrap();
        assert_eq!(image.space_usage().unwrap().end, 61 * CLUSTER, "{name}");
        image.close().unwrap();
        assert_eq!(recorded(&*device).unwrap().physical_size(), 61 * CLUSTER, "{name}");
        let image = open(device, &RefuseBacking);
        fill(&image, 5, 3);
        assert_has_what_was_appended(&image);
    }
}

type Spoil = fn(Arc<MemoryStorage>) -> Arc<MemoryStorage>;

const SPOILERS: [(&str, Spoil); 3] = [
    ("the bit was cleared", |device| {
        let bits = AutoclearFeatures::TABLE_DIRTY.bits();
        device.write_at(&bits.to_le_bytes(), 32).unwrap();
        device
    }),
    ("the device shrank", |device| {
        let bytes = device.to_vec();
        Arc::new(MemoryStorage::device(bytes[..90 * CLUSTER as usize].into()))
    }),
    ("it was a file meanwhile", |device| {
        let file = Arc::new(MemoryStorage::new(device.to_vec()));
        open(file.clone(), &RefuseBacking).close().unwrap();
        Arc::new(MemoryStorage::device(file.to_vec()))
    }),
];

// spec-test: QED-DEV-06
#[test]
fn an_entry_behind_the_recorded_end_is_read_and_stops_allocation_until_all_tables_were() {
    for layout in [COMPAT, JOURNAL] {
        let device = new_on_device(layout, 4 << 20, 100 * CLUSTER);
        let image = open(device.clone(), &RefuseBacking);
        image.write_at(&[1; 5 * CLUSTER as usize], GuestOffset::new(0)).unwrap();
        image.close().unwrap();
        append(&*device, 60);
        let image = open(device.clone(), &RefuseBacking);
        assert_has_what_was_appended(&image);
        {
            let request = image.request();
            let error = request.prepare(GuestOffset::new(20 * CLUSTER), 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        }
        assert!(image.sweep().unwrap());
        let used = fill(&image, 5, 3);
        assert_eq!(used + 5 + 1, 100 - first_data(layout));
        assert_has_what_was_appended(&image);
        image.close().unwrap();
    }
}

/// The number of the first cluster behind header area, L1 table and one L2 table.
fn first_data(layout: Layout) -> u64 {
    let device = new_on_device(layout, 512, 1 << 20);
    let header = open(device, &RefuseBacking).header();
    header.fields().l1_table_offset.get() / CLUSTER + 2 + 2
}

// spec-test: QED-DEV-06
#[test]
fn an_entry_past_the_end_of_the_device_is_refused() {
    let device = new_on_device(COMPAT, 4 << 20, 100 * CLUSTER + 512);
    let image = open(device.clone(), &RefuseBacking);
    image.write_at(&[1; 512], GuestOffset::new(0)).unwrap();
    image.close().unwrap();
    append(&*device, 60);
    let table = image.header().fields().l1_table_offset.get() + 2 * CLUSTER;
    device.write_at(&(100 * CLUSTER).to_le_bytes(), table + 8 * 1000).unwrap();
    let image = open(device, &RefuseBacking);
    let error = image.read_at(&mut [0; 512], GuestOffset::new(1000 * CLUSTER)).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt(_)), "{error}");
}

// spec-test: QED-FREE-09, QED-DEV-04
#[test]
fn compacting_lowers_the_recorded_end_and_leaves_the_device_as_long() {
    for layout in LAYOUTS {
        let device = new_on_device(layout, 4 << 20, 200 * CLUSTER);
        let image = open(device.clone(), &RefuseBacking);
        image.write_at(&[7; 150 * CLUSTER as usize], GuestOffset::new(0)).unwrap();
        for cluster in (0..150).step_by(2) {
            image.discard(GuestOffset::new(cluster * CLUSTER), CLUSTER).unwrap();
        }
        let disk = read_all(&image);
        image.close().unwrap();
        let image = open(device.clone(), &RefuseBacking);
        for defragment in [false, true] {
            let mut compaction = image.compact(CompactOptions { defragment });
            let done = loop {
                if let CompactStep::Done(done) = compaction.step().unwrap() {
                    break done;
                }
            };
            assert_eq!(done.end_after, (first_data(layout) + 75) * CLUSTER, "{layout:?}");
            assert_eq!(image.space_usage().unwrap().end, done.end_after);
            if let Some(said) = recorded(&*device) {
                assert_eq!(said.physical_size(), done.end_after);
            }
            assert!(read_all(&image) == disk);
        }
        assert_eq!(fill(&image, 200, 3), 200 - first_data(layout) - 75);
        image.close().unwrap();
        let image = open(device.clone(), &RefuseBacking);
        assert!(read_all(&image)[..disk.len() / 8] == disk[..disk.len() / 8]);
        assert_eq!(device.len().unwrap(), 200 * CLUSTER);
    }
}

// spec-test: QED-DEV-03
#[test]
fn wherever_space_ends_a_write_fails_and_nothing_else() {
    const DISK: u64 = 1 << 20;
    for layout in LAYOUTS {
        let metadata = first_data(layout) - 2;
        for more in 0..40 {
            let device = new_on_device(layout, DISK, (metadata + more) * CLUSTER);
            let mut random = Random(more + 1);
            let mut model = vec![0; DISK as usize];
            let mut image = open(device.clone(), &RefuseBacking);
            let (mut full, mut written) = (0, 0);
            for step in 0..60 {
                let cluster = random.below(DISK / CLUSTER);
                let range = (cluster * CLUSTER) as usize..((cluster + 1) * CLUSTER) as usize;
                let place = GuestOffset::new(cluster * CLUSTER);
                if random.below(8) == 0 {
                    image.discard(place, CLUSTER).unwrap();
                    model[range].fill(0);
                } else {
                    match image.write_at(&[step + 1; CLUSTER as usize], place) {
                        Ok(()) => {
                            model[range].fill(step + 1);
                            written += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                            full += 1;
                        }
                    }
                }
                match random.below(10) {
                    0 => image.flush().unwrap(),
                    1 => {
                        image.close().unwrap();
                        image = open(device.clone(), &RefuseBacking);
                    }
                    _ => {}
                }
            }
            assert_eq!(written > 0, more >= 3, "{layout:?} {more}: a table and a cluster");
            assert!(full > 0, "{layout:?} {more}");
            assert!(image.sweep().unwrap() && read_all(&image) == model, "{layout:?} {more}");
            image.close().unwrap();
            let image = open(device, &RefuseBacking);
            assert!(read_all(&image) == model, "{layout:?} {more}: opened again");
        }
    }
}
