//! An open log: records and the words that say what the file may be, stored before what they tell of.

use qed_io::SharedWords;
use qed_spec::{
    Geometry, GuestCluster, PENDING_BINDING_WORDS, PENDING_HEADER_LEN_BYTES, PENDING_SLOT_WORDS,
    PendingBinding, PendingRecord, PendingWord, entry_in_row,
};

use crate::place::LogPlace;
use crate::ring::Ring;
use crate::sync::{AtomicU64, Ordering};

/// Slots of a log of 4 MiB.
pub const SLOTS: u32 = 65_472;

/// Slots that the log of an image has at least: twice as many as one change may have records, so that one
/// that is not crowded has room for each.
pub const MIN_SLOTS: u32 = 1024;

const HEADER_WORDS: usize = PENDING_HEADER_LEN_BYTES / size_of::<u64>();

/// The log of an image that is open for writing, used by any number of threads.
#[derive(Debug)]
pub struct PendingLog {
    ring: Ring<SharedWords>,
    binding: PendingBinding,
    place: LogPlace,
}

/// Room for records; what is not used is given back when it is dropped.
#[derive(Debug)]
pub struct Room<'l> {
    log: Option<&'l PendingLog>,
    left: u64,
}

/// Words of a log with so many slots.
pub(crate) fn words_of(slots: u32) -> usize {
    let slots = usize::try_from(slots).expect("addresses have 64 bits");
    HEADER_WORDS + slots * PENDING_SLOT_WORDS
}

impl PendingLog {
    /// A new log in words that are all zero, of a file that has `file_len` bytes, and with the number of
    /// its first record.
    pub(crate) fn create(
        words: SharedWords,
        binding: PendingBinding,
        (file_len, first): (u64, u64),
        place: LogPlace,
    ) -> Self {
        let log = Self::over(words, binding, place, first);
        log.set(PendingWord::FileLen, file_len);
        log.set(PendingWord::Tail, first);
        let binding = log.binding.encode();
        for (word, value) in log.ring.words().iter().zip(binding) {
            word.store(value, Ordering::Release);
        }
        log
    }

    /// The log that words hold; none where they do not.
    pub(crate) fn open(words: SharedWords, place: LogPlace) -> Option<Self> {
        let mut found = [0; PENDING_BINDING_WORDS];
        for (value, word) in found.iter_mut().zip(&*words) {
            *value = word.load(Ordering::Acquire);
        }
        let binding = PendingBinding::parse(&found)?;
        // No number is at the end of what numbers there are.
        let is_sound = binding.slots > 0
            && words.len() == words_of(binding.slots)
            && words[PendingWord::Tail.index()].load(Ordering::Acquire) < u64::MAX / 2;
        is_sound.then(|| Self::over(words, binding, place, 1))
    }

    fn over(words: SharedWords, binding: PendingBinding, place: LogPlace, next: u64) -> Self {
        let tail = PendingWord::Tail.index();
        let ring = Ring::new(words, tail, HEADER_WORDS, u64::from(binding.slots), next);
        Self { ring, binding, place }
    }

    /// What the log is bound to.
    #[must_use]
    pub fn binding(&self) -> &PendingBinding {
        &self.binding
    }

    /// A word of the header.
    #[must_use]
    pub fn word(&self, word: PendingWord) -> u64 {
        self.ring.words()[word.index()].load(Ordering::Acquire)
    }

    /// The records that a process left, in order, and from now on appended records follow them.
    ///
    /// A number without a record between others is one whose thread had not acknowledged anything.
    // spec: QED-PEND-09
    #[must_use]
    pub fn go_on(&self) -> Vec<PendingRecord> {
        let salt = self.binding.salt;
        let parsed = self.ring.live().filter_map(|(number, words)| {
            Some((number, PendingRecord::parse(&words, salt, number)?))
        });
        let mut last = self.ring.tail().saturating_sub(1);
        let records = parsed.map(|(number, record)| {
            last = number;
            record
        });
        let records = records.collect();
        self.ring.go_on_behind(last);
        records
    }

    /// Room for `count` records; none before some are let go.
    #[must_use]
    pub fn room(&self, count: u64) -> Option<Room<'_>> {
        // Made only if there is room: one that is dropped gives it back.
        self.ring.promise(count).then(|| Room { log: Some(self), left: count })
    }

    /// Whether so many records wait that a flush should make room.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.ring.is_crowded()
    }

    /// The number of the next record, for [`PendingLog::is_home`]: read before the changes are copied that
    /// are to be made durable.
    // spec: QED-PEND-03
    #[must_use]
    pub fn boundary(&self) -> u64 {
        self.ring.next()
    }

    /// All changes before `boundary` are durable.
    // spec: QED-PEND-04
    pub fn is_home(&self, boundary: u64) {
        self.ring.is_home(boundary);
    }

    /// The file is about to have `len` bytes, or has no more any longer.
    // spec: QED-PEND-08
    pub fn file_has(&self, len: u64) {
        self.set(PendingWord::FileLen, len);
    }

    /// The superblock is about to be written with this generation; 0 where a recovery is about to write
    /// some.
    // spec: QED-PEND-06
    pub fn superblock_is(&self, generation: u64) {
        self.set(PendingWord::Generation, generation);
    }

    /// A flush failed: what the file holds is not known, and the records are no help.
    pub fn stop(&self) {
        self.set(PendingWord::Stopped, 1);
    }

    /// The image is closed, durably: nothing is left to be found.
    pub fn remove(&self) {
        self.place.remove();
    }

    /// Keeps the log aside, where it is found by people and not by programs.
    pub fn set_aside(&self) {
        self.place.set_aside();
    }

    fn set(&self, word: PendingWord, value: u64) {
        let word: &AtomicU64 = &self.ring.words()[word.index()];
        word.store(value, Ordering::Release);
    }
}

impl Room<'_> {
    /// Of an image without a log: nothing is stored.
    #[must_use]
    pub const fn none() -> Self {
        Self { log: None, left: 0 }
    }

    /// Stores that the entries of clusters from `guest` on become the row that begins with `value`, one
    /// for each of `olds`, which are their values now. The caller holds the lock that keeps a flush from
    /// copying them, and publishes them under the same hold.
    ///
    /// # Panics
    /// If there are more runs of old values than there is room for.
    // spec: QED-PEND-01, QED-PEND-02, QED-PEND-03
    pub fn append(
        &mut self,
        guest: GuestCluster,
        value: u64,
        olds: impl Iterator<Item = u64>,
        geometry: Geometry,
    ) {
        let Some(log) = self.log else { return };
        let mut run: Option<PendingRecord> = None;
        for (index, old) in (0..).zip(olds) {
            if let Some(record) = &mut run
                && old == entry_in_row(record.was, u64::from(record.count), geometry)
            {
                record.count += 1;
                continue;
            }
            if let Some(record) = run.take() {
                self.store(log, record);
            }
            let guest = GuestCluster::new(guest.get() + index);
            let value = entry_in_row(value, index, geometry);
            run = Some(PendingRecord { guest, count: 1, value, was: old });
        }
        if let Some(record) = run {
            self.store(log, record);
        }
    }

    fn store(&mut self, log: &PendingLog, record: PendingRecord) {
        self.left = self.left.checked_sub(1).expect("room was asked for each entry");
        log.ring.append(|number| record.encode(log.binding.salt, number));
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.log
            && self.left > 0
        {
            log.ring.give_back(self.left);
        }
    }
}
