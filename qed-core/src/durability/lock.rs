//! The turn at writing tables and header: one thread has it, and it ends all writing if it panics.
//!
//! Knows nothing of what is written.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::durability::dirty_bits::Marks;

/// Metadata that is not in the file stays so no longer than this, if [`crate::Image::maintain`] is
/// called.
const MAINTAIN_AFTER: Duration = Duration::from_secs(5);

/// What is remembered from one turn at writing tables and header to the next.
#[derive(Debug)]
pub(crate) struct Turn {
    /// When [`crate::Image::maintain`] first found something to do, if no tables were written since.
    waiting_since: Option<Instant>,
    /// The marks of single tables, in compat mode.
    pub(crate) marks: Option<Marks>,
}

impl Turn {
    pub(crate) fn new(marks: Option<Marks>) -> Self {
        Self { waiting_since: None, marks }
    }

    /// When what waits is due, if it began to wait at `now` at the latest.
    pub(crate) fn due(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + MAINTAIN_AFTER
    }

    /// Something was written, or nothing waits: the time runs anew.
    pub(crate) fn wait_anew(&mut self) {
        self.waiting_since = None;
    }

    pub(crate) fn is_unmarked(&self) -> bool {
        self.marks.as_ref().is_none_or(Marks::is_clear)
    }
}

/// The turn, until dropped.
pub(crate) struct TurnGuard<'a> {
    /// First, since fields are dropped in their order: whoever gets the turn after a panic finds
    /// writing ended.
    #[expect(dead_code, reason = "held, never read")]
    watch: PanicWatch<'a>,
    turn: MutexGuard<'a, Turn>,
}

impl<'a> TurnGuard<'a> {
    pub(crate) fn new(turn: MutexGuard<'a, Turn>, stopped: &'a AtomicBool) -> Self {
        Self { watch: PanicWatch::new(stopped), turn }
    }
}

impl Deref for TurnGuard<'_> {
    type Target = Turn;

    fn deref(&self) -> &Turn {
        &self.turn
    }
}

impl DerefMut for TurnGuard<'_> {
    fn deref_mut(&mut self) -> &mut Turn {
        &mut self.turn
    }
}

/// Ends all writing if a panic begins while this lives: entries that were taken for the file are in
/// no list any more, and nobody knows which of them were written.
pub(crate) struct PanicWatch<'a> {
    stopped: &'a AtomicBool,
    /// An image that a panic drops is closed like any other.
    was_panicking: bool,
}

impl<'a> PanicWatch<'a> {
    pub(crate) fn new(stopped: &'a AtomicBool) -> Self {
        Self { stopped, was_panicking: thread::panicking() }
    }
}

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.was_panicking {
            self.stopped.store(true, Ordering::Release);
        }
    }
}
