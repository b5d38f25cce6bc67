//! The kernel's two queues, and the memory that it works on.
//!
//! The one place with unsafe code: handing the kernel an address, and the promises that memory is there.
//! Its rule is that a buffer is owned here, and not looked at, from then until the
//! kernel has said that it is done with it; also when the queue is dropped or forgotten.

mod buffers;

use std::fmt::Debug;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use nix::libc::iovec;

use super::{AlignedBuf, Direction, FileStorage};
#[cfg(feature = "test-utils")]
pub use buffers::SharedBuf;
pub use buffers::{LentMemory, Memory, StableBuf};

/// Transfers of files, each known by a number below the depth.
pub(super) struct Queue<B: StableBuf> {
    kernel: IoUring,
    held: Vec<Option<Held<B>>>,
    in_flight: usize,
    /// What the kernel makes readable when something has ended.
    event: Option<OwnedFd>,
    #[cfg(feature = "test-utils")]
    fails: bool,
}

/// What the kernel works with.
struct Held<B> {
    /// What it may write to or read from.
    buffer: B,
    /// Where the slices of the buffer are, if there are more than one.
    #[expect(dead_code, reason = "the kernel reads it")]
    slices: Box<[iovec]>,
    #[expect(dead_code, reason = "open while the kernel has it")]
    file: Arc<FileStorage>,
}

impl<B: StableBuf> Queue<B> {
    /// A queue of `depth` transfers, which are at least one.
    pub(super) fn new(depth: u32) -> io::Result<Self> {
        // Completions are looked at by the thread that waits for them: it need not be interrupted.
        let kernel = IoUring::builder()
            .setup_coop_taskrun()
            .build(depth)
            .or_else(|_| IoUring::new(depth))
            .map_err(explained)?;
        Ok(Self {
            kernel,
            held: (0..depth).map(|_| None).collect(),
            in_flight: 0,
            event: None,
            #[cfg(feature = "test-utils")]
            fails: false,
        })
    }

    /// From now on the kernel cannot be asked any more.
    #[cfg(feature = "test-utils")]
    pub(super) fn fail(&mut self) {
        self.fails = true;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues a transfer under a number that no other one in flight has.
    pub(super) fn push(
        &mut self,
        number: usize,
        file: &Arc<FileStorage>,
        direction: Direction,
        mut buffer: B,
        part: Range<usize>,
        offset: u64,
    ) {
        let slot = &mut self.held[number];
        assert!(slot.is_none(), "the number is free");
        let mut slices = Vec::new();
        buffer.each_slice(part, &mut |slice| {
            if slices.len() < MAX_SLICES {
                slices.push(iovec { iov_base: slice.address().cast(), iov_len: slice.len() });
            }
        });
        let slices = slices.into_boxed_slice();
        let fd = Fd(file.fd.as_raw_fd());
        let entry = match (direction, &*slices) {
            (Direction::Read, [one]) => {
                let len = u32::try_from(one.iov_len).unwrap_or(MAX_BYTES).min(MAX_BYTES);
                opcode::Read::new(fd, one.iov_base.cast(), len).offset(offset).build()
            }
            (Direction::Write, [one]) => {
                let len = u32::try_from(one.iov_len).unwrap_or(MAX_BYTES).min(MAX_BYTES);
                opcode::Write::new(fd, one.iov_base.cast_const().cast(), len).offset(offset).build()
            }
            (Direction::Read, more) => {
                let count = u32::try_from(more.len()).expect("at most 1024");
                opcode::Readv::new(fd, more.as_ptr(), count).offset(offset).build()
            }
            (Direction::Write, more) => {
                let count = u32::try_from(more.len()).expect("at most 1024");
                opcode::Writev::new(fd, more.as_ptr(), count).offset(offset).build()
            }
        };
        // From here on the bytes are the kernel's. Moving the buffer does not move them.
        *slot = Some(Held { buffer, slices, file: Arc::clone(file) });
        self.in_flight += 1;
        self.push_entry(&entry.user_data(number as u64));
        if self.kernel.submission().len() >= BATCH {
            // What the kernel does not take now is told when somebody waits.
            drop(self.kernel.submit());
        }
    }

    #[expect(unsafe_code, reason = "the kernel is handed an address")]
    fn push_entry(&mut self, entry: &squeue::Entry) {
        // SAFETY: The entry names an open file, and slices of a buffer, or a list of them on the heap;
        // `push` has moved all three into `self.held`. The buffer's bytes stay valid where the slices say
        // while it is owned there: `StableBuf` promises it. It leaves `self.held` in
        // `ended` alone, after the kernel's completion for its number, of which there is one per
        // entry. If `self` is dropped, `drop` waits for all completions, or leaks the buffers; if it
        // is forgotten, they are leaked with it.
        let pushed = unsafe { self.kernel.submission().push(entry) };
        pushed.expect("the queue has an entry for each buffer, and one in flight has left it");
    }

    /// Tells the kernel what was pushed, and waits until something has ended. After an error what is in
    /// flight is so still: the kernel may have been told of it, and may go on with it.
    pub(super) fn submit_and_wait(&mut self) -> io::Result<bool> {
        loop {
            match self.tell(1) {
                Ok(()) => return Ok(true),
                // No memory for it now: what has ended gives some back, or others do.
                Err(error) if is_passing(&error) => {
                    if !self.kernel.completion().is_empty() {
                        return Ok(true);
                    }
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Queue::submit_and_wait`] without waiting: whether something has ended.
    pub(super) fn submit(&mut self) -> io::Result<bool> {
        let is_told = match self.tell(0) {
            Ok(()) => true,
            Err(error) if is_passing(&error) => false,
            Err(error) => return Err(error),
        };
        if self.kernel.completion().is_empty() {
            // What ends from here on makes it readable again.
            self.clear_event()?;
            if !is_told {
                // The kernel does not say when it has memory again.
                self.wake()?;
            }
        }
        Ok(!self.kernel.completion().is_empty())
    }

    /// Tells the kernel what was pushed, and waits for so many to end.
    fn tell(&mut self, wanted: usize) -> io::Result<()> {
        #[cfg(feature = "test-utils")]
        if self.fails {
            return Err(io::ErrorKind::Other.into());
        }
        loop {
            match self.kernel.submit_and_wait(wanted) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What becomes readable when something ends.
    pub(super) fn event(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.event.is_none() {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            self.kernel.submitter().register_eventfd(event.as_raw_fd())?;
            self.event = Some(event);
            // What has ended before was not told.
            self.wake()?;
        }
        Ok(self.event.as_ref().expect("made above").as_fd())
    }

    /// Makes it readable.
    pub(super) fn wake(&self) -> io::Result<()> {
        let Some(event) = &self.event else { return Ok(()) };
        match rustix::io::write(event, &1_u64.to_ne_bytes()) {
            // It is as readable as it can be.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it unreadable until something ends.
    pub(super) fn clear_event(&self) -> io::Result<()> {
        let Some(event) = &self.event else { return Ok(()) };
        match rustix::io::read(event, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A transfer that has ended: its number, its buffer, and the bytes that were moved.
    pub(super) fn ended(&mut self) -> Option<(usize, B, io::Result<usize>)> {
        loop {
            let entry = self.kernel.completion().next()?;
            let number = usize::try_from(entry.user_data()).ok();
            let held = number.and_then(|number| self.held.get_mut(number)).and_then(Option::take);
            // The kernel gives back the numbers it was given, each once.
            let (Some(number), Some(Held { buffer, .. })) = (number, held) else { continue };
            self.in_flight -= 1;
            let moved = usize::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            return Some((number, buffer, moved));
        }
    }
}

/// So many transfers are told to the kernel without waiting for more: while a longer batch is made
/// ready the device has nothing to do, and in a shorter one fewer neighbours become one request.
const BATCH: usize = 8;
/// The most slices that one call of the kernel takes (`IOV_MAX`); the rest of a transfer follows.
const MAX_SLICES: usize = 1024;
/// The most bytes that one call of the kernel moves, less than 2 GiB.
const MAX_BYTES: u32 = 1 << 30;

impl<B: StableBuf> Drop for Queue<B> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.submit_and_wait().is_err() {
                // Nothing tells when the kernel is done: it gets to keep the memory.
                mem::forget(mem::take(&mut self.held));
                return;
            }
            while self.ended().is_some() {}
        }
    }
}

impl<B: StableBuf> Debug for Queue<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
}

/// Says what is missing rather than which call failed.
fn explained(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("io_uring cannot be used here: {error}"))
}
