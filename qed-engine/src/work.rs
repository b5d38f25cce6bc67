//! One request between its start and its end: how far it has come.

use qed_core::{ImageError, IoAction};
use qed_io::{AlignedBuf, Direction, FileStorage};
use qed_spec::{GuestOffset, HostOffset};

use crate::target::{Kept, Part, Patience, Step, Target};

/// A request that was started and has not ended.
pub(crate) struct Work<'i> {
    pub(crate) tag: u64,
    pub(crate) direction: Direction,
    at: GuestOffset,
    /// None while the ring has it.
    buffer: Option<AlignedBuf>,
    /// Bytes that are served.
    done: usize,
    /// Bytes of the transfer that is under way, where it begins, and what keeps its place.
    under_way: Option<(usize, HostOffset, Kept<'i>)>,
}

/// What is to be moved for a request.
pub(crate) struct Move {
    pub(crate) buffer: AlignedBuf,
    pub(crate) part: std::ops::Range<usize>,
    pub(crate) host: HostOffset,
}

/// Where a request stands.
pub(crate) enum State {
    Ended,
    /// To be tried again when something else has ended.
    Parked,
    Moves(Move),
}

impl<'i> Work<'i> {
    pub(crate) fn new(tag: u64, direction: Direction, at: GuestOffset, buffer: AlignedBuf) -> Self {
        Self { tag, direction, at, buffer: Some(buffer), done: 0, under_way: None }
    }

    /// Serves what can be served at once, up to a transfer or the end.
    pub(crate) fn go_on(
        &mut self,
        target: Target<'i>,
        file: &FileStorage,
        patience: Patience,
    ) -> Result<State, ImageError> {
        let Some(mut buffer) = self.buffer.take() else { return Ok(State::Parked) };
        let state = loop {
            let rest = &mut buffer[self.done..];
            if rest.is_empty() {
                break Ok(State::Ended);
            }
            let at = self.at.checked_add(self.done as u64).unwrap_or(GuestOffset::new(u64::MAX));
            let step = match self.direction {
                Direction::Read => target.read(rest, at, patience),
                Direction::Write => target.write(file, rest, at, patience),
            };
            match step {
                Ok(Step::Served(len)) => self.done += len,
                Ok(Step::Busy) => break Ok(State::Parked),
                Ok(Step::Transfer(part)) => return Ok(State::Moves(self.begin(part, buffer))),
                Err(error) => break Err(error),
            }
        };
        self.buffer = Some(buffer);
        state
    }

    fn begin(&mut self, part: Part<'i>, buffer: AlignedBuf) -> Move {
        let Part { len, host, instead, kept } = part;
        self.under_way = Some((len, host, kept));
        match instead {
            Some(all) => {
                self.buffer = Some(buffer);
                let part = 0..all.len();
                Move { buffer: all, part, host }
            }
            None => Move { buffer, part: self.done..self.done + len, host },
        }
    }

    /// Takes in how the transfer ended, and commits what it wrote.
    pub(crate) fn moved(
        &mut self,
        buffer: AlignedBuf,
        result: std::io::Result<()>,
    ) -> Result<(), ImageError> {
        // A buffer made for the transfer ends with it.
        self.buffer.get_or_insert(buffer);
        let Some((len, host, kept)) = self.under_way.take() else { return Ok(()) };
        let action = match self.direction {
            Direction::Read => IoAction::ReadData,
            Direction::Write => IoAction::WriteData,
        };
        result.map_err(|source| ImageError::Io { action, at: host, source })?;
        if let Kept::Allocation(allocation) = kept {
            allocation.commit()?;
        }
        self.done += len;
        Ok(())
    }

    /// Whether a transfer to new clusters is under way: others may wait for its end.
    pub(crate) fn is_allocating(&self) -> bool {
        matches!(self.under_way, Some((_, _, Kept::Allocation(_))))
    }

    /// The caller's buffer, which is back from the ring.
    pub(crate) fn into_buffer(self) -> AlignedBuf {
        self.buffer.expect("a request ends with its buffer")
    }
}
