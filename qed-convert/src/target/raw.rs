//! A raw target: guest offsets are file offsets, holes are what is not written.

use std::ops::Range;
use std::sync::Arc;

use qed_io::{Growth, Storage};

use crate::convert::{ConvertError, Turn, WriteAction};
use crate::target::{Chunk, Shape, Sink, TargetContent};

/// Guest bytes of zeros that one job writes.
const ZERO_STEP: u64 = 1 << 30;

pub(crate) struct RawSink {
    storage: Arc<dyn Storage>,
    content: TargetContent,
    /// The length to set at the end.
    new_len: Option<u64>,
}

impl RawSink {
    /// A new image of `len` bytes. On a block device, which cannot be emptied, every zero is
    /// written.
    pub(crate) fn create(storage: Arc<dyn Storage>, len: u64) -> Result<Self, ConvertError> {
        if storage.growth() != Growth::Zeros {
            return Self::open(storage, TargetContent::Unknown, len);
        }
        storage.set_len(0).map_err(ConvertError::write(WriteAction::Length, 0))?;
        Ok(Self { storage, content: TargetContent::Zeros, new_len: Some(len) })
    }

    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        content: TargetContent,
        len: u64,
    ) -> Result<Self, ConvertError> {
        let target_len = storage.len().map_err(ConvertError::write(WriteAction::Length, 0))?;
        if target_len < len {
            return Err(ConvertError::OutputTooSmall { source_len: len, target_len });
        }
        Ok(Self { storage, content, new_len: None })
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), ConvertError> {
        if self.content == TargetContent::Zeros {
            return Ok(());
        }
        let at = range.start;
        self.storage.write_zeroes(range).map_err(ConvertError::write(WriteAction::Zeros, at))
    }
}

impl Sink for RawSink {
    fn shape(&self) -> Shape {
        Shape {
            cluster_len: 512,
            table_reach: ZERO_STEP,
            zeros_below: if self.content == TargetContent::Zeros { 0 } else { u64::MAX },
            keep_from_depth: self.content.keep_from_depth(),
            least_hole_len: 0,
        }
    }

    fn write(&self, chunk: &Chunk<'_>, turn: Turn<'_>) -> Result<(), ConvertError> {
        drop(turn);
        chunk.each_run(|range, bytes| match bytes {
            Some(bytes) => {
                let at = range.start;
                self.storage.write_at(bytes, at).map_err(ConvertError::write(WriteAction::Data, at))
            }
            None => self.write_zeroes(range),
        })
    }

    fn zero(&self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError> {
        drop(turn);
        self.write_zeroes(range)
    }

    fn finish(&self) -> Result<(), ConvertError> {
        if let Some(len) = self.new_len {
            self.storage.set_len(len).map_err(ConvertError::write(WriteAction::Length, len))?;
        }
        self.storage.flush().map_err(ConvertError::write(WriteAction::Flush, 0))
    }
}
