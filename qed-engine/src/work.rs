//! One request between its start and its end: how far it has come.

use std::sync::Arc;

use qed_core::{ImageError, IoAction};
use qed_io::{Direction, FileStorage, Memory, StableBuf};
use qed_spec::{ErrorKind, GuestOffset, HostOffset};

use crate::surroundings::{Complete, Next, Piece, Surrounded};
use crate::target::{Kept, Part, Patience, Place, Rest, Step, Target};

/// One request that was started and has not ended.
pub(crate) struct Work<B> {
    pub(crate) tag: u64,
    pub(crate) direction: Direction,
    at: GuestOffset,
    /// None while the ring has it.
    buffer: Option<B>,
    /// Bytes that are served.
    done: usize,
    /// Space was looked for on its behalf.
    was_starved: bool,
    /// A write whose surroundings are not complete.
    surrounded: Option<Surrounded>,
    under_way: Option<UnderWay>,
}

/// The transfer that is under way.
enum UnderWay {
    /// Of so many bytes of the request.
    Served { len: usize, host: HostOffset, kept: Kept },
    /// Of so many bytes that go around it.
    Around { len: u64, surrounded: Surrounded },
}

/// What is to be moved for a request.
pub(crate) struct Move<B> {
    pub(crate) direction: Direction,
    pub(crate) buffer: Memory<B>,
    pub(crate) part: std::ops::Range<usize>,
    pub(crate) place: Place,
}

/// Where a request stands.
pub(crate) enum State<B> {
    Ended,
    /// To be tried again when something else has ended.
    Parked,
    /// There was no space for it. To be tried again once free space was looked for.
    Starved(ImageError),
    Moves(Move<B>),
}

impl<B: StableBuf> Work<B> {
    pub(crate) fn new(tag: u64, direction: Direction, at: GuestOffset, buffer: B) -> Self {
        let buffer = Some(buffer);
        let (done, was_starved) = (0, false);
        let (surrounded, under_way) = (None, None);
        Self { tag, direction, at, buffer, done, was_starved, surrounded, under_way }
    }

    /// Serves what can be served at once, up to a transfer or the end.
    pub(crate) fn go_on(
        &mut self,
        target: &Target,
        file: &Arc<FileStorage>,
        patience: Patience,
    ) -> Result<State<B>, ImageError> {
        if let Some(surrounded) = self.surrounded.take() {
            return self.complete(surrounded, file);
        }
        let Some(mut buffer) = self.buffer.take() else { return Ok(State::Parked) };
        let state = loop {
            let rest = &mut Rest { buffer: &mut buffer, done: self.done };
            if rest.len() == 0 {
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
                    let buffer = Memory::Given(buffer);
                    return Ok(State::Moves(Move { direction, buffer, part, place }));
                }
                Ok(Step::Surrounded(surrounded)) => {
                    self.buffer = Some(buffer);
                    return self.complete(surrounded, file);
                }
                Err(error) if error.kind() == ErrorKind::NoSpace && !self.was_starved => {
                    self.was_starved = true;
                    break Ok(State::Starved(error));
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
        surrounded: Surrounded,
        file: &Arc<FileStorage>,
    ) -> Result<State<B>, ImageError> {
        Ok(State::Moves(match surrounded.go_on()? {
            Next::Read(Piece { bytes, part, place }, surrounded) => {
                self.under_way = Some(UnderWay::Around { len: part.len() as u64, surrounded });
                let buffer = Memory::Own(bytes);
                Move { direction: Direction::Read, buffer, part, place }
            }
            Next::Write(Complete { allocation, bytes, host }) => {
                let len = usize::try_from(allocation.len()).expect("part of the buffer");
                let kept = Kept::Allocation(allocation);
                self.under_way = Some(UnderWay::Served { len, host, kept });
                let (direction, part) = (Direction::Write, 0..bytes.len());
                let (file, buffer) = (Arc::clone(file), Memory::Own(bytes));
                Move { direction, buffer, part, place: Place { file, host } }
            }
        }))
    }

    /// Takes in how the transfer ended, and commits what it wrote.
    pub(crate) fn moved(
        &mut self,
        memory: Memory<B>,
        result: std::io::Result<()>,
    ) -> Result<(), ImageError> {
        let (len, host, kept) = match (self.under_way.take(), memory) {
            (Some(UnderWay::Around { len, mut surrounded }), Memory::Own(bytes)) => {
                surrounded.moved(bytes, len, result)?;
                self.surrounded = Some(surrounded);
                return Ok(());
            }
            (Some(UnderWay::Served { len, host, kept }), memory) => {
                // A buffer made for the transfer ends with it.
                if let Memory::Given(buffer) = memory {
                    self.buffer = Some(buffer);
                }
                (len, host, kept)
            }
            _ => return Ok(()),
        };
        match (&kept, result, &mut self.buffer) {
            (_, Ok(()), _) => {}
            (Kept::Below(disk, _), Err(_), Some(buffer)) => {
                let at = self.at.get() + self.done as u64;
                buffer.fill_part(self.done..self.done + len, |bytes| disk.read_at(bytes, at))?;
            }
            (_, Err(source), _) => {
                let action = match self.direction {
                    Direction::Read => IoAction::ReadData,
                    Direction::Write => IoAction::WriteData,
                };
                return Err(ImageError::Io { action, at: host, source });
            }
        }
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
    pub(crate) fn into_buffer(self) -> B {
        self.buffer.expect("a request ends with its buffer")
    }
}
