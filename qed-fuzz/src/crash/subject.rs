//! One engine for everything that a crash may interrupt: a subject says what the file is, what is done
//! to it, how the next program goes on and what must hold; the engine builds each state in between.
//!
//! Knows no format.

use std::collections::HashSet;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use qed_core::{GivenBacking, RawFile, VirtualDisk};
use qed_io::{MemoryStorage, Operation, Record, Recorder, Storage};

use super::states::crash_points;
use crate::sparse::{SparseContent, SparseStorage};

/// What a crash happens to, and what must hold afterwards.
pub trait Subject {
    /// What a state turns out to be.
    type Kind;

    /// The file before anything is done.
    fn make(&self) -> SparseContent;

    /// What is interrupted.
    ///
    /// # Errors
    /// It failed, undisturbed.
    fn run(&self, storage: Arc<dyn Storage>) -> Result<(), String>;

    /// What the next program does with the file, to finish or to go on.
    ///
    /// # Errors
    /// It failed.
    fn recover(&self, storage: Arc<dyn Storage>) -> Result<(), String>;

    /// Judges a state.
    ///
    /// # Errors
    /// What is wrong with it.
    fn judge(&self, state: &CrashState) -> Result<Self::Kind, String>;

    /// Whether a sector may hold garbage that was being written.
    fn tears(&self, _sector: u64) -> bool {
        false
    }
}

/// A state that a crash may leave.
#[derive(Debug, Clone)]
pub struct CrashState {
    /// The file.
    pub content: SparseContent,
    /// How many records were submitted before.
    pub position: usize,
    /// The run is over: what it did is durable.
    pub is_over: bool,
}

impl CrashState {
    /// The file as a storage.
    #[must_use]
    pub fn disk(&self) -> Arc<SparseStorage> {
        disk_of(&self.content)
    }
}

/// Calls `visit` with each state of a run of `subject`, of crash points with more than `most` with a
/// sample.
///
/// # Errors
/// The first of `visit`, with the number of the crash point.
pub fn each_state<S: Subject + ?Sized>(
    subject: &S,
    run: &[Record],
    most: u64,
    visit: &mut dyn FnMut(CrashState) -> Result<(), String>,
) -> Result<(), String> {
    let points = crash_points(&subject.make(), run);
    let last = points.len() - 1;
    for (number, point) in points.into_iter().enumerate() {
        let position = point.position;
        let mut outcome = Ok(());
        point.with_garbage(|sector| subject.tears(sector)).for_each_state(most, |content| {
            if outcome.is_ok() {
                outcome = visit(CrashState { content, position, is_over: number == last });
            }
        });
        outcome.map_err(|problem| format!("crash point {number}: {problem}"))?;
    }
    Ok(())
}

/// What was met already.
#[derive(Debug, Default)]
pub struct Seen(HashSet<u64>);

impl Seen {
    /// Adds a state; whether it is new.
    pub fn add(&mut self, content: &SparseContent) -> bool {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        self.0.insert(hasher.finish())
    }

    /// How many states differ.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The run of a subject.
///
/// # Errors
/// Of [`Subject::run`].
pub fn run_of<S: Subject + ?Sized>(subject: &S) -> Result<Vec<Record>, String> {
    recorded(&subject.make(), |storage| subject.run(storage)).map(|(_, run)| run)
}

/// The file after `act`, and what was done to it.
///
/// # Errors
/// Those of `act`.
pub fn recorded(
    start: &SparseContent,
    act: impl FnOnce(Arc<dyn Storage>) -> Result<(), String>,
) -> Result<(SparseContent, Vec<Record>), String> {
    let disk = disk_of(start);
    let recorder = Arc::new(Recorder::new(disk.clone()));
    act(recorder.clone())?;
    Ok((disk.content(), recorder.records()))
}

/// Where the flushes of a run are.
#[must_use]
pub fn flushes(run: &[Record]) -> Vec<usize> {
    (0..run.len()).filter(|place| run[*place].operation == Operation::Flush).collect()
}

/// A run without one of its flushes.
///
/// # Panics
/// If it has not as many.
#[must_use]
pub fn without_flush(run: &[Record], number: usize) -> Vec<Record> {
    let mut run = run.to_vec();
    run.remove(flushes(&run)[number]);
    run
}

/// A file with this content.
#[must_use]
pub fn disk_of(content: &SparseContent) -> Arc<SparseStorage> {
    Arc::new(SparseStorage::new(content.clone()))
}

/// A gate that opens a raw file with these bytes, if there are any.
///
/// # Panics
/// Never: memory can be read.
#[must_use]
pub fn raw_backing(bytes: Option<&Vec<u8>>) -> GivenBacking {
    GivenBacking(bytes.map(|bytes| -> Arc<dyn VirtualDisk> {
        let storage = Arc::new(MemoryStorage::new(bytes.clone()));
        Arc::new(RawFile::open(storage).expect("a file in memory"))
    }))
}

/// Whether a disk reads as it must.
///
/// # Errors
/// Where it does not.
pub fn same_disk(found: &[u8], expected: &[u8]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("the disk has {} bytes, not {}", found.len(), expected.len()));
    }
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        Some(at) => Err(format!("byte {at:#x} of the disk is lost")),
        None => Ok(()),
    }
}

/// An error and all that caused it.
pub fn told<E: Error>(what: &str) -> impl Fn(E) -> String {
    move |error| {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }
}
