//! Block devices: what differs from a file.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;

use qed_io::{
    Existing, FileKind, FileOptions, FileStorage, Growth, ImageLock, LockError, NewFileOptions,
    OpenError, RunKind, Storage, StorageRun,
};

use crate::support::{LoopDevice, contents};

const LEN: u64 = 1 << 20;

#[test]
fn a_device_has_a_fixed_length_and_stale_space() {
    let Some(device) = LoopDevice::attach(LEN, 512) else { return };
    let storage = device.open(false);
    assert_eq!((storage.kind(), storage.growth()), (FileKind::BlockDevice, Growth::Stale));
    assert_eq!(storage.len().unwrap(), LEN);
    assert_eq!(storage.run_at(5).unwrap(), StorageRun { len: LEN - 5, kind: RunKind::Data });
    assert_eq!(storage.set_len(LEN - 512).unwrap_err().kind(), ErrorKind::Unsupported);
    storage.set_len(LEN).unwrap();
    for direct in [false, true] {
        let storage = device.open(direct);
        let past = storage.write_at(&[1; 1024], LEN - 512).unwrap_err();
        assert_eq!(past.kind(), ErrorKind::StorageFull, "direct {direct}");
        let past = storage.read_at(&mut [0; 2], LEN - 1).unwrap_err();
        assert_eq!(past.kind(), ErrorKind::UnexpectedEof, "direct {direct}");
    }
}

#[test]
fn zeros_on_a_device_keep_the_neighbours() {
    for (sector, direct) in [(512, false), (512, true), (4096, false), (4096, true)] {
        let Some(device) = LoopDevice::attach(LEN, sector) else { return };
        let storage = device.open(direct);
        let mut want = vec![7; LEN as usize];
        storage.write_at(&want, 0).unwrap();
        for range in [100..200_u64, 5_000..500_000, 8192..16384, LEN - 3..LEN] {
            storage.write_zeroes(range.clone()).unwrap();
            want[range.start as usize..range.end as usize].fill(0);
            assert!(contents(&storage) == want, "{range:?}, sector {sector}, direct {direct}");
        }
        let range = 600_001..700_001_usize;
        assert!(storage.punch_hole(600_001..700_001).unwrap(), "a loop device can punch");
        want[range].fill(0);
        assert!(contents(&storage) == want, "punch, sector {sector}, direct {direct}");
    }
}

#[test]
fn a_device_is_known_by_its_number_and_can_be_locked_and_taken_over() {
    let Some(device) = LoopDevice::attach(LEN, 512) else { return };
    let storage = device.open(false);
    assert_eq!(storage.identity().inode, 0);
    assert_eq!(storage.identity(), device.open(true).identity());
    storage.write_at(b"bytes", 0).unwrap();
    drop(storage);

    let over =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let storage = FileStorage::create(device.node(), over).unwrap();
    assert!(!storage.was_created());
    assert_eq!(&contents(&storage)[..5], b"bytes");
    let other = FileStorage::open(device.node(), FileOptions::READ_ONLY).unwrap();
    assert!(matches!(other.lock(ImageLock::READ), Err(LockError::Held { .. })));
}

#[test]
fn a_device_that_grows_is_longer_while_it_is_open() {
    let Some(device) = LoopDevice::attach(LEN, 512) else { return };
    let storages = [device.open(false), device.open(true)];
    device.grow(2 * LEN);
    for storage in storages {
        assert_eq!(storage.len().unwrap(), 2 * LEN);
        storage.write_at(&[5; 4096], 2 * LEN - 4096).unwrap();
        let past = storage.write_at(&[1; 512], 2 * LEN).unwrap_err();
        assert_eq!(past.kind(), ErrorKind::StorageFull);
        storage.flush().unwrap();
    }
}

#[test]
fn a_discard_gives_space_back_and_keeps_the_neighbours() {
    for (sector, direct) in [(512, false), (512, true), (4096, false), (4096, true)] {
        let Some(device) = LoopDevice::attach(LEN, sector) else { return };
        let storage = device.open(direct);
        storage.write_at(&vec![7; LEN as usize], 0).unwrap();
        storage.flush().unwrap();
        let before = device.allocated();
        let gone = 100_001..900_001_usize;
        assert!(storage.discard(100_001..900_001).unwrap(), "a loop device can discard");
        let after = device.allocated();
        assert!(after + 700_000 < before, "{before} bytes before, {after} after");
        let bytes = contents(&storage);
        assert!(bytes[..gone.start].iter().chain(&bytes[gone.end..]).all(|byte| *byte == 7));
        // What is no whole unit, and what lies past the end.
        assert!(storage.discard(10..20).unwrap());
        assert!(storage.discard(LEN - 10..u64::MAX).unwrap());
        assert_eq!(contents(&storage)[..gone.start], bytes[..gone.start]);
        assert_eq!(contents(&storage)[gone.end..], bytes[gone.end..]);
    }
}

#[test]
fn a_device_that_is_in_use_is_not_taken_over() {
    const O_EXCL: i32 = 0o200;
    let Some(device) = LoopDevice::attach(LEN, 512) else { return };
    let over =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let mount = OpenOptions::new().read(true).custom_flags(O_EXCL).open(device.node()).unwrap();
    let error = FileStorage::create(device.node(), over).unwrap_err();
    assert!(matches!(error, OpenError::DeviceInUse), "{error}");
    drop(mount);
    let storage = FileStorage::create(device.node(), over).unwrap();
    let mount = OpenOptions::new().read(true).custom_flags(O_EXCL).open(device.node());
    assert_eq!(mount.unwrap_err().kind(), ErrorKind::ResourceBusy, "while it is being written");
    drop(storage);
}
