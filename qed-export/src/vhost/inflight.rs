//! Requests in flight, in memory that the frontend keeps: what a server that died had taken and not given
//! back, its successor does again.
//!
//! The bytes are those of the vhost-user specification for split rings, so that any server can go on where
//! another one ended; behind them is a block of ours, which others leave alone.

use std::cmp::Reverse;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use thiserror::Error;

use super::memory::{MemoryError, Shared, memory_file};
use super::ring::MAX_QUEUE_SIZE;

const VERSION: u16 = 1;
const HEADER: usize = 16;
const STATE: usize = 16;
/// Each queue begins at a cache line.
const ALIGN: usize = 64;
/// What the block of ours begins with.
const MAGIC: u64 = u64::from_le_bytes(*b"qed-vblk");
const OURS: usize = 64;

/// Why a region of requests in flight is not believed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum InflightError {
    #[error("requests in flight of {queues} queues with {size} descriptors")]
    Shape { queues: u16, size: u16 },
    #[error("memory for requests in flight of {found} bytes where {expected} are needed")]
    Length { found: u64, expected: u64 },
    #[error("requests in flight in version {version} for {descriptors} descriptors")]
    Version { version: u16, descriptors: u16 },
    #[error("memory for requests in flight")]
    Memory(#[from] MemoryError),
    #[error("making memory for requests in flight")]
    Make(#[source] io::Error),
}

/// How the region is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    queues: u16,
    size: u16,
}

impl Shape {
    pub(super) fn new(queues: u16, size: u16, most: u16) -> Result<Self, InflightError> {
        if queues == 0 || queues > most || size == 0 || size > MAX_QUEUE_SIZE {
            return Err(InflightError::Shape { queues, size });
        }
        Ok(Self { queues, size })
    }

    pub(super) fn bytes(self) -> u64 {
        (self.ours() + OURS) as u64
    }

    fn queue_bytes(self) -> usize {
        (HEADER + STATE * usize::from(self.size)).next_multiple_of(ALIGN)
    }

    fn ours(self) -> usize {
        self.queue_bytes() * usize::from(self.queues)
    }

    /// A new file for it, all zeros, that nobody can cut.
    pub(super) fn make(self) -> Result<File, InflightError> {
        memory_file(self.bytes()).map_err(InflightError::Make)
    }
}

/// The region of all queues.
#[derive(Debug)]
pub(super) struct Inflight {
    shape: Shape,
    shared: Shared,
}

impl Inflight {
    pub(super) fn new(
        shape: Shape,
        file: File,
        offset: u64,
        len: u64,
    ) -> Result<Self, InflightError> {
        // Others have no block of ours.
        let expected = shape.ours() as u64;
        if len < expected || len > shape.bytes().next_multiple_of(1 << 16) {
            return Err(InflightError::Length { found: len, expected });
        }
        Ok(Self { shape, shared: Shared::new(file, offset, len)? })
    }

    /// The part of one queue; none where the region has fewer.
    pub(super) fn of_queue(self: &Arc<Self>, index: u16) -> Option<QueueInflight> {
        let start = self.shape.queue_bytes() * usize::from(index);
        let (region, size) = (Arc::clone(self), self.shape.size);
        (index < self.shape.queues).then_some(QueueInflight { region, start, size, counter: 0 })
    }

    /// Whether the guest had turned its write cache off, if that was kept.
    pub(super) fn write_cache(&self) -> Option<bool> {
        let ours = self.shape.ours();
        let magic = u64::from_le(self.shared.u64_at(ours)?.load(Ordering::Relaxed));
        let is_on = self.shared.u8_at(ours + 8)?.load(Ordering::Relaxed) != 0;
        (magic == MAGIC).then_some(is_on)
    }

    /// Keeps whether the write cache is on: the driver will not tell the next server.
    pub(super) fn keep_write_cache(&self, is_on: bool) {
        let ours = self.shape.ours();
        let (magic, cache) = (self.shared.u64_at(ours), self.shared.u8_at(ours + 8));
        if let (Some(magic), Some(cache)) = (magic, cache) {
            cache.store(u8::from(is_on), Ordering::Relaxed);
            magic.store(MAGIC.to_le(), Ordering::Release);
        }
    }
}

/// The requests of one queue in flight.
#[derive(Debug)]
pub(super) struct QueueInflight {
    region: Arc<Inflight>,
    start: usize,
    size: u16,
    counter: u64,
}

impl QueueInflight {
    /// The heads that another server took and did not give back, in the order in which it took them, of a
    /// ring whose used index is `used`; none where there was no other before.
    pub(super) fn open(&mut self, size: u16, used: u16) -> Result<Option<Vec<u16>>, InflightError> {
        let found = (self.word(8), self.word(10));
        if found.0 == 0 {
            self.set_word(10, self.size);
            self.set_word(14, used);
            fence(Ordering::Release);
            self.set_word(8, VERSION);
            return Ok(None);
        }
        if found != (VERSION, self.size) || size > self.size {
            return Err(InflightError::Version { version: found.0, descriptors: found.1 });
        }
        if self.word(14) != used {
            // It died between giving one back and noting it.
            self.set_taken(self.word(12), false);
            fence(Ordering::SeqCst);
            self.set_word(14, used);
        }
        let mut left: Vec<_> = (0..size).filter(|head| self.is_taken(*head)).collect();
        left.sort_by_key(|head| Reverse(self.count(*head)));
        self.counter = left.first().map_or(0, |head| self.count(*head).wrapping_add(1));
        left.reverse();
        Ok(Some(left))
    }

    pub(super) fn is_taken(&self, head: u16) -> bool {
        let state = self.region.shared.u8_at(self.state(head));
        state.is_some_and(|state| state.load(Ordering::Relaxed) != 0)
    }

    /// A head is taken from the available ring.
    pub(super) fn taken(&mut self, head: u16) {
        if let Some(count) = self.region.shared.u64_at(self.state(head) + 8) {
            count.store(self.counter.to_le(), Ordering::Relaxed);
        }
        self.counter = self.counter.wrapping_add(1);
        fence(Ordering::Release);
        self.set_taken(head, true);
    }

    /// A head is about to be put into the used ring.
    pub(super) fn returns(&self, head: u16) {
        self.set_word(12, head);
        fence(Ordering::Release);
    }

    /// It is there, and the used index is `used`.
    pub(super) fn returned(&self, head: u16, used: u16) {
        fence(Ordering::SeqCst);
        self.set_taken(head, false);
        fence(Ordering::SeqCst);
        self.set_word(14, used);
    }

    fn set_taken(&self, head: u16, is: bool) {
        if let Some(state) = self.region.shared.u8_at(self.state(head)) {
            state.store(u8::from(is), Ordering::Relaxed);
        }
    }

    fn count(&self, head: u16) -> u64 {
        let count = self.region.shared.u64_at(self.state(head) + 8);
        count.map_or(0, |count| u64::from_le(count.load(Ordering::Relaxed)))
    }

    /// The state of a descriptor; of one that the queue has not, the first.
    fn state(&self, head: u16) -> usize {
        let head = if head < self.size { head } else { 0 };
        self.start + HEADER + usize::from(head) * STATE
    }

    fn word(&self, offset: usize) -> u16 {
        let word = self.region.shared.u16_at(self.start + offset);
        word.map_or(0, |word| u16::from_le(word.load(Ordering::Acquire)))
    }

    fn set_word(&self, offset: usize, value: u16) {
        if let Some(word) = self.region.shared.u16_at(self.start + offset) {
            word.store(value.to_le(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
