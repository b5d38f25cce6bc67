//! What files are asked, and what is made of their answers.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use qed_io::{Growth, ImageLock, LockError, StorageRun};

use super::*;

const CLUSTER: u64 = 64 << 10;

/// A file of data and holes that counts how often it is asked; nobody reads it.
#[derive(Debug)]
struct Layout {
    len: u64,
    stored: u64,
    /// The data; all else is a hole.
    data: Vec<Range<u64>>,
    asked: AtomicU64,
}

impl Layout {
    fn new(len: u64, data: impl IntoIterator<Item = Range<u64>>) -> Self {
        let data: Vec<_> = data.into_iter().collect();
        let stored = data.iter().map(|run| run.end - run.start).sum();
        Self { len, stored, data, asked: AtomicU64::new(0) }
    }

    fn holds(&self, at: u64) -> bool {
        self.data.iter().any(|run| run.contains(&at))
    }

    /// Asks about each cluster of `order` as a walk would, and how often the file was asked.
    #[track_caller]
    fn walk(&self, order: impl Iterator<Item = u64>) -> u64 {
        let mut files = Files::default();
        for cluster in order {
            let (mut at, end) = (cluster * CLUSTER, (cluster + 1) * CLUSTER);
            while at < end {
                let (len, is_hole) = files.run(self, at);
                assert_eq!(is_hole, !self.holds(at), "at {at:#x}");
                assert!(len > 0);
                at = at.saturating_add(len);
            }
        }
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl Storage for Layout {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn allocated_len(&self) -> io::Result<u64> {
        Ok(self.stored)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(run) = self.data.iter().find(|run| run.contains(&at)) {
            return Ok(StorageRun { len: run.end - at, kind: RunKind::Data });
        }
        let next = self.data.iter().map(|run| run.start).find(|start| *start > at);
        let len = next.unwrap_or(self.len).saturating_sub(at);
        Ok(StorageRun { len, kind: RunKind::Hole })
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _: Range<u64>) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn punch_hole(&self, _: Range<u64>) -> io::Result<bool> {
        Ok(false)
    }

    fn growth(&self) -> Growth {
        Growth::Zeros
    }

    fn lock(&self, _: ImageLock) -> Result<(), LockError> {
        Ok(())
    }
}

#[test]
fn a_file_without_space_to_spare_is_not_asked() {
    for missing in [0, CLUSTER, 1000 * CLUSTER] {
        let file = Layout::new(10_001 * CLUSTER, Some(missing..10_001 * CLUSTER));
        let mut files = Files::default();
        assert_eq!(files.run(&file, 0), (u64::MAX, false), "{missing}");
        assert_eq!(file.asked.into_inner(), 0, "{missing}");
    }
}

#[test]
fn a_long_run_is_asked_about_a_few_times_in_any_order() {
    let clusters = 16384;
    let half = clusters / 2 * CLUSTER;
    for data in [0..half, half..2 * half] {
        let file = Layout::new(2 * half, Some(data.clone()));
        let asked = [
            file.walk(0..clusters),
            file.walk((0..clusters).rev()),
            // A stride with no common factor: every cluster once, far from the one before.
            file.walk((0..clusters / 2).map(|i| i * 5077 % (clusters / 2))),
        ];
        assert!(asked.iter().all(|asked| *asked < 40), "{data:?}: {asked:?}");
    }
}

#[test]
fn short_runs_cost_a_few_questions_each() {
    let stripes = 512;
    let stripe = 4 * CLUSTER;
    let data = (0..stripes).step_by(2).map(|i| i * stripe..(i + 1) * stripe);
    let file = Layout::new(stripes * stripe, data);
    assert_eq!(file.walk(0..stripes * 4), stripes);
    assert!(file.walk((0..stripes * 4).rev()) <= 8 * stripes);
    // Runs that are parts of clusters.
    let data = (0..64).map(|i| i * CLUSTER + 4096..i * CLUSTER + 8192);
    let file = Layout::new(64 * CLUSTER, data);
    assert_eq!(file.walk(0..64), 129);
}

#[test]
fn past_the_end_is_data() {
    let file = Layout::new(8 * CLUSTER, Some(0..CLUSTER));
    let mut files = Files::default();
    assert_eq!(files.run(&file, 7 * CLUSTER), (CLUSTER, true));
    assert_eq!(files.run(&file, 8 * CLUSTER), (u64::MAX, false));
}
