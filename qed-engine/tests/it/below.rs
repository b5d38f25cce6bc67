//! What lies in the file of a backing image is read by the ring, many at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qed_core::{BackingError, GivenBacking, GuestExtent, ImageError, RawFile, VirtualDisk};
use qed_engine::Engine;
use qed_io::Storage;

use crate::support::{CLUSTER, DISK, finish, make, raw_file, read, write};

/// A raw file that counts the calls that read it.
#[derive(Debug)]
struct Counted(RawFile, AtomicU64);

impl VirtualDisk for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        self.0.extent_at(offset, max_len)
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        self.0.data_storage(offset, depth)
    }
}

#[test]
fn no_call_reads_what_the_ring_can() {
    for direct in [false, true] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let counted = raw_file(&folder, direct, &vec![5; DISK as usize]);
        let counted = Arc::new(Counted(counted, AtomicU64::new(0)));
        let made = make(direct, false, &GivenBacking(Some(counted.clone())));
        let mut engine = Engine::for_image(made.image.clone(), 32).unwrap();
        for tag in 0..16 {
            // Both sides of the first are the backing file's, one of each of the others.
            let within = if tag == 0 { 4096 } else { tag % 2 * (CLUSTER - 4096) };
            write(&mut engine, tag, 2 * tag * CLUSTER + within, &[0x80 + tag as u8; 4096]);
            read(&mut engine, 100 + tag, (2 * tag + 1) * CLUSTER, CLUSTER as usize);
        }
        for (tag, bytes) in finish(&mut engine) {
            assert!(tag < 100 || bytes == [5; CLUSTER as usize], "{tag}");
        }
        assert_eq!(counted.1.load(Ordering::Relaxed), 0);
        for tag in 0..16 {
            read(&mut engine, tag, 2 * tag * CLUSTER, CLUSTER as usize);
        }
        for (tag, bytes) in finish(&mut engine) {
            let own = bytes.iter().filter(|byte| u64::from(**byte) == 0x80 + tag).count();
            let copied = bytes.iter().filter(|byte| **byte == 5).count();
            assert_eq!((own, copied), (4096, CLUSTER as usize - 4096), "{tag}");
        }
        drop(engine);
        made.image.close().unwrap();
    }
}

#[test]
fn a_backing_file_that_is_shorter_now_says_so() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let raw = raw_file(&folder, false, &vec![5; DISK as usize]);
    let made = make(false, false, &GivenBacking(Some(Arc::new(Shrunk(raw)))));
    std::fs::write(folder.path().join("raw"), vec![5; DISK as usize / 2]).unwrap();
    let mut engine = Engine::for_image(made.image.clone(), 8).unwrap();
    read(&mut engine, 0, 0, 4096);
    read(&mut engine, 1, DISK - CLUSTER, 4096);
    write(&mut engine, 2, CLUSTER, &[1; 4096]);
    write(&mut engine, 3, DISK - CLUSTER, &[1; 4096]);
    while let Some(served) = engine.wait().unwrap() {
        match (served.tag, served.result) {
            (0 | 2, Ok(())) => {}
            (1 | 3, Err(ImageError::Backing(error))) => {
                let kind = error.source.downcast_ref::<io::Error>().map(io::Error::kind);
                assert_eq!(kind, Some(io::ErrorKind::UnexpectedEof), "{error:?}");
            }
            (tag, result) => panic!("{tag}: {result:?}"),
        }
    }
    drop(engine);
    made.image.close().unwrap();
}

/// A raw file that does not look how long it is.
#[derive(Debug)]
struct Shrunk(RawFile);

impl VirtualDisk for Shrunk {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), BackingError> {
        self.0.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<GuestExtent, BackingError> {
        let kind = qed_core::GuestExtentKind::Data { host_offset: offset };
        Ok(GuestExtent { len: max_len.min(self.len() - offset), depth: 0, kind })
    }

    fn data_storage(&self, offset: u64, depth: u32) -> Option<&Arc<dyn Storage>> {
        self.0.data_storage(offset, depth)
    }
}
