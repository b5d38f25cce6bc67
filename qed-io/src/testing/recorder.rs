//! A storage that logs what changes the one below it, in order.
//!
//! Owns the log and its meaning for a replayer; decides nothing and disturbs nothing.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::locked;
use crate::memory::MemoryStorage;
use crate::storage::Storage;

/// Logs every write, truncation, punch, discard and flush that it passes on.
///
/// One counter numbers all submissions and completions, so the log says which operations were in
/// flight together, and which writes were complete when a flush was submitted: the only ones it
/// covers. Together with the bytes at the start, the log holds all that is needed to build what
/// the storage may contain after a crash at any moment.
///
/// ```
/// use std::sync::Arc;
/// use qed_io::{MemoryStorage, Recorder, Storage};
///
/// # fn main() -> std::io::Result<()> {
/// let recorder = Recorder::new(Arc::new(MemoryStorage::new(vec![0; 8])));
/// recorder.write_at(b"new", 2)?;
/// recorder.flush()?;
///
/// let mut replayed = vec![0; 8];
/// for record in recorder.records() {
///     record.operation.apply_to(&mut replayed);
/// }
/// assert_eq!(replayed, b"\0\0new\0\0\0");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Recorder {
    inner: Arc<dyn Storage>,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    next: u64,
    /// In the order of submission.
    records: Vec<Record>,
}

/// One operation in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Order number of its start.
    pub submitted: u64,
    /// Its end; `None` while it is in flight.
    pub completion: Option<Completion>,
    /// What was asked for.
    pub operation: Operation,
}

/// How and when an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Order number of its end.
    pub order: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// A punch or discard that the storage cannot do; nothing changed.
    Declined,
    /// It failed. A write may have reached any part of its range; a flush may have lost anything
    /// since the last good one.
    Failed(io::ErrorKind),
}

/// A change of the storage, with all it takes to repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Bytes were written.
    Write {
        /// Bytes from the start of the storage.
        offset: u64,
        /// What was written there.
        bytes: Arc<[u8]>,
    },
    /// A range was made to read as zeros, growing the storage if it lay past the end.
    WriteZeroes(Range<u64>),
    /// The space of a range was to be given back; the part inside the length reads as zeros.
    PunchHole(Range<u64>),
    /// The space of a range was to be given back; the part inside the length reads as anything.
    Discard(Range<u64>),
    /// The length was set, in bytes.
    SetLen(u64),
    /// What was complete at submission was made durable.
    Flush,
}

impl Operation {
    /// Repeats the operation, as if carried out in full, on an image in memory.
    ///
    /// # Panics
    /// If the image would not fit in memory.
    pub fn apply_to(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let start = to_index(*offset);
                grow(image, start + bytes.len());
                image[start..start + bytes.len()].copy_from_slice(bytes);
            }
            Self::WriteZeroes(range) if range.is_empty() => {}
            Self::WriteZeroes(range) => {
                grow(image, to_index(range.end));
                image[to_index(range.start)..to_index(range.end)].fill(0);
            }
            Self::PunchHole(range) => fill_inside(image, range, 0),
            Self::Discard(range) => fill_inside(image, range, MemoryStorage::DISCARDED),
            Self::SetLen(len) => image.resize(to_index(*len), 0),
            Self::Flush => {}
        }
    }
}

impl Recorder {
    /// Records what happens to `inner` from now on.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, log: Mutex::default() }
    }

    /// A copy of the log so far, in the order of submission.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        locked(&self.log).records.clone()
    }

    /// Takes the next order number without an operation, to place an event of the test, such as
    /// an acknowledgement to a guest, among the records.
    pub fn tick(&self) -> u64 {
        locked(&self.log).tick()
    }

    fn record<T>(
        &self,
        operation: Operation,
        call: impl FnOnce() -> io::Result<T>,
        outcome: impl FnOnce(&T) -> Outcome,
    ) -> io::Result<T> {
        let index = {
            let mut log = locked(&self.log);
            let submitted = log.tick();
            log.records.push(Record { submitted, completion: None, operation });
            log.records.len() - 1
        };
        let result = call();
        let outcome = match &result {
            Ok(done) => outcome(done),
            Err(error) => Outcome::Failed(error.kind()),
        };
        let mut log = locked(&self.log);
        let order = log.tick();
        log.records[index].completion = Some(Completion { order, outcome });
        result
    }
}

impl Log {
    fn tick(&mut self) -> u64 {
        let now = self.next;
        self.next += 1;
        now
    }
}

impl Storage for Recorder {
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let operation = Operation::Write { offset, bytes: buf.into() };
        self.record(operation, || self.inner.write_at(buf, offset), |()| Outcome::Done)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.record(Operation::SetLen(len), || self.inner.set_len(len), |()| Outcome::Done)
    }

    fn flush(&self) -> io::Result<()> {
        self.record(Operation::Flush, || self.inner.flush(), |()| Outcome::Done)
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        let operation = Operation::WriteZeroes(range.clone());
        self.record(operation, || self.inner.write_zeroes(range), |()| Outcome::Done)
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        let operation = Operation::PunchHole(range.clone());
        let outcome = |&punched: &bool| if punched { Outcome::Done } else { Outcome::Declined };
        self.record(operation, || self.inner.punch_hole(range), outcome)
    }

    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        let operation = Operation::Discard(range.clone());
        let outcome = |&given: &bool| if given { Outcome::Done } else { Outcome::Declined };
        self.record(operation, || self.inner.discard(range), outcome)
    }

    crate::forward_storage!(inner: len read_at run_at growth lock);
}

fn grow(image: &mut Vec<u8>, len: usize) {
    if image.len() < len {
        image.resize(len, 0);
    }
}

fn fill_inside(image: &mut [u8], range: &Range<u64>, byte: u8) {
    let end = range.end.min(image.len() as u64);
    if range.start < end {
        image[to_index(range.start)..to_index(end)].fill(byte);
    }
}

fn to_index(offset: u64) -> usize {
    usize::try_from(offset).expect("a recorded test image fits in memory")
}
