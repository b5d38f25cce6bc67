//! Flushes beside writers that publish in one slice: what was published before a flush began is
//! stored when it has ended, also where an earlier one could not write the slice home.

use qed_journal::DataOrder;
use std::convert::Infallible;

use qed_spec::{Geometry, HostCluster, L2Entry};
use shuttle::thread;

use crate::in_many_orders;
use crate::map::cache::{DirtySlice, L2Cache};
use crate::map::slice::Slice;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// One shard has both slices, and evicts nothing before it has eight.
const SLICES: [u64; 2] = [0, 16];
const WRITERS: u64 = 2;

/// A cache, the table in the file, and the order of flushes.
struct Image {
    cache: L2Cache,
    geometry: Geometry,
    stored: [AtomicU64; 4],
    /// As the image's own: held while slices are taken and written.
    turn: Mutex<()>,
    /// Writes home that fail before the others succeed.
    failures: AtomicU64,
    journal: Option<Journal>,
}

/// Records that wait for a commit, in the order in which they were submitted.
type Journal = Mutex<Vec<DirtySlice>>;

impl Image {
    fn new(failures: u64, has_journal: bool) -> Arc<Self> {
        Arc::new(Self {
            cache: L2Cache::new(0),
            geometry: Geometry::new(4096, 1).unwrap(),
            stored: Default::default(),
            turn: Mutex::new(()),
            failures: AtomicU64::new(failures),
            journal: has_journal.then(Journal::default),
        })
    }

    fn publish(&self, slice: u64, slot: u64, cluster: u64) {
        let entry = L2Entry::Data(HostCluster::new(cluster).unwrap());
        while !self.cache.publish(
            slice,
            slot,
            [entry].into_iter(),
            DataOrder::Together,
            self.geometry,
        ) {
            let read = |_| {
                let entries = [0, 1].map(|slot| self.slot(slice, slot).load(Ordering::SeqCst));
                Ok::<_, Infallible>(Slice::new(entries))
            };
            let Ok(()) = self.cache.load(slice, read);
        }
    }

    /// Takes what is dirty and writes it home; whether that succeeded.
    fn flush(&self) -> bool {
        let turn = self.turn.lock().unwrap();
        let taken = self.cache.take_dirty();
        if let Some(journal) = &self.journal {
            journal.lock().unwrap().extend(taken);
            drop(turn);
            // Whoever commits first commits for all.
            let mut committed = journal.lock().unwrap();
            committed.drain(..).for_each(|slice| self.write_home(&slice));
            return true;
        }
        let fails = |left: u64| left.checked_sub(1);
        if !taken.is_empty()
            && self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok()
        {
            self.cache.not_written(&taken);
            return false;
        }
        taken.iter().for_each(|slice| self.write_home(slice));
        true
    }

    fn write_home(&self, slice: &DirtySlice) {
        for slot in 0..2 {
            if slice.copy.changed & 1 << slot != 0 {
                let value = slice.copy.entries[slot as usize];
                self.slot(slice.number, slot).store(value, Ordering::SeqCst);
            }
        }
        self.cache.written([slice.number]);
    }

    fn slot(&self, slice: u64, slot: u64) -> &AtomicU64 {
        &self.stored[(slice / 16 * 2 + slot) as usize]
    }
}

/// Each writer has a slot of its own in every slice.
fn write_and_flush(image: &Image, writer: u64) {
    for cluster in 1..=2 {
        for slice in SLICES {
            image.publish(slice, writer, cluster);
        }
        while !image.flush() {}
        for slice in SLICES {
            let stored = image.slot(slice, writer).load(Ordering::SeqCst);
            assert_eq!(stored, cluster << 12, "an entry that was flushed is not stored");
        }
    }
}

fn writers(failures: u64, has_journal: bool) {
    let image = Image::new(failures, has_journal);
    let writers = (0..WRITERS).map(|writer| {
        let image = Arc::clone(&image);
        thread::spawn(move || write_and_flush(&image, writer))
    });
    writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
    image.flush();
    assert!(image.cache.is_clean());
}

// spec-test: QED-RW-07
#[test]
fn a_flush_stores_what_was_published_before_it_began() {
    in_many_orders(|| writers(0, false));
}

// spec-test: QED-RW-07
#[test]
fn a_flush_stores_what_an_earlier_one_could_not_write() {
    in_many_orders(|| writers(1, false));
}

// spec-test: QED-RW-07
#[test]
fn flushes_that_share_a_commit_store_what_was_published_before_them() {
    in_many_orders(|| writers(0, true));
}
