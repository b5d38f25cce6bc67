//! Whether an open image may be written: until a flush fails, a thread panics where order matters,
//! another host takes the image, or it is closed. Knows nothing of what is written.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use crate::error::ImageError;

const OPEN: u8 = 0;
const STOPPED: u8 = 1;
const CLOSED: u8 = 2;
const TAKEN: u8 = 3;

/// The state of writing, which is never begun again once it has ended.
#[derive(Debug, Default)]
pub(crate) struct Writing(AtomicU8);

impl Writing {
    /// Ends all writing: what the file holds is not known.
    pub(crate) fn stop(&self) {
        self.end(STOPPED);
    }

    /// Ends all writing: somebody else has the image.
    pub(crate) fn is_taken(&self) {
        self.end(TAKEN);
    }

    fn end(&self, why: u8) {
        // What was closed stays closed.
        let _ = self.0.compare_exchange(OPEN, why, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The image is closed.
    pub(crate) fn close(&self) {
        self.0.store(CLOSED, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLOSED
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == OPEN
    }

    /// Why nothing may be written, if that is so.
    pub(crate) fn check(&self) -> Result<(), ImageError> {
        match self.0.load(Ordering::Acquire) {
            OPEN => Ok(()),
            STOPPED => Err(ImageError::WritesStopped),
            TAKEN => Err(ImageError::NotOurs),
            _ => Err(ImageError::Closed),
        }
    }

    /// Stops writing if a panic begins while the watch lives.
    pub(crate) fn watch(&self) -> PanicWatch<'_> {
        PanicWatch { writing: self, was_panicking: thread::panicking() }
    }
}

/// Ends all writing if a panic begins while this lives: entries that were taken for the file are in
/// no list any more, and nobody knows which of them were written.
pub(crate) struct PanicWatch<'a> {
    writing: &'a Writing,
    /// An image that a panic drops is closed like any other.
    was_panicking: bool,
}

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.was_panicking {
            self.writing.stop();
        }
    }
}
