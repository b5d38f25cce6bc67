//! The kernel's two queues, and the buffers that it works on.
//!
//! The one place with unsafe code: handing the kernel an address. Its rule is that a buffer is owned
//! here, and not looked at, from then until the kernel has said that it is done with it; also when
//! the queue is dropped or forgotten.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use super::{AlignedBuf, Direction};

/// Transfers of files, each known by a number below the depth.
pub(super) struct Queue<'f> {
    kernel: IoUring,
    /// The files are open at least as long as the queue.
    files: PhantomData<BorrowedFd<'f>>,
    /// What the kernel may write to or read from.
    buffers: Vec<Option<AlignedBuf>>,
    in_flight: usize,
    #[cfg(feature = "test-utils")]
    fails: bool,
}

impl<'f> Queue<'f> {
    /// A queue of `depth` transfers, which are at least one.
    pub(super) fn new(depth: u32) -> io::Result<Self> {
        // Completions are looked at by the thread that waits for them: it need not be interrupted.
        let kernel = IoUring::builder()
            .setup_coop_taskrun()
            .build(depth)
            .or_else(|_| IoUring::new(depth))
            .map_err(explained)?;
        let buffers = (0..depth).map(|_| None).collect();
        Ok(Self {
            kernel,
            files: PhantomData,
            buffers,
            in_flight: 0,
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
        file: BorrowedFd<'f>,
        direction: Direction,
        mut buffer: AlignedBuf,
        part: Range<usize>,
        offset: u64,
    ) {
        let slot = &mut self.buffers[number];
        assert!(slot.is_none(), "the number is free");
        let bytes = &mut buffer[part];
        let len = u32::try_from(bytes.len()).unwrap_or(MAX_BYTES).min(MAX_BYTES);
        let address = bytes.as_mut_ptr();
        let fd = Fd(file.as_raw_fd());
        let entry = match direction {
            Direction::Read => opcode::Read::new(fd, address, len).offset(offset).build(),
            Direction::Write => opcode::Write::new(fd, address, len).offset(offset).build(),
        };
        // From here on the bytes are the kernel's. Moving the buffer does not move them.
        *slot = Some(buffer);
        self.in_flight += 1;
        self.push_entry(&entry.user_data(number as u64));
        if self.kernel.submission().len() >= BATCH {
            // What the kernel does not take now is told when somebody waits.
            drop(self.kernel.submit());
        }
    }

    #[expect(unsafe_code, reason = "the kernel is handed an address")]
    fn push_entry(&mut self, entry: &squeue::Entry) {
        // SAFETY: The entry names an open file (`push` borrows it for longer than `self` lives) and
        // `len` bytes from `address`, which lie in one slice of a buffer that `push` has moved
        // into `self.buffers`. An `AlignedBuf` keeps its bytes on the heap and never reallocates
        // them, so they stay at that address while it is owned there. It leaves `self.buffers` in
        // `ended` alone, after the kernel's completion for its number, of which there is one per
        // entry. If `self` is dropped, `drop` waits for all completions, or leaks the buffers; if it
        // is forgotten, they are leaked with it.
        let pushed = unsafe { self.kernel.submission().push(entry) };
        pushed.expect("the queue has an entry for each buffer, and one in flight has left it");
    }

    /// Tells the kernel what was pushed, and waits until something has ended. After an error what is in
    /// flight is so still: the kernel may have been told of it, and may go on with it.
    pub(super) fn submit_and_wait(&mut self) -> io::Result<()> {
        #[cfg(feature = "test-utils")]
        if self.fails {
            return Err(io::ErrorKind::Other.into());
        }
        loop {
            match self.kernel.submit_and_wait(1) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No memory for it now: what has ended gives some back, or others do.
                Err(error) if is_passing(&error) => {
                    if !self.kernel.completion().is_empty() {
                        return Ok(());
                    }
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A transfer that has ended: its number, its buffer, and the bytes that were moved.
    pub(super) fn ended(&mut self) -> Option<(usize, AlignedBuf, io::Result<usize>)> {
        loop {
            let entry = self.kernel.completion().next()?;
            let number = usize::try_from(entry.user_data()).ok();
            let buffer =
                number.and_then(|number| self.buffers.get_mut(number)).and_then(Option::take);
            // The kernel gives back the numbers it was given, each once.
            let (Some(number), Some(buffer)) = (number, buffer) else { continue };
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
/// The most bytes that one call of the kernel moves, less than 2 GiB.
const MAX_BYTES: u32 = 1 << 30;

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.submit_and_wait().is_err() {
                // Nothing tells when the kernel is done: it gets to keep the memory.
                mem::forget(mem::take(&mut self.buffers));
                return;
            }
            while self.ended().is_some() {}
        }
    }
}

impl std::fmt::Debug for Queue<'_> {
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
