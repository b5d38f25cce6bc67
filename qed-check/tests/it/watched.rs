//! A storage in memory that knows of holes, or of who reads it, or loses what is written.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use qed_io::{MemoryStorage, RunKind, Storage, StorageRun};

use crate::image::Random;

/// Passes everything on but for what it is made to do, and knows which threads have read.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) memory: Arc<MemoryStorage>,
    has_holes: bool,
    loses_writes: bool,
    readers: Mutex<HashSet<ThreadId>>,
}

impl Watched {
    pub(crate) fn new(memory: Arc<MemoryStorage>) -> Self {
        Self { memory, has_holes: false, loses_writes: false, readers: Mutex::default() }
    }

    /// A storage that says of every zero byte that it is a hole. Its runs are as short as they may
    /// be, and end where no table, entry or sector does.
    pub(crate) fn with_holes(memory: Arc<MemoryStorage>) -> Self {
        Self { has_holes: true, ..Self::new(memory) }
    }

    /// A storage that takes every write and forgets it.
    pub(crate) fn losing_writes(memory: Arc<MemoryStorage>) -> Self {
        Self { loses_writes: true, ..Self::new(memory) }
    }

    /// The threads that have read.
    pub(crate) fn readers(&self) -> HashSet<ThreadId> {
        self.readers.lock().unwrap().clone()
    }
}

impl Storage for Watched {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.readers.lock().unwrap().insert(thread::current().id());
        self.memory.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.loses_writes { Ok(()) } else { self.memory.write_at(buf, offset) }
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        if !self.has_holes {
            return self.memory.run_at(at);
        }
        let there = self.len()?.saturating_sub(at).min(1 + Random(at).below(5000));
        let mut bytes = vec![0; usize::try_from(there).unwrap()];
        self.memory.read_at(&mut bytes, at)?;
        let is_hole = bytes.first() == Some(&0);
        let len = bytes.iter().take_while(|byte| (**byte == 0) == is_hole).count() as u64;
        Ok(StorageRun { len, kind: if is_hole { RunKind::Hole } else { RunKind::Data } })
    }

    qed_io::forward_storage!(memory: len set_len flush write_zeroes punch_hole growth lock);
}
