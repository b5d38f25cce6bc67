//! The holes of files, asked for about once a run however the clusters in them are mapped.
//!
//! Knows offsets in files and no mapping.

use qed_io::{RunKind, Storage};

/// First step back from what is known.
const STEP: u64 = 1 << 20;

/// What is known of the files of one chain.
#[derive(Debug, Default)]
pub(super) struct Files<'a>(Vec<File<'a>>);

/// One file: whether it is worth asking, and the last run that it told of.
#[derive(Debug)]
struct File<'a> {
    storage: &'a dyn Storage,
    is_sparse: bool,
    start: u64,
    end: u64,
    kind: RunKind,
    /// How far before a place below `start` to ask: a disk whose clusters lie in descending order
    /// would otherwise ask for each, and have the system walk to the end of the run each time.
    back: u64,
}

impl<'a> Files<'a> {
    /// Bytes of `storage` from `at` of one kind, and whether they are a hole. What cannot be asked
    /// is data.
    pub(super) fn run(&mut self, storage: &'a dyn Storage, at: u64) -> (u64, bool) {
        let known = self.0.iter().position(|file| std::ptr::addr_eq(file.storage, storage));
        let known = known.unwrap_or_else(|| {
            self.0.push(File::new(storage));
            self.0.len() - 1
        });
        self.0[known].run(at)
    }
}

impl<'a> File<'a> {
    fn new(storage: &'a dyn Storage) -> Self {
        let is_sparse = is_sparse(storage);
        Self { storage, is_sparse, start: 0, end: 0, kind: RunKind::Data, back: 0 }
    }

    fn run(&mut self, at: u64) -> (u64, bool) {
        if !self.is_sparse {
            return (u64::MAX, false);
        }
        if !self.knows(at) {
            self.ask(at);
        }
        if self.knows(at) { (self.end - at, self.kind == RunKind::Hole) } else { (u64::MAX, false) }
    }

    fn knows(&self, at: u64) -> bool {
        (self.start..self.end).contains(&at)
    }

    /// Asks for the run at `at`, if it is below what is known from some way before it.
    fn ask(&mut self, at: u64) {
        let back = if at < self.start { self.back } else { 0 };
        self.ask_from(at - back.min(at));
        if self.knows(at) {
            self.back = if back == 0 { STEP } else { back.saturating_mul(2) };
        } else {
            self.back = 0;
            self.ask_from(at);
        }
    }

    fn ask_from(&mut self, from: u64) {
        match self.storage.run_at(from) {
            Ok(run) => {
                (self.start, self.end) = (from, from.saturating_add(run.len));
                self.kind = run.kind;
            }
            Err(_) => self.end = self.start,
        }
    }
}

/// Whether asking pays: QEMU's measure, a tenth of the length and two clusters of 64 KiB that take
/// no space. Every image has a few such bytes, the last cluster if nothing else.
fn is_sparse(storage: &dyn Storage) -> bool {
    let (Ok(len), Ok(stored)) = (storage.len(), storage.allocated_len()) else { return false };
    len / 10 * 9 >= stored && len.saturating_sub(stored) >= 2 * (64 << 10)
}

#[cfg(test)]
mod tests;
