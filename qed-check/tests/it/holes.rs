//! A storage that knows of holes: where it says there are some makes no difference.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use qed_check::{CheckError, CheckOptions, Repair, check, repair};
use qed_io::{Growth, ImageLock, LockError, MemoryStorage, RunKind, Storage, StorageRun};

use crate::image::{Random, damaged};

/// Says of every zero byte that it is a hole. Its runs are as short as they may be, and end where
/// no table, entry or sector does.
#[derive(Debug)]
pub(crate) struct Holey(pub(crate) Arc<MemoryStorage>);

impl Storage for Holey {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.0.write_zeroes(range)
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        self.0.punch_hole(range)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        let there = self.len()?.saturating_sub(at).min(1 + Random(at).below(5000));
        let mut bytes = vec![0; usize::try_from(there).unwrap()];
        self.read_at(&mut bytes, at)?;
        let is_hole = bytes.first() == Some(&0);
        let len = bytes.iter().take_while(|byte| (**byte == 0) == is_hole).count() as u64;
        Ok(StorageRun { len, kind: if is_hole { RunKind::Hole } else { RunKind::Data } })
    }

    fn growth(&self) -> Growth {
        self.0.growth()
    }

    fn lock(&self, lock: ImageLock) -> Result<(), LockError> {
        self.0.lock(lock)
    }
}

#[test]
fn a_check_finds_the_same_where_the_storage_knows_of_holes() {
    let mut options = CheckOptions::default();
    options.findings_limit = usize::MAX;
    for seed in 0..500 {
        let image = damaged(seed);
        let report = check(&Holey(image.storage()), &options).unwrap();
        assert_eq!(report, image.check(), "seed {seed}");
    }
}

#[test]
fn a_repair_writes_the_same_image_where_the_storage_knows_of_holes() {
    let mut copied = 0;
    for seed in 0..500 {
        let image = damaged(seed);
        let (plain, holey) = (image.storage(), Holey(image.storage()));
        let (expected, found) = (repair(&*plain, Repair::All), repair(&holey, Repair::All));
        match (&expected, &found) {
            (Ok(expected), Ok(found)) => assert_eq!(found, expected, "seed {seed}"),
            (Err(CheckError::TooManyCopies { .. }), Err(CheckError::TooManyCopies { .. })) => {}
            _ => panic!("seed {seed}: {found:?}, not {expected:?}"),
        }
        let (expected, found) = (plain.to_vec(), holey.0.to_vec());
        assert!(found == expected, "seed {seed}: the images differ");
        copied += u64::from(found.len() > image.bytes.len());
    }
    assert!(copied > 50, "only {copied} repairs made copies");
}
