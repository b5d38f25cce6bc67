//! A queue and its reads and writes that are with the disk meanwhile, where the disk has a way to have many
//! in flight; else each is performed as it is taken. Belongs to one thread, and knows no line to wake it by.

use std::io;
use std::os::fd::BorrowedFd;

use qed_engine::Direction;

use super::event::wait;
use super::memory::Piece;
use super::perform::{Moved, Outcome};
use super::queue::{Begun, Broken, Queue};
use super::request::Request;
use super::sys::lent;
use crate::device::{BlockDevice, DeviceError};
use crate::in_flight::{Ended, InFlight, Transfer};

/// Memory of this program that what is in flight may take: a disk copies what is not aligned, and what lies
/// around a write that allocates. Beyond it nothing more is taken.
const MAX_BYTES: u64 = 64 << 20;

/// A queue as its thread serves it.
#[derive(Debug)]
pub(super) struct Serving {
    queue: Queue,
    flight: Option<Flight>,
}

/// What is with the disk.
#[derive(Debug)]
struct Flight {
    in_flight: InFlight,
    /// By their heads.
    under_way: Vec<Option<UnderWay>>,
    /// What they may take of this program's memory.
    bytes: u64,
    /// What a write may take beside its bytes.
    around: u64,
}

#[derive(Debug)]
struct UnderWay {
    begun: Begun,
    direction: Direction,
    len: u64,
    bytes: u64,
    /// What a read fills, where that is logged.
    filled: Vec<Piece>,
}

impl Serving {
    pub(super) fn new(queue: Queue) -> Self {
        let flight = Flight::new(queue.device(), queue.size()).unwrap_or_else(|error| {
            tracing::warn!(%error, "a queue has no more than one request with its disk at a time");
            None
        });
        Self { queue, flight }
    }

    pub(super) fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Takes the next request, and performs it or hands it to the disk; none waits, or there is no room for
    /// one, if this is false.
    pub(super) fn begin_next(&mut self) -> Result<bool, Broken> {
        let Some(flight) = &mut self.flight else { return self.queue.serve_next() };
        if flight.is_full() {
            return Ok(false);
        }
        let Some(begun) = self.queue.begin_next()? else { return Ok(false) };
        if flight.has(begun.head) {
            return Err(Broken::OfferedAgain(begun.head));
        }
        if let Some(moved) = self.queue.transfer(begun)
            && flight.takes(&moved)
        {
            flight.start(&self.queue, begun, &moved)?;
            return Ok(true);
        }
        if touches_the_disk(begun.asked.request) {
            // What is in flight holds its place in the image until it has ended here.
            self.settle()?;
        }
        let outcome = self.queue.perform(begun);
        self.queue.finish(begun, outcome)?;
        Ok(true)
    }

    /// Gives back a request that has ended with the disk; none has if this is false.
    pub(super) fn end_next(&mut self) -> Result<bool, Broken> {
        let Some(flight) = &mut self.flight else { return Ok(false) };
        let Some((under_way, outcome)) = flight.end_next()? else { return Ok(false) };
        let UnderWay { begun, filled, .. } = under_way;
        if let Some(log) = self.queue.log() {
            // One that failed may have written some.
            filled.iter().try_for_each(|piece| log.mark(piece.at, u64::from(piece.len)))?;
        }
        self.queue.finish(begun, outcome)?;
        Ok(true)
    }

    /// Waits until nothing is with the disk.
    pub(super) fn settle(&mut self) -> Result<(), Broken> {
        loop {
            while self.end_next()? {}
            match &mut self.flight {
                Some(flight) if flight.in_flight.pending() > 0 => {
                    let ended = flight.in_flight.completion_fd()?;
                    wait(ended, ended, None, None)?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether what is in flight has to end before more is taken.
    pub(super) fn is_full(&self) -> bool {
        self.flight.as_ref().is_some_and(Flight::is_full)
    }

    /// Readable when [`Serving::end_next`] may have something; none where that never has.
    pub(super) fn completion_fd(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.flight.as_mut().map(|flight| flight.in_flight.completion_fd()).transpose()
    }
}

impl Flight {
    fn new(device: &dyn BlockDevice, size: u16) -> Result<Option<Self>, DeviceError> {
        let Some(in_flight) = device.in_flight(u32::from(size))? else { return Ok(None) };
        let under_way = (0..size).map(|_| None).collect();
        // A part of a block at each end.
        let around = u64::from(device.block_sizes().preferred) * 2;
        Ok(Some(Self { in_flight, under_way, bytes: 0, around }))
    }

    fn has(&self, head: u16) -> bool {
        self.under_way.get(usize::from(head)).is_some_and(Option::is_some)
    }

    fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// Whether it is small enough to be in flight; what is performed takes less of this program's memory.
    fn takes(&self, moved: &Moved<'_>) -> bool {
        self.bytes_of(moved) <= MAX_BYTES
    }

    fn bytes_of(&self, moved: &Moved<'_>) -> u64 {
        match moved.direction {
            Direction::Read => moved.len,
            Direction::Write => moved.len.saturating_add(self.around),
        }
    }

    fn start(&mut self, queue: &Queue, begun: Begun, moved: &Moved<'_>) -> Result<(), Broken> {
        let Moved { direction, at, pieces, len } = *moved;
        let (tag, memory) = (u64::from(begun.head), lent(queue.memory(), pieces)?);
        let is_logged = direction == Direction::Read && queue.log().is_some();
        let filled = if is_logged { pieces.to_vec() } else { Vec::new() };
        let bytes = self.bytes_of(moved);
        let place = self.under_way.get_mut(usize::from(begun.head));
        *place.ok_or(Broken::OfferedAgain(begun.head))? =
            Some(UnderWay { begun, direction, len, bytes, filled });
        self.bytes += bytes;
        self.in_flight.start(Transfer { tag, direction, at, memory });
        Ok(())
    }

    fn end_next(&mut self) -> Result<Option<(UnderWay, Outcome)>, Broken> {
        if self.in_flight.pending() == 0 {
            return Ok(None);
        }
        let Some(Ended { tag, result }) = self.in_flight.try_next().map_err(Broken::Disk)? else {
            return Ok(None);
        };
        let place = usize::try_from(tag).ok().and_then(|head| self.under_way.get_mut(head));
        let under_way =
            place.and_then(Option::take).expect("a transfer has the number of its head");
        self.bytes -= under_way.bytes;
        let outcome = Outcome::of_transfer(under_way.direction, under_way.len, result);
        Ok(Some((under_way, outcome)))
    }
}

/// Whether it reads or changes places of the disk. A flush does not: it is for what has ended before.
fn touches_the_disk(request: Request) -> bool {
    match request {
        Request::Flush | Request::Identity | Request::Unknown => false,
        Request::Read { .. } | Request::Write { .. } | Request::Discard | Request::Zero => true,
    }
}
