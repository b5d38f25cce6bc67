//! A storage that stops a chosen request until the test lets it go.
//!
//! Owns which request is stopped and which thread waits; fails nothing and changes no request.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::locked;
use super::request::{Request, RequestKind, span};
use crate::lock::{ImageLock, LockError};
use crate::storage::{Growth, Storage, StorageRun};

/// How long a request may take to come before the test is told that it never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops chosen requests before the storage below sees them.
///
/// With it a test decides how two threads interleave, instead of hoping for it.
///
/// ```
/// use std::sync::Arc;
/// use qed_io::{Gate, MemoryStorage, RequestKind, Storage};
///
/// let gate = Gate::new(Arc::new(MemoryStorage::new(vec![0; 4])));
/// let held = gate.hold(|request| request.touches(RequestKind::Write, &(0..1)));
/// std::thread::scope(|scope| {
///     scope.spawn(|| gate.write_at(&[1], 0).unwrap());
///     held.wait_until_stopped();
///     // The write to byte 0 is under way and has not happened; others pass it.
///     gate.write_at(&[2], 3).unwrap();
///     let mut bytes = [9; 4];
///     gate.read_at(&mut bytes, 0).unwrap();
///     assert_eq!(bytes, [0, 0, 0, 2]);
///     held.release();
/// });
/// let mut bytes = [9; 4];
/// gate.read_at(&mut bytes, 0).unwrap();
/// assert_eq!(bytes, [1, 0, 0, 2]);
/// ```
pub struct Gate {
    inner: Arc<dyn Storage>,
    shared: Arc<Shared>,
}

/// One request that is stopped, or will be when it comes; dropping it lets the request go.
#[derive(Debug)]
pub struct HeldRequest {
    shared: Arc<Shared>,
    id: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: u64,
    next_id: u64,
    holds: Vec<Hold>,
}

struct Hold {
    id: u64,
    chooses: Box<dyn Fn(&Request) -> bool + Send>,
    /// Whether its request has come; a hold stops one.
    stopped: bool,
}

impl Gate {
    /// Passes everything on to `inner` until a hold is made.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, shared: Arc::default() }
    }

    /// Stops the next request that `chooses` returns true for, until the result is released.
    ///
    /// The predicate must not use the storage.
    #[must_use = "dropping it lets the request go"]
    pub fn hold(&self, chooses: impl Fn(&Request) -> bool + Send + 'static) -> HeldRequest {
        let mut state = locked(&self.shared.state);
        let id = state.next_id;
        state.next_id += 1;
        state.holds.push(Hold { id, chooses: Box::new(chooses), stopped: false });
        HeldRequest { shared: Arc::clone(&self.shared), id }
    }

    /// Waits here if a hold chooses the request.
    fn pass(&self, kind: RequestKind, range: Range<u64>) {
        let mut state = locked(&self.shared.state);
        let request = Request { number: state.requests, kind, range };
        state.requests += 1;
        let mut holds = state.holds.iter_mut();
        let Some(hold) = holds.find(|hold| !hold.stopped && (hold.chooses)(&request)) else {
            return;
        };
        hold.stopped = true;
        let id = hold.id;
        self.shared.changed.notify_all();
        let released = self.shared.changed.wait_while(state, |state| state.hold(id).is_some());
        drop(released.unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn hold(&self, id: u64) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.id == id)
    }
}

impl HeldRequest {
    /// Waits until the request has come and is stopped.
    ///
    /// # Panics
    /// If none comes for a minute, so that a wrong test fails instead of hanging.
    pub fn wait_until_stopped(&self) {
        let state = locked(&self.shared.state);
        let coming = |state: &mut State| state.hold(self.id).is_some_and(|hold| !hold.stopped);
        let (state, wait) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, coming)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        assert!(!wait.timed_out(), "no request came that the hold chooses");
    }

    /// Whether the request has come and is stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        locked(&self.shared.state).hold(self.id).is_some_and(|hold| hold.stopped)
    }

    /// Lets the request go.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        locked(&self.shared.state).holds.retain(|hold| hold.id != self.id);
        self.shared.changed.notify_all();
    }
}

impl Debug for Gate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Debug for Shared {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Storage for Gate {
    fn len(&self) -> io::Result<u64> {
        self.pass(RequestKind::Len, 0..0);
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.pass(RequestKind::Read, span(offset, buf.len()));
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.pass(RequestKind::Write, span(offset, buf.len()));
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pass(RequestKind::SetLen, 0..len);
        self.inner.set_len(len)
    }

    fn flush(&self) -> io::Result<()> {
        self.pass(RequestKind::Flush, 0..0);
        self.inner.flush()
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.pass(RequestKind::WriteZeroes, range.clone());
        self.inner.write_zeroes(range)
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        self.pass(RequestKind::PunchHole, range.clone());
        self.inner.punch_hole(range)
    }

    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        self.pass(RequestKind::Discard, range.clone());
        self.inner.discard(range)
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.pass(RequestKind::Run, at..at);
        self.inner.run_at(at)
    }

    fn growth(&self) -> Growth {
        self.inner.growth()
    }

    fn lock(&self, lock: ImageLock) -> Result<(), LockError> {
        self.inner.lock(lock)
    }
}
