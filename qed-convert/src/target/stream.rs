//! A raw image as a stream of bytes: everything in order, zeros included.

use std::io::Write;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::convert::{ConvertError, Turn};
use crate::target::{Chunk, Shape, Sink};

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub(crate) struct StreamSink<'a> {
    stream: Mutex<Stream<'a>>,
    len: u64,
}

struct Stream<'a> {
    writer: Box<dyn Write + Send + 'a>,
    /// Bytes written so far.
    at: u64,
}

impl<'a> StreamSink<'a> {
    pub(crate) fn new(writer: Box<dyn Write + Send + 'a>, len: u64) -> Self {
        Self { stream: Mutex::new(Stream { writer, at: 0 }), len }
    }
}

impl Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        let offset = self.at;
        self.writer.write_all(bytes).map_err(|source| ConvertError::Stream { offset, source })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn zeros_to(&mut self, end: u64) -> Result<(), ConvertError> {
        while self.at < end {
            let len =
                usize::try_from(end - self.at).map_or(ZEROS.len(), |len| len.min(ZEROS.len()));
            self.write(&ZEROS[..len])?;
        }
        Ok(())
    }
}

impl Sink for StreamSink<'_> {
    fn shape(&self) -> Shape {
        Shape {
            cluster_len: 512,
            table_reach: 1 << 30,
            zeros_below: 0,
            keep_from_depth: None,
            least_hole_len: 0,
        }
    }

    fn write(&self, chunk: &Chunk<'_>, turn: Turn<'_>) -> Result<(), ConvertError> {
        turn.wait()?;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.zeros_to(chunk.at)?;
        stream.write(chunk.bytes)
    }

    /// Zeros are written when the next data comes, or at the end.
    fn zero(&self, _range: Range<u64>, _turn: Turn<'_>) -> Result<(), ConvertError> {
        Ok(())
    }

    fn finish(&self) -> Result<(), ConvertError> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.zeros_to(self.len)?;
        let offset = stream.at;
        stream.writer.flush().map_err(|source| ConvertError::Stream { offset, source })
    }
}
