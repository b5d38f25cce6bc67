//! One request between its start and its end: how far it has come.

use qed_core::{ImageError, IoAction};
use qed_io::{AlignedBuf, Direction, FileStorage};
use qed_spec::{GuestOffset, HostOffset};

use crate::surroundings::{Complete, Next, Piece, Surrounded};
use crate::target::{Kept, Part, Patience, Place, Step, Target};

/// One request that was started and has not ended.
pub(crate) struct Work<'i> {
    pub(crate) tag: u64,
    pub(crate) direction: Direction,
    at: GuestOffset,
    /// None while the ring has it.
    buffer: Option<AlignedBuf>,
    /// Bytes that are served.
    done: usize,
    /// A write whose surroundings are not complete.
    surrounded: Option<Surrounded<'i>>,
    under_way: Option<UnderWay<'i>>,
}

/// The transfer that is under way.
enum UnderWay<'i> {
    /// Of so many bytes of the request.
    Served { len: usize, host: HostOffset, kept: Kept<'i> },
    /// Of so many bytes that go around it.
    Around { len: u64, surrounded: Surrounded<'i> },
}

/// What is to be moved for a request.
pub(crate) struct Move<'i> {
    pub(crate) direction: Direction,
    pub(crate) buffer: AlignedBuf,
    pub(crate) part: std::ops::Range<usize>,
    pub(crate) place: Place<'i>,
}

/// Where a request stands.
pub(crate) enum State<'i> {
    Ended,
    /// To be tried again when something else has ended.
    Parked,
    Moves(Move<'i>),
}

impl<'i> Work<'i> {
    pub(crate) fn new(tag: u64, direction: Direction, at: GuestOffset, buffer: AlignedBuf) -> Self {
        let buffer = Some(buffer);
        Self { tag, direction, at, buffer, done: 0, surrounded: None, under_way: None }
    }

    /// Serves what can be served at once, up to a transfer or the end.
    pub(crate) fn go_on(
        &mut self,
        target: Target<'i>,
        file: &'i FileStorage,
        patience: Patience,
    ) -> Result<State<'i>, ImageError> {
        if let Some(surrounded) = self.surrounded.take() {
            return self.complete(surrounded, file);
        }
        let Some(mut buffer) = self.buffer.take() else { return Ok(State::Parked) };
        let state = loop {
            let rest = &mut buffer[self.done..];
            if rest.is_empty() {
                break Ok(State::Ended);
            }
            let at = self.at.checked_add(self.done as u64).unwrap_or(GuestOffset::new(u64::MAX));
            let step = match self.direction {
                Direction::Read => target.read(file, rest, at, patience),
                Direction::Write => target.write(file, rest, at, patience),
            };
            match step {
                Ok(Step::Served(len)) => self.done += len,
                Ok(Step::Busy) => break Ok(State::Parked),
                Ok(Step::Transfer(Part { len, place, kept })) => {
                    self.under_way = Some(UnderWay::Served { len, host: place.host, kept });
                    let (direction, part) = (self.direction, self.done..self.done + len);
                    return Ok(State::Moves(Move { direction, buffer, part, place }));
                }
                Ok(Step::Surrounded(surrounded)) => {
                    self.buffer = Some(buffer);
                    return self.complete(surrounded, file);
                }
                Err(error) => break Err(error),
            }
        };
        self.buffer = Some(buffer);
        state
    }

    /// Reads what goes around a write, or writes it all.
    fn complete(
        &mut self,
        surrounded: Surrounded<'i>,
        file: &'i FileStorage,
    ) -> Result<State<'i>, ImageError> {
        Ok(State::Moves(match surrounded.go_on()? {
            Next::Read(Piece { bytes, part, place }, surrounded) => {
                self.under_way = Some(UnderWay::Around { len: part.len() as u64, surrounded });
                Move { direction: Direction::Read, buffer: bytes, part, place }
            }
            Next::Write(Complete { allocation, bytes, host }) => {
                let len = usize::try_from(allocation.len()).expect("part of the buffer");
                let kept = Kept::Allocation(allocation);
                self.under_way = Some(UnderWay::Served { len, host, kept });
                let (direction, part) = (Direction::Write, 0..bytes.len());
                Move { direction, buffer: bytes, part, place: Place { file, host } }
            }
        }))
    }

    /// Takes in how the transfer ended, and commits what it wrote.
    pub(crate) fn moved(
        &mut self,
        mut buffer: AlignedBuf,
        result: std::io::Result<()>,
    ) -> Result<(), ImageError> {
        let (len, host, kept) = match self.under_way.take() {
            Some(UnderWay::Served { len, host, kept }) => (len, host, kept),
            Some(UnderWay::Around { len, mut surrounded }) => {
                surrounded.moved(buffer, len, result)?;
                self.surrounded = Some(surrounded);
                return Ok(());
            }
            None => return Ok(()),
        };
        let result = match (&kept, result) {
            (Kept::Below(disk, _), Err(_)) => {
                let at = self.at.get() + self.done as u64;
                disk.read_at(&mut buffer[self.done..self.done + len], at).map_err(Into::into)
            }
            (_, result) => result.map_err(|source| {
                let action = match self.direction {
                    Direction::Read => IoAction::ReadData,
                    Direction::Write => IoAction::WriteData,
                };
                ImageError::Io { action, at: host, source }
            }),
        };
        // A buffer made for the transfer ends with it.
        self.buffer.get_or_insert(buffer);
        result?;
        if let Kept::Allocation(allocation) = kept {
            allocation.commit()?;
        }
        self.done += len;
        Ok(())
    }

    /// Whether a transfer to new clusters is under way: others may wait for its end.
    pub(crate) fn is_allocating(&self) -> bool {
        matches!(self.under_way, Some(UnderWay::Served { kept: Kept::Allocation(_), .. }))
    }

    /// Where the transfer that is under way begins.
    #[cfg(test)]
    pub(crate) fn host(&self) -> Option<HostOffset> {
        match &self.under_way {
            Some(UnderWay::Served { host, .. }) => Some(*host),
            _ => None,
        }
    }

    /// The caller's buffer, which is back from the ring.
    pub(crate) fn into_buffer(self) -> AlignedBuf {
        self.buffer.expect("a request ends with its buffer")
    }
}
