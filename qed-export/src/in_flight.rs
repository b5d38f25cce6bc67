//! Reads and writes of a disk that go on while the thread that asked does something else. Owns what a
//! server sees of an engine; which disks have one is theirs to say.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qed_engine::{Direction, Engine, EngineRequest};
use qed_io::{LentMemory, StableBuf};
use qed_spec::ErrorKind;

use crate::device::{DeviceError, check_range};

/// Many requests to one disk from one thread, for disks whose calls would block: those whose files are used
/// past the page cache.
///
/// What ended is durable after the disk's next flush. Dropping it waits for what is in flight.
#[derive(Debug)]
pub struct InFlight {
    engine: Engine<LentMemory>,
    /// Bytes of the disk, if the engine does not know them.
    size: Option<Arc<AtomicU64>>,
    refused: VecDeque<Ended>,
    pending: usize,
}

/// A read or a write.
#[derive(Debug)]
pub struct Transfer {
    /// Whatever tells the caller's requests apart.
    pub tag: u64,
    /// Which way the bytes go.
    pub direction: Direction,
    /// First byte of the disk.
    pub at: u64,
    /// As many bytes as are moved; given up when the transfer has ended.
    pub memory: LentMemory,
}

/// A transfer that has ended.
#[derive(Debug)]
pub struct Ended {
    /// What [`Transfer::tag`] was.
    pub tag: u64,
    /// All of it was moved, or why not. Part of a write may then be on the disk.
    pub result: Result<(), DeviceError>,
}

impl InFlight {
    /// What an engine gives; `size` is that of a raw disk, past which nothing is to be moved. None where
    /// io_uring cannot be used: calls that block serve as well, one after the other.
    pub(crate) fn of(
        engine: io::Result<Engine<LentMemory>>,
        size: Option<Arc<AtomicU64>>,
    ) -> Result<Option<Self>, DeviceError> {
        match engine {
            Ok(engine) => Ok(Some(Self { engine, size, refused: VecDeque::new(), pending: 0 })),
            Err(error) => match error.kind() {
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::Unsupported
                | io::ErrorKind::InvalidInput => Ok(None),
                _ => Err(DeviceError::of_io(error)),
            },
        }
    }

    /// Transfers that were started and did not end by [`InFlight::try_next`].
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Starts a transfer; what it asks of the disk is judged when it ends.
    pub fn start(&mut self, transfer: Transfer) {
        let Transfer { tag, direction, at, memory } = transfer;
        self.pending += 1;
        let end = self.size.as_ref().map_or(u64::MAX, |size| size.load(Ordering::Acquire));
        match check_range(end, at, memory.len() as u64) {
            Ok(()) => self.engine.start(EngineRequest { tag, direction, at, buffer: memory }),
            Err(error) => self.refused.push_back(Ended { tag, result: Err(error) }),
        }
    }

    /// A transfer that has ended, in any order; none if none has. The kernel is told of those that were
    /// started, so this is called after some were.
    ///
    /// # Errors
    /// Only of all of them: the kernel does not answer.
    pub fn try_next(&mut self) -> Result<Option<Ended>, DeviceError> {
        let ended = match self.refused.pop_front() {
            Some(ended) => Some(ended),
            None => {
                let served = self.engine.try_wait();
                let served = served.map_err(|error| DeviceError::of(ErrorKind::Io, error))?;
                served.map(|served| Ended {
                    tag: served.tag,
                    result: served.result.map_err(DeviceError::from),
                })
            }
        };
        self.pending -= usize::from(ended.is_some());
        Ok(ended)
    }

    /// Readable when [`InFlight::try_next`] may have something: it is called until it gives none before
    /// this is waited for.
    ///
    /// # Errors
    /// The system's, when it is asked for first.
    pub fn completion_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.engine.completion_fd()
    }
}
