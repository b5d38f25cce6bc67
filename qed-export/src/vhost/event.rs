//! Event descriptors: what wakes a thread, and what a frontend shares to be woken by.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};

/// A descriptor that counts, and can be waited for.
#[derive(Debug)]
pub(super) struct Event(OwnedFd);

impl Event {
    /// A new one.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// One that a frontend sent. No call on it waits from now on.
    pub(super) fn shared(descriptor: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&descriptor)?;
        fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
        Ok(Self(descriptor))
    }

    /// Wakes whoever waits.
    pub(super) fn set(&self) -> io::Result<()> {
        match write(&self.0, &1_u64.to_ne_bytes()) {
            // It counts as far as it can already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back what was counted.
    pub(super) fn clear(&self) {
        // One that is clear already says so.
        let _ = read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which of the descriptors are ready that were waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) first: bool,
    pub(super) second: bool,
    /// The first will never be ready again.
    pub(super) first_is_gone: bool,
}

/// Waits until one of two descriptors is ready, or one `more`, or for `time`.
pub(super) fn wait(
    first: impl AsFd,
    second: impl AsFd,
    more: Option<BorrowedFd<'_>>,
    time: Option<Duration>,
) -> io::Result<Ready> {
    let more = more.unwrap_or(second.as_fd());
    let fd = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut fds = [fd(first.as_fd()), fd(second.as_fd()), fd(more)];
    let time = time.map(|time| Timespec::try_from(time).map_err(io::Error::other)).transpose()?;
    match poll(&mut fds, time.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [first, second, _] = fds.map(|fd| fd.revents());
    Ok(Ready {
        first: first.contains(PollFlags::IN),
        second: !second.is_empty(),
        first_is_gone: !first.is_empty() && !first.contains(PollFlags::IN),
    })
}
