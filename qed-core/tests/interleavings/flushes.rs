//! Flushes beside writers that publish in one slice: what was published before a flush began is
//! stored when it has ended, also where an earlier one could not write the slice home. And at every
//! moment what was acknowledged is stored or in the pending log, whose slots are used again.

use qed_journal::DataOrder;
use std::convert::Infallible;

use qed_spec::{Geometry, HostCluster, L2Entry};
use shuttle::thread;

use crate::in_many_orders;
use crate::map::cache::{DirtySlice, L2Cache};
use crate::map::slice::Slice;
use crate::ring::Ring;
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
    log: Ring<Vec<AtomicU64>>,
    /// What each slot had when its writer was told that it is published.
    acknowledged: [AtomicU64; 4],
}

/// Slots of the pending log: fewer than there are writes.
const LOG_SLOTS: u64 = 3;
/// Where the slots of the log begin, behind its tail.
const LOG_START: usize = 1;

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
            log: Ring::new(log_words(), 0, LOG_START, LOG_SLOTS, 1),
            acknowledged: Default::default(),
        })
    }

    fn publish(&self, slice: u64, slot: u64, cluster: u64) {
        while !self.log.promise(1) {
            self.flush();
        }
        let entry = L2Entry::Data(HostCluster::new(cluster).unwrap());
        let how = (DataOrder::Together, self.geometry);
        let mut log = |olds: &mut dyn Iterator<Item = u64>| {
            let was = olds.next().unwrap();
            let value = entry.encode(self.geometry);
            self.log.append(|number| [index(slice, slot), value, was, 0, 0, 0, 0, number]);
        };
        while !self.cache.publish(slice, slot, [entry].into_iter(), how, &mut log) {
            let read = |_| {
                let entries = [0, 1].map(|slot| self.slot(slice, slot).load(Ordering::SeqCst));
                Ok::<_, Infallible>(Slice::new(entries))
            };
            let Ok(()) = self.cache.load(slice, read);
        }
        let acknowledged = &self.acknowledged[index(slice, slot) as usize];
        acknowledged.fetch_max(entry.encode(self.geometry), Ordering::SeqCst);
    }

    /// A request that finds an entry writes in place, and is answered without a record of its own.
    fn finds(&self, slice: u64, slot: u64) {
        let found = self.cache.look(slice, |slice| slice.value(slot)).unwrap_or_default();
        self.acknowledged[index(slice, slot) as usize].fetch_max(found, Ordering::SeqCst);
    }

    /// What the next process finds if this one dies here; each writer's values grow.
    fn survives(&self) {
        let acknowledged: Vec<_> =
            self.acknowledged.iter().map(|value| value.load(Ordering::SeqCst)).collect();
        // Before the table, as what leaves the log is there.
        let mut found = [0; 4];
        for (number, words) in self.log.live() {
            let [place, value, .., stored] = words;
            if stored == number {
                let found = &mut found[place as usize];
                *found = value.max(*found);
            }
        }
        for (place, acknowledged) in acknowledged.into_iter().enumerate() {
            let stored = self.stored[place].load(Ordering::SeqCst);
            let found = found[place].max(stored);
            assert!(found >= acknowledged, "{acknowledged:#x} is lost, {found:#x} is there");
        }
    }

    /// Takes what is dirty and writes it home; whether that succeeded.
    fn flush(&self) -> bool {
        let turn = self.turn.lock().unwrap();
        let logged = self.log.next();
        let taken = self.cache.take_dirty();
        if let Some(journal) = &self.journal {
            journal.lock().unwrap().extend(taken);
            drop(turn);
            // Whoever commits first commits for all.
            let mut committed = journal.lock().unwrap();
            committed.drain(..).for_each(|slice| self.write_home(&slice));
            self.log.is_home(logged);
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
        self.log.is_home(logged);
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
        &self.stored[index(slice, slot) as usize]
    }
}

fn index(slice: u64, slot: u64) -> u64 {
    slice / 16 * 2 + slot
}

/// The words of an empty log, whose first record has the number 1.
fn log_words() -> Vec<AtomicU64> {
    let words = LOG_START + LOG_SLOTS as usize * 8;
    (0..words).map(|index| AtomicU64::new(u64::from(index == 0))).collect()
}

/// Each writer has a slot of its own in every slice.
fn write_and_flush(image: &Image, writer: u64) {
    for cluster in 1..=2 {
        for slice in SLICES {
            image.publish(slice, writer, cluster);
            image.survives();
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
    let writers: Vec<_> = writers.collect();
    for (slice, slot) in [(SLICES[0], 0), (SLICES[1], 1), (SLICES[0], 0)] {
        image.finds(slice, slot);
        image.survives();
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    image.flush();
    assert!(image.cache.is_clean());
}

// spec-test: QED-RW-07, QED-PEND-02, QED-PEND-03, QED-PEND-04, QED-PEND-05
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
