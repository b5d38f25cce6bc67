//! Requests that fail fail alone, and what an engine leaves when it is dropped.

use std::io::ErrorKind;
use std::sync::Arc;

use qed_core::{
    BackingError, CreateOptions, GivenBacking, GuestExtent, Image, ImageError, LockPolicy,
    ReadContext, ReadOnlyImage, RecoveryPolicy, RefuseBacking, VirtualDisk, WriteContext, create,
};
use qed_engine::{AlignedBuf, Engine, Served};
use qed_io::{MemoryStorage, Storage};
use qed_spec::GuestOffset;

use crate::support::{Bytes, CLUSTER, DISK, make, read, write};

/// A backing file whose second half cannot be read.
#[derive(Debug)]
struct HalfBroken(Bytes);

impl VirtualDisk for HalfBroken {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        if offset + buf.len() as u64 > DISK / 2 {
            return Err(BackingError::new(offset, qed_spec::ErrorKind::Io, "no"));
        }
        self.0.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        self.0.extent_at(offset, max_len)
    }
}

fn all(engine: &mut Engine) -> Vec<Served> {
    let mut served = Vec::new();
    while let Some(one) = engine.wait().unwrap() {
        served.push(one);
    }
    served.sort_by_key(|one| one.tag);
    served
}

#[test]
fn a_request_that_fails_leaves_the_others_alone() {
    let broken = HalfBroken(Bytes(vec![5; DISK as usize]));
    let gate = GivenBacking(Some(Arc::new(broken)));
    let made = make(false, false, &gate);
    let mut engine = Engine::for_image(made.image.clone(), 4).unwrap();
    for (tag, at) in [(0, 0), (1, DISK / 2), (2, CLUSTER), (3, DISK - 512), (4, u64::MAX - 5)] {
        write(&mut engine, tag, at, &[1; 4096]);
    }
    read(&mut engine, 5, 3 * CLUSTER, 4096);
    read(&mut engine, 6, DISK / 2 + CLUSTER, 4096);
    read(&mut engine, 7, DISK - 4095, 4096);
    let served = all(&mut engine);
    for (tag, one) in served.iter().enumerate() {
        let is_as_expected = match tag {
            0 | 2 | 5 => one.result.is_ok(),
            1 | 6 => matches!(one.result, Err(ImageError::Backing(_))),
            _ => matches!(one.result, Err(ImageError::OutOfRange { .. })),
        };
        assert!(is_as_expected, "{tag}: {:?}", one.result);
    }
    assert!(served[5].buffer.iter().all(|byte| *byte == 5));
    // The clusters of the failed write are the next one's.
    write(&mut engine, 8, 4 * CLUSTER, &[3; 4096]);
    assert!(all(&mut engine)[0].result.is_ok());
    drop(engine);
    made.image.close().unwrap();
}

#[test]
fn a_disk_for_reading_refuses_writes() {
    let made = make(false, false, &GivenBacking(None));
    made.image.write_at(&[9; 4096], GuestOffset::new(0)).unwrap();
    made.image.close().unwrap();
    let context = ReadContext::new(&RefuseBacking, LockPolicy::None);
    let image = ReadOnlyImage::open(made.file.clone(), &context).unwrap();
    let mut engine = Engine::for_reading(Arc::new(image), made.file, 4).unwrap();
    write(&mut engine, 0, 0, &[1; 4096]);
    read(&mut engine, 1, 0, 8192);
    read(&mut engine, 2, DISK - 1, 2);
    let served = all(&mut engine);
    let Err(ImageError::Io { source, .. }) = &served[0].result else { panic!("{:?}", served[0]) };
    assert_eq!(source.kind(), ErrorKind::PermissionDenied);
    assert!(served[1].buffer[..4096] == [9; 4096] && served[1].buffer[4096..] == [0; 4096]);
    assert!(matches!(served[2].result, Err(ImageError::OutOfRange { .. })));
}

#[test]
fn an_image_that_is_in_no_file_is_refused() {
    let storage = Arc::new(MemoryStorage::default());
    create(&*storage, &CreateOptions::new(DISK)).unwrap();
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Arc::new(Image::open(storage, &context).unwrap());
    let error = Engine::<AlignedBuf>::for_image(image, 4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_dropped_engine_leaves_clusters_whole_or_as_they_were() {
    let made = make(true, false, &GivenBacking(None));
    for cluster in 0..32 {
        let mut engine = Engine::for_image(made.image.clone(), 8).unwrap();
        for tag in 0..4 {
            write(&mut engine, tag, (cluster * 4 + tag) * CLUSTER, &[1; CLUSTER as usize]);
        }
        engine.wait().unwrap();
    }
    let mut disk = vec![0; DISK as usize];
    made.image.read_at(&mut disk, GuestOffset::new(0)).unwrap();
    for cluster in disk.chunks(CLUSTER as usize) {
        assert!(cluster.iter().all(|byte| *byte == cluster[0]));
    }
    made.image.close().unwrap();
}

/// A page of ones and a page of twos, at places that the file does not have.
#[derive(Debug)]
struct Moved(Arc<dyn Storage>);

impl VirtualDisk for Moved {
    fn len(&self) -> u64 {
        8192
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        for (byte, at) in buf.iter_mut().zip(offset..) {
            *byte = if at < 4096 { 1 } else { 2 };
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let len = max_len.min(4096 - offset % 4096);
        let kind = qed_core::GuestExtentKind::Data { host_offset: (1 << 40) + offset };
        Ok(GuestExtent { len, depth: 0, kind })
    }

    fn data_storage(&self, _offset: u64, _depth: u32) -> Option<&Arc<dyn Storage>> {
        Some(&self.0)
    }
}

#[test]
fn a_second_part_that_the_file_lacks_is_asked_of_its_own_place() {
    let made = make(false, false, &GivenBacking(None));
    let disk = Moved(made.file.clone());
    let mut engine = Engine::for_reading(Arc::new(disk), made.file, 4).unwrap();
    read(&mut engine, 0, 0, 8192);
    let served = all(&mut engine);
    assert!(served[0].result.is_ok());
    assert!(served[0].buffer[..4096] == [1; 4096] && served[0].buffer[4096..] == [2; 4096]);
}
