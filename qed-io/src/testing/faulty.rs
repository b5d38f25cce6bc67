//! A storage that fails where a test wants it to.
//!
//! Owns the rules that choose a request and what its failure does; knows no workload.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::locked;
use super::request::{Request, RequestKind, span};
use crate::lock::{ImageLock, LockError};
use crate::storage::{Growth, Storage, StorageRun};

/// Counts what is asked of the storage below it and makes chosen requests fail.
///
/// To see how a workload takes every single failure: run it once to count its requests, then once
/// for each number with that request failing.
///
/// ```
/// use std::sync::Arc;
/// use qed_io::{Fault, Faulty, MemoryStorage, Repeat, RequestKind, Storage};
///
/// let faulty = Faulty::new(Arc::new(MemoryStorage::default()));
/// faulty.fail_when(|request| request.kind == RequestKind::Flush, Fault::Io, Repeat::Once);
/// assert!(faulty.write_at(b"data", 0).is_ok());
/// assert!(faulty.flush().is_err());
/// assert!(faulty.flush().is_ok());
/// assert_eq!((faulty.requests(), faulty.failures()), (3, 1));
/// ```
pub struct Faulty {
    inner: Arc<dyn Storage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requests: u64,
    failures: u64,
    rules: Vec<Rule>,
}

struct Rule {
    chooses: Box<dyn Fn(&Request) -> bool + Send>,
    fault: Fault,
    repeat: Repeat,
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request does nothing and fails with `EIO`.
    ///
    /// A failed flush does not flush the storage below, but what was written can still be read
    /// from it, as after a real one.
    Io,
    /// The request does nothing and fails with `ENOSPC`.
    NoSpace,
    /// A write, write of zeros or punch is carried out for its first bytes, then fails with `EIO`.
    /// As [`Fault::Io`] for others.
    Partial {
        /// How many bytes from the start of the range are changed; capped by the range.
        bytes: u64,
    },
}

/// How often a rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// To the first request it chooses.
    Once,
    /// To every request it chooses.
    Always,
}

impl Faulty {
    /// Passes everything on to `inner` until a rule is added.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// Fails request `number`, counted from 0 since the storage was made, or the next one if that
    /// has passed; with [`Repeat::Always`] every later one too.
    pub fn fail_nth(&self, number: u64, fault: Fault, repeat: Repeat) {
        self.fail_when(move |request| request.number >= number, fault, repeat);
    }

    /// Fails requests that `chooses` returns true for. Of several rules the oldest wins.
    ///
    /// The predicate must not use the storage.
    pub fn fail_when(
        &self,
        chooses: impl Fn(&Request) -> bool + Send + 'static,
        fault: Fault,
        repeat: Repeat,
    ) {
        locked(&self.state).rules.push(Rule { chooses: Box::new(chooses), fault, repeat });
    }

    /// Drops all rules; the counters stay.
    pub fn heal(&self) {
        locked(&self.state).rules.clear();
    }

    /// How many requests came, failed ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        locked(&self.state).requests
    }

    /// How many requests a rule made fail.
    #[must_use]
    pub fn failures(&self) -> u64 {
        locked(&self.state).failures
    }

    /// Counts a request; the fault that a rule has for it.
    fn judge(&self, kind: RequestKind, range: Range<u64>) -> Option<Fault> {
        let mut state = locked(&self.state);
        let request = Request { number: state.requests, kind, range };
        state.requests += 1;
        let index = state.rules.iter().position(|rule| (rule.chooses)(&request))?;
        state.failures += 1;
        let fault = state.rules[index].fault;
        if state.rules[index].repeat == Repeat::Once {
            state.rules.remove(index);
        }
        Some(fault)
    }

    /// For requests that are carried out in full or not at all.
    fn admit(&self, kind: RequestKind, range: Range<u64>) -> io::Result<()> {
        self.judge(kind, range).map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// For requests that can be carried out in part, by `call` on the range it is given.
    fn attempt<T>(
        &self,
        kind: RequestKind,
        range: Range<u64>,
        call: impl FnOnce(Range<u64>) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(fault) = self.judge(kind, range.clone()) else {
            return call(range);
        };
        if let Fault::Partial { bytes } = fault {
            call(range.start..range.end.min(range.start.saturating_add(bytes)))?;
        }
        Err(fault.error())
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Io | Self::Partial { .. } => Errno::IO.into(),
            Self::NoSpace => Errno::NOSPC.into(),
        }
    }
}

impl Debug for Faulty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Storage for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.admit(RequestKind::Len, 0..0)?;
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.admit(RequestKind::Read, span(offset, buf.len()))?;
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.attempt(RequestKind::Write, span(offset, buf.len()), |range| {
            let len = usize::try_from(range.end - range.start).unwrap_or(buf.len());
            self.inner.write_at(&buf[..len], offset)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.admit(RequestKind::SetLen, 0..len)?;
        self.inner.set_len(len)
    }

    fn flush(&self) -> io::Result<()> {
        self.admit(RequestKind::Flush, 0..0)?;
        self.inner.flush()
    }

    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.attempt(RequestKind::WriteZeroes, range, |range| self.inner.write_zeroes(range))
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<bool> {
        self.attempt(RequestKind::PunchHole, range, |range| self.inner.punch_hole(range))
    }

    fn discard(&self, range: Range<u64>) -> io::Result<bool> {
        self.attempt(RequestKind::Discard, range, |range| self.inner.discard(range))
    }

    fn run_at(&self, at: u64) -> io::Result<StorageRun> {
        self.admit(RequestKind::Run, at..at)?;
        self.inner.run_at(at)
    }

    fn growth(&self) -> Growth {
        self.inner.growth()
    }

    fn lock(&self, lock: ImageLock) -> Result<(), LockError> {
        self.inner.lock(lock)
    }
}
