//! The slots of a log: numbered records in a ring, appended by any number of threads without a lock, and
//! let go from its tail.
//!
//! Owns the order of stores. Knows the words of a slot, not what they say: the caller gives them for a
//! number. `tests/interleavings` compiles this file and goes through the orders.

use std::ops::Deref;

use crate::sync::{AtomicU64, Ordering};

/// Words of a slot, the last of which is the number of its record.
pub(crate) const SLOT_WORDS: usize = 8;

/// A ring in `words`: from `first_slot` on are `slots` slots, and word `tail` is the number of the first
/// record that is live.
#[derive(Debug)]
pub(crate) struct Ring<W> {
    words: W,
    tail: usize,
    first_slot: usize,
    slots: u64,
    /// The number of the next record.
    next: AtomicU64,
    /// How many numbers were given out, and how many more were promised: at most `tail` and `slots`.
    promised: AtomicU64,
}

impl<W: Deref<Target = [AtomicU64]>> Ring<W> {
    /// A ring whose next record has the number `next`.
    pub(crate) fn new(words: W, tail: usize, first_slot: usize, slots: u64, next: u64) -> Self {
        let (next, promised) = (AtomicU64::new(next), AtomicU64::new(next));
        Self { words, tail, first_slot, slots, next, promised }
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// Promises room for `count` records; false where so many are live that there is none.
    // spec: QED-PEND-05
    pub(crate) fn promise(&self, count: u64) -> bool {
        let before = self.promised.fetch_add(count, Ordering::AcqRel);
        let fits = before + count <= self.tail() + self.slots;
        if !fits {
            self.give_back(count);
        }
        fits
    }

    /// Takes promises back that no record came for.
    pub(crate) fn give_back(&self, count: u64) {
        self.promised.fetch_sub(count, Ordering::AcqRel);
    }

    /// Appends a record for which room was promised: its words by its number. It counts once this
    /// returns.
    // spec: QED-PEND-01, QED-PEND-02, QED-PEND-09
    pub(crate) fn append(&self, words_of: impl FnOnce(u64) -> [u64; SLOT_WORDS]) {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        let slot = self.slot(number);
        let words = words_of(number);
        let (value, last) = words.split_at(SLOT_WORDS - 1);
        for (word, value) in slot.iter().zip(value) {
            word.store(*value, Ordering::Relaxed);
        }
        // Last: a slot whose number is that of its place holds the whole record.
        slot[SLOT_WORDS - 1].store(last[0], Ordering::Release);
    }

    /// The number that the next record gets: all before it were given out.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// All records before `number` are home. The tail only moves forward.
    // spec: QED-PEND-04, QED-PEND-05
    pub(crate) fn is_home(&self, number: u64) {
        self.words[self.tail].fetch_max(number, Ordering::AcqRel);
    }

    pub(crate) fn tail(&self) -> u64 {
        self.words[self.tail].load(Ordering::Acquire)
    }

    /// Whether half of the room is taken.
    pub(crate) fn is_crowded(&self) -> bool {
        2 * self.next().saturating_sub(self.tail()) > self.slots
    }

    /// Goes on behind record `last`, which a reader found; no thread appends yet.
    pub(crate) fn go_on_behind(&self, last: u64) {
        self.next.store(last + 1, Ordering::Release);
        self.promised.store(last + 1, Ordering::Release);
    }

    /// The words that may hold a live record, with the number that it then has, from the tail on.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u64, [u64; SLOT_WORDS])> {
        let tail = self.tail();
        (0..self.slots).filter_map(move |index| tail.checked_add(index)).map(|number| {
            let slot = self.slot(number);
            let last = slot[SLOT_WORDS - 1].load(Ordering::Acquire);
            let mut words = [0; SLOT_WORDS];
            for (word, stored) in words.iter_mut().zip(slot) {
                *word = stored.load(Ordering::Relaxed);
            }
            words[SLOT_WORDS - 1] = last;
            (number, words)
        })
    }

    fn slot(&self, number: u64) -> &[AtomicU64] {
        let index = usize::try_from(number % self.slots).expect("slots are in memory");
        let start = self.first_slot + index * SLOT_WORDS;
        &self.words[start..start + SLOT_WORDS]
    }
}
