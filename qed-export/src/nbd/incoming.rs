//! Reading requests from a stream: headers through a buffer, payloads past it where they are long.

use std::io::{self, Read};

use super::negotiation::Session;
use super::perform::Scratch;
use super::request::{Incoming, MAX_HEADER_BYTES};

/// Enough for a queue of small writes, so that one system call brings many of them.
const BUFFER_BYTES: usize = 64 << 10;

/// What is read of the stream and not used yet. The thread that has it may read on.
#[derive(Debug)]
pub(super) struct RequestReader {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into(), start: 0, end: 0 }
    }
}

impl RequestReader {
    /// Whether the next request, or a part of it, is here already.
    pub(super) fn has_more(&self) -> bool {
        self.start < self.end
    }

    /// The next request, its payload in `scratch`; none when the client has left.
    ///
    /// # Errors
    /// Of the stream, and [`io::ErrorKind::InvalidData`] for what is no request.
    pub(super) fn next(
        &mut self,
        stream: &mut impl Read,
        session: &Session<'_>,
        scratch: &mut Scratch,
    ) -> io::Result<Option<Incoming>> {
        let framing = session.framing();
        let mut header = [0; MAX_HEADER_BYTES];
        let header = &mut header[..framing.header_bytes()];
        while self.end - self.start < header.len() {
            if self.fill(stream)? == 0 {
                return if self.has_more() {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(None)
                };
            }
        }
        self.take(header);
        let incoming = Incoming::parse(header, framing, session.replies)
            .map_err(|lost| io::Error::new(io::ErrorKind::InvalidData, lost))?;
        if incoming.wants_payload() {
            self.read_exact(stream, scratch.data(incoming.payload))?;
        } else {
            scratch.data(0);
            self.skip(stream, incoming.payload)?;
        }
        Ok(Some(incoming))
    }

    /// The next request if all of it is here already and it is short: a read or write of at most
    /// `most` bytes that does not wait for a flush. Its payload is in `scratch`.
    pub(super) fn next_short(
        &mut self,
        session: &Session<'_>,
        scratch: &mut Scratch,
        most: usize,
    ) -> Option<Incoming> {
        let framing = session.framing();
        let here = &self.buffer[self.start..self.end];
        let header = here.get(..framing.header_bytes())?;
        // What is no request is told when it is its turn.
        let incoming = Incoming::parse(header, framing, session.replies).ok()?;
        let is_here = here.len() - header.len() >= incoming.payload;
        if !incoming.is_short(most) || !is_here {
            return None;
        }
        self.start += framing.header_bytes();
        self.take(scratch.data(incoming.payload));
        Some(incoming)
    }

    fn read_exact(&mut self, stream: &mut impl Read, buf: &mut [u8]) -> io::Result<()> {
        let here = buf.len().min(self.end - self.start);
        let (now, rest) = buf.split_at_mut(here);
        self.take(now);
        // What is short comes through the buffer, with what follows it.
        if rest.len() >= BUFFER_BYTES / 2 {
            return stream.read_exact(rest);
        }
        while self.end - self.start < rest.len() {
            if self.fill(stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.take(rest);
        Ok(())
    }

    fn skip(&mut self, stream: &mut impl Read, len: usize) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            if !self.has_more() && self.fill(stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let here = left.min(self.end - self.start);
            self.start += here;
            left -= here;
        }
        Ok(())
    }

    /// Takes bytes that are here.
    fn take(&mut self, to: &mut [u8]) {
        to.copy_from_slice(&self.buffer[self.start..self.start + to.len()]);
        self.start += to.len();
    }

    /// Reads what there is; 0 at the end of the stream.
    fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
