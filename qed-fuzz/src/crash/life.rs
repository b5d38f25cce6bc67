//! The life of a process that has an image open and keeps a pending log, and what it leaves if it dies:
//! the storage as it was written so far, and the words of the log.
//!
//! Notes moments at which it may die; knows nothing of what was done, and judges nothing.

use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use qed_core::{Keeps, Ownership, PendingLost};
use qed_io::{Recorder, Storage};
use qed_pending::{FileId, LogPlace, MIN_SLOTS};

/// The first record of a log: its slots are used again after a few more.
const FIRST_RECORD: u64 = MIN_SLOTS as u64 - 20;

/// What is going on when a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It serves requests.
    Serving,
    /// It flushes, or does what its timer is for.
    Flushing,
    /// It opens the image, where another one may have died before.
    Opening,
    /// It closes the image.
    Closing,
}

impl Phase {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Serving, Self::Flushing, Self::Opening, Self::Closing];

    /// What dies when.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Serving => "dies while it serves",
            Self::Flushing => "dies in a flush",
            Self::Opening => "dies while it opens",
            Self::Closing => "dies while it closes",
        }
    }
}

/// A moment at which a process may die.
#[derive(Debug, Clone)]
pub(crate) struct Death {
    /// Order number of the recorder.
    pub(crate) order: u64,
    pub(crate) phase: Phase,
    pub(crate) words: Words,
}

/// The words of a log, if there is one; most of them are zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Words(Option<(usize, Vec<(usize, u64)>)>);

/// A run of the kernel of a host.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boot(u8);

/// A host, on which one process opens the image after the other.
#[derive(Debug)]
pub(crate) struct Host {
    place: LogPlace,
    boot: Boot,
    /// Processes so far.
    lives: u64,
    keeps: Keeps,
}

/// The storage of one process: it notes moments at which the process may die, and does nothing any more once
/// it has.
#[derive(Debug)]
pub(crate) struct Life {
    storage: Arc<dyn Storage>,
    recorder: Arc<Recorder>,
    place: LogPlace,
    phase: Mutex<Phase>,
    deaths: Arc<Mutex<Vec<Death>>>,
    is_over: AtomicBool,
}

impl Words {
    fn of(place: &LogPlace) -> Self {
        let sparse = |words: Vec<u64>| {
            let stored = words.iter().copied().enumerate().filter(|(_, word)| *word != 0);
            (words.len(), stored.collect())
        };
        Self(place.words().map(sparse))
    }

    fn put(&self, place: &LogPlace) {
        let whole = self.0.as_ref().map(|(len, stored)| {
            let mut words = vec![0; *len];
            stored.iter().for_each(|(index, word)| words[*index] = *word);
            words
        });
        place.put(whole.as_deref());
    }

    /// Whether there are records that may not be durable.
    pub(crate) fn has_records(&self) -> bool {
        let host = Host::with(self, Boot::default());
        host.place.find().is_ok_and(|log| log.is_some_and(|log| !log.go_on().is_empty()))
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        let id = FileId { file: [1, 2], birth: [3, 4] };
        let place = LogPlace::own_small(id, MIN_SLOTS, FIRST_RECORD);
        Self { place, boot: Boot::default(), lives: 0, keeps: Keeps::Owner }
    }

    /// The same host in the same run of its kernel, with a log that a process left.
    pub(crate) fn with(words: &Words, boot: Boot) -> Self {
        // Tokens are random.
        let host = Self { lives: 1 << 32, boot, ..Self::new() };
        words.put(&host.place);
        host
    }

    /// After a start of the system: no log is left, and nobody wants one.
    pub(crate) fn started_anew() -> Self {
        Self { boot: Boot(u8::MAX), lives: 1 << 48, keeps: Keeps::Nothing, ..Self::new() }
    }

    /// The host after a power loss: another run of its kernel, and no log.
    pub(crate) fn started_again(self) -> Self {
        let Boot(number) = self.boot;
        Self { boot: Boot(number + 1), lives: self.lives, ..Self::new() }
    }

    pub(crate) fn boot(&self) -> Boot {
        self.boot
    }

    /// The next process.
    pub(crate) fn next(&mut self) {
        self.lives += 1;
    }

    /// Where the log is.
    pub(crate) fn place(&self) -> &LogPlace {
        &self.place
    }

    pub(crate) fn ownership(&self) -> Ownership<'_> {
        Ownership {
            // Never zeros, which is no boot.
            boot_id: [1, self.boot.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            host_name: b"crash",
            since: self.lives,
            token: NonZeroU64::MIN.saturating_add(self.lives),
            salt: [self.lives, 5],
            log: Some(&self.place),
            keeps: self.keeps,
            lost: PendingLost::Refuse,
            shared: false,
            take_over: false,
        }
    }

    /// The storage of a process.
    pub(crate) fn live(
        &self,
        storage: Arc<dyn Storage>,
        recorder: Arc<Recorder>,
        deaths: Arc<Mutex<Vec<Death>>>,
    ) -> Arc<Life> {
        Arc::new(Life {
            storage,
            recorder,
            place: self.place.clone(),
            phase: Mutex::new(Phase::Opening),
            deaths,
            is_over: AtomicBool::new(false),
        })
    }

    /// A process dies; what it does now, as it is taken apart, has no effect. `end` takes it apart.
    pub(crate) fn dies(&self, life: &Life, end: impl FnOnce()) {
        let words = Words::of(&self.place);
        life.is_over.store(true, Ordering::Release);
        end();
        words.put(&self.place);
    }
}

impl Life {
    /// From here on the process does something else.
    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.note();
    }

    /// The process may die now.
    pub(crate) fn note(&self) {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let mut deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        let words = Words::of(&self.place);
        deaths.push(Death { order: self.recorder.tick(), phase, words });
    }

    /// Does something to the storage.
    fn act<T>(&self, act: impl FnOnce(&dyn Storage) -> io::Result<T>) -> io::Result<T> {
        if self.is_over.load(Ordering::Acquire) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.note();
        let done = act(&*self.storage);
        self.note();
        done
    }
}

impl Storage for Life {
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.act(|storage| storage.write_at(buf, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(|storage| storage.set_len(len))
    }

    fn flush(&self) -> io::Result<()> {
        self.act(|storage| storage.flush())
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.act(|storage| storage.write_zeroes(range))
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        self.act(|storage| storage.punch_hole(range))
    }

    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        self.act(|storage| storage.discard(range))
    }

    qed_io::forward_storage!(storage: len read_at run_at growth lock);
}
