//! Many transfers in flight from one thread, by io_uring.
//!
//! Decides which transfer may start and what one that came back short goes on with; `sys` talks to
//! the kernel. Where the calls of [`Storage`] block, as they do past the page cache, a ring keeps
//! the device busy; for what the page cache holds, those calls are faster.

mod sys;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::FileStorage;
use super::aligned::AlignedBuf;
use super::range_locks::{RangeGuard, RangeLocks};
use crate::storage::Storage;
use sys::Queue;

#[cfg(feature = "test-utils")]
pub use sys::SharedBuf;
pub use sys::{LentMemory, Memory, StableBuf};

/// The largest sector that a ring takes: no cluster of an image is smaller, so that two clusters
/// never meet in one.
const MAX_SECTOR_BYTES: u64 = 4096;

/// Transfers between buffers and files that go on at the same time.
///
/// A buffer belongs to the ring from [`Ring::start`] until [`Ring::wait`] gives it back; it may be
/// memory of the caller, see [`StableBuf`]. The
/// contract of each transfer is that of [`Storage::read_at`] and [`Storage::write_at`]; the order in
/// which they end is not defined. While a ring has transfers in flight, its thread may use each
/// [`FileStorage`] for other places of its file, and for making it longer.
///
/// Dropping a ring waits for what is in flight. Should the kernel not say when it is done, because the
/// ring as a whole has failed, the memory and the places in files that it may still use are never
/// given back: [`Ring::settle`].
#[derive(Debug)]
pub struct Ring<B: StableBuf = AlignedBuf> {
    queue: Queue<B>,
    /// By the number that the queue knows a transfer by.
    active: Vec<Option<Active>>,
    waiting: VecDeque<Transfer<B>>,
    done: VecDeque<Transferred<B>>,
    /// Transfers that were given back since the kernel was last asked.
    given: usize,
}

/// What a ring is asked to move.
#[derive(Debug)]
pub struct Transfer<B = AlignedBuf> {
    /// Whatever tells the caller's transfers apart.
    pub tag: u64,
    /// Where the bytes come from or go to.
    pub file: Arc<FileStorage>,
    /// Which way.
    pub direction: Direction,
    /// Owned by the ring until the transfer has ended.
    pub buffer: B,
    /// The bytes of the buffer that are moved.
    pub part: Range<usize>,
    /// Byte of the file that the first of them belongs to.
    pub offset: u64,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the file into the buffer.
    Read,
    /// From the buffer to the file.
    Write,
}

/// A transfer that has ended.
#[derive(Debug)]
pub struct Transferred<B = AlignedBuf> {
    /// What [`Transfer::tag`] was.
    pub tag: u64,
    /// The caller's again.
    pub buffer: B,
    /// All of it was moved, or why not.
    pub result: io::Result<()>,
}

/// What the kernel is working on.
#[derive(Debug)]
struct Active {
    tag: u64,
    file: Arc<FileStorage>,
    direction: Direction,
    /// What is not moved yet.
    part: Range<usize>,
    offset: u64,
    /// Keeps others from rewriting a sector of it with what was there before.
    held: Option<RangeGuard<Arc<RangeLocks>>>,
}

impl FileStorage {
    /// A ring for up to `depth` transfers at a time, for one if that is 0, of this file and of others.
    ///
    /// # Errors
    /// The operating system's: [`io::ErrorKind::PermissionDenied`] where it does not let this
    /// program use io_uring, [`io::ErrorKind::Unsupported`] where it has none.
    pub fn ring<B: StableBuf>(&self, depth: u32) -> io::Result<Ring<B>> {
        if self.direct.as_ref().is_some_and(|direct| direct.sector() > MAX_SECTOR_BYTES) {
            let why = "direct I/O of this file takes sectors of more than 4096 bytes";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let depth = depth.max(1);
        Ok(Ring {
            queue: Queue::new(depth)?,
            active: (0..depth).map(|_| None).collect(),
            waiting: VecDeque::new(),
            done: VecDeque::new(),
            given: 0,
        })
    }

    /// A buffer of zeros that needs no copy on its way to this file or from it.
    #[must_use]
    pub fn buffer(&self, len: usize) -> AlignedBuf {
        AlignedBuf::new(len, self.direct.as_ref().map_or(1, super::direct::DirectIo::memory))
    }
}

impl<B: StableBuf> Ring<B> {
    /// Transfers that were started and not given back by [`Ring::wait`].
    #[must_use]
    pub fn pending(&self) -> usize {
        self.waiting.len() + self.queue.in_flight() + self.done.len()
    }

    /// Starts a transfer, or makes it wait for room.
    ///
    /// # Panics
    /// If the part lies outside the buffer.
    pub fn start(&mut self, transfer: Transfer<B>) {
        let Transfer { part, buffer, .. } = &transfer;
        assert!(part.start <= part.end && part.end <= buffer.len(), "a part of the buffer");
        self.waiting.push_back(transfer);
    }

    /// Waits for a transfer to end; none if there is none.
    ///
    /// # Errors
    /// Only of the ring as a whole, which is of no use then; that of a transfer is its result.
    pub fn wait(&mut self) -> io::Result<Option<Transferred<B>>> {
        self.next(Queue::submit_and_wait)
    }

    /// As [`Ring::wait`], but none if no transfer has ended yet. The kernel is told of those that
    /// were started.
    ///
    /// # Errors
    /// As [`Ring::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<Transferred<B>>> {
        self.next(Queue::submit)
    }

    /// Becomes readable when a transfer ends, for a thread that waits for other things as well; makes it if
    /// nobody has asked before. A thread that finds it readable calls [`Ring::try_wait`] until that gives
    /// none, and only then waits again.
    ///
    /// # Errors
    /// The operating system's.
    pub fn completion_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.queue.event()
    }

    /// Makes [`Ring::completion_fd`] readable.
    ///
    /// # Errors
    /// The operating system's.
    pub fn wake(&self) -> io::Result<()> {
        self.queue.wake()
    }

    /// The next transfer that has ended; `ask` tells the kernel what was pushed, and whether to look
    /// for what has ended.
    fn next(
        &mut self,
        ask: fn(&mut Queue<B>) -> io::Result<bool>,
    ) -> io::Result<Option<Transferred<B>>> {
        loop {
            self.start_waiting();
            // Transfers that need no waiting must not keep the kernel's from being told of.
            let is_due = self.given >= self.active.len() && self.queue.in_flight() > 0;
            if !is_due && let Some(done) = self.done.pop_front() {
                self.given += 1;
                return Ok(Some(done));
            }
            if self.queue.in_flight() == 0 {
                self.queue.clear_event()?;
                return Ok(None);
            }
            self.given = 0;
            if !ask(&mut self.queue)? && self.done.is_empty() {
                return Ok(None);
            }
            while let Some((number, buffer, moved)) = self.queue.ended() {
                self.go_on(number, buffer, moved);
            }
        }
    }

    /// Waits until the kernel is done with everything that it was told to move; what came back short
    /// does not go on. For a caller that gives back what the bytes lie in when the ring has failed.
    ///
    /// # Errors
    /// Of the ring as a whole: nothing tells when the kernel is done. Buffers, and in files the places
    /// of writes past the page cache, are then the kernel's for ever, also when the ring is dropped.
    pub fn settle(&mut self) -> io::Result<()> {
        while self.queue.in_flight() > 0 {
            self.queue.submit_and_wait()?;
            while let Some((number, _, _)) = self.queue.ended() {
                self.active[number] = None;
            }
        }
        Ok(())
    }

    /// From now on the ring as a whole fails, and what is in flight stays in flight.
    #[cfg(feature = "test-utils")]
    pub fn fail(&mut self) {
        self.queue.fail();
    }

    /// Starts what waits, in its order, as far as there is room and nothing is in the way.
    fn start_waiting(&mut self) {
        while let Some(transfer) = self.waiting.pop_front() {
            let Err(transfer) = self.try_start(transfer) else { continue };
            self.waiting.push_front(transfer);
            return;
        }
    }

    /// Starts or performs a transfer, or gives it back because others have to end first.
    fn try_start(&mut self, mut transfer: Transfer<B>) -> Result<(), Transfer<B>> {
        let is_idle = self.queue.in_flight() == 0;
        if transfer.part.is_empty() || !may_be_queued(&mut transfer) {
            // What a write holds on its way may be held by this very ring.
            let may_be_performed = is_idle || transfer.direction == Direction::Read;
            return if may_be_performed { self.perform(transfer) } else { Err(transfer) };
        }
        let Some(number) = self.active.iter().position(Option::is_none) else {
            return Err(transfer);
        };
        let range = transfer.offset..transfer.offset + transfer.part.len() as u64;
        let held = match (&transfer.file.direct, transfer.direction) {
            (Some(direct), Direction::Write) if is_idle => Some(direct.hold(&range)),
            (Some(direct), Direction::Write) => match direct.try_hold(&range) {
                Some(held) => Some(held),
                None => return Err(transfer),
            },
            _ => None,
        };
        // The file may have been cut a moment ago. What is past its end must not be held on its way:
        // who makes it longer waits for that, and may be this very thread.
        if transfer.direction == Direction::Write
            && transfer.file.len().map_or(true, |len| len < range.end)
        {
            drop(held);
            return if is_idle { self.perform(transfer) } else { Err(transfer) };
        }
        let Transfer { tag, file, direction, buffer, part, offset } = transfer;
        let active = Active { tag, file, direction, part, offset, held };
        self.queue_up(number, active, buffer);
        Ok(())
    }

    fn perform(&mut self, transfer: Transfer<B>) -> Result<(), Transfer<B>> {
        let Transfer { tag, file, direction, mut buffer, part, offset } = transfer;
        let result = match direction {
            Direction::Read => buffer.fill_part(part, |bytes| file.read_at(bytes, offset)),
            Direction::Write => buffer.read_part(part, |bytes| file.write_at(bytes, offset)),
        };
        self.done.push_back(Transferred { tag, buffer, result });
        Ok(())
    }

    fn queue_up(&mut self, number: usize, active: Active, buffer: B) {
        let Active { file, direction, part, offset, .. } = &active;
        self.queue.push(number, file, *direction, buffer, part.clone(), *offset);
        self.active[number] = Some(active);
    }

    /// What the kernel said of a transfer: it has ended, or the rest of it follows.
    fn go_on(&mut self, number: usize, mut buffer: B, moved: io::Result<usize>) {
        let Some(mut active) = self.active[number].take() else { return };
        let moved = match moved {
            Err(error) if is_to_be_repeated(&error) => Ok(0),
            Ok(0) => Err(match active.direction {
                Direction::Read => io::ErrorKind::UnexpectedEof.into(),
                Direction::Write => io::ErrorKind::WriteZero.into(),
            }),
            other => other,
        };
        let moved = moved.map(|moved| moved.min(active.part.len()));
        if let Ok(moved) = moved {
            active.part.start += moved;
            active.offset += moved as u64;
        }
        let result = moved.and_then(|_| active.check_rest(&mut buffer));
        if result.is_ok() && !active.part.is_empty() {
            return self.queue_up(number, active, buffer);
        }
        drop(active.held);
        self.done.push_back(Transferred { tag: active.tag, buffer, result });
    }
}

impl<B: StableBuf> Drop for Ring<B> {
    fn drop(&mut self) {
        if self.settle().is_err() {
            // Others must not write where the kernel may.
            mem::forget(mem::take(&mut self.active));
        }
    }
}

impl Active {
    /// Part of a sector is what the end of the file leaves; asking on from there would be an
    /// unaligned request.
    fn check_rest(&self, buffer: &mut impl StableBuf) -> io::Result<()> {
        let is_over = self.part.is_empty();
        if is_over || is_taken(&self.file, buffer, &self.part, self.offset) {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Whether the kernel takes the transfer as it is: what is not aligned goes through the calls of
/// [`Storage`], and so does what cannot be done at all.
fn may_be_queued(transfer: &mut Transfer<impl StableBuf>) -> bool {
    let file = &transfer.file;
    let end = transfer.offset.checked_add(transfer.part.len() as u64);
    if end.is_none_or(|end| i64::try_from(end).is_err()) {
        return false;
    }
    let is_permitted = match transfer.direction {
        Direction::Read => true,
        Direction::Write => file.for_writing().is_ok(),
    };
    is_permitted && is_taken(file, &mut transfer.buffer, &transfer.part, transfer.offset)
}

/// Whether the alignment of a part of a buffer suits the file.
fn is_taken(
    file: &FileStorage,
    buffer: &mut impl StableBuf,
    part: &Range<usize>,
    offset: u64,
) -> bool {
    let Some(direct) = &file.direct else { return true };
    let (mut at, mut is_taken) = (offset, true);
    buffer.each_slice(part.clone(), &mut |slice| {
        is_taken &= direct.takes(slice.address(), slice.len(), at);
        at += slice.len() as u64;
    });
    is_taken
}

fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_interrupted_or_moved_in_part_goes_on() {
        let file = Arc::new(FileStorage::from_fd(tempfile::tempfile().unwrap()).unwrap());
        file.write_at(&[1, 2, 3, 4], 0).unwrap();
        let cases: [(io::Result<usize>, [u8; 4]); 3] = [
            (Err(io::ErrorKind::Interrupted.into()), [1, 2, 3, 4]),
            (Err(io::ErrorKind::WouldBlock.into()), [1, 2, 3, 4]),
            (Ok(3), [0, 0, 0, 4]),
        ];
        for (moved, want) in cases {
            let mut ring = file.ring(1).unwrap();
            let (direction, part) = (Direction::Read, 0..4);
            let file = Arc::clone(&file);
            ring.active[0] = Some(Active {
                tag: 5,
                file: Arc::clone(&file),
                direction,
                part,
                offset: 0,
                held: None,
            });
            ring.go_on(0, file.buffer(4), moved);
            let done = ring.wait().unwrap().expect("it goes on");
            done.result.unwrap();
            assert_eq!((done.tag, &done.buffer[..]), (5, &want[..]));
        }
    }

    #[test]
    fn a_ring_that_failed_keeps_the_places_that_the_kernel_may_still_write_to() {
        for fails in [false, true] {
            let file = Arc::new(FileStorage::from_fd(tempfile::tempfile().unwrap()).unwrap());
            let locks = Arc::new(RangeLocks::default());
            let mut ring = file.ring(2).unwrap();
            let (direction, part) = (Direction::Write, 0..4);
            let held = Some(RangeGuard::hold(Arc::clone(&locks), 0..4));
            let active =
                Active { tag: 5, file: Arc::clone(&file), direction, part, offset: 0, held };
            ring.queue_up(0, active, file.buffer(4));
            if fails {
                ring.fail();
                ring.wait().unwrap_err();
            }
            drop(ring);
            assert_eq!(RangeGuard::try_hold(&*locks, 3..9).is_none(), fails);
            assert!(RangeGuard::try_hold(&*locks, 4..9).is_some());
        }
    }
}
