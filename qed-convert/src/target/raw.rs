//! A raw target: guest offsets are file offsets, holes are what is not written.

use std::ops::Range;

use qed_io::Storage;

use crate::convert::{ConvertError, Turn, WriteAction};
use crate::target::file::TargetFile;
use crate::target::{Chunk, Shape, SharedRun, Sink, TargetContent};

/// Guest bytes of zeros that one job writes.
const ZERO_STEP: u64 = 1 << 30;

pub(crate) struct RawSink {
    file: TargetFile,
    content: TargetContent,
    /// The length to set at the end.
    new_len: Option<u64>,
}

impl RawSink {
    /// A new image of `len` bytes. On a block device, which cannot be emptied, every zero is
    /// written.
    pub(crate) fn create(file: TargetFile, len: u64) -> Result<Self, ConvertError> {
        if !file.grows_with_zeros() {
            return Self::open(file, TargetContent::Unknown, len);
        }
        file.set_len(0)?;
        Ok(Self { file, content: TargetContent::Zeros, new_len: Some(len) })
    }

    pub(crate) fn open(
        file: TargetFile,
        content: TargetContent,
        len: u64,
    ) -> Result<Self, ConvertError> {
        let target_len = file.len()?;
        if target_len < len {
            return Err(ConvertError::OutputTooSmall { source_len: len, target_len });
        }
        Ok(Self { file, content, new_len: None })
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), ConvertError> {
        if self.content == TargetContent::Zeros {
            return Ok(());
        }
        self.file.write_zeroes(range)
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
            Some(bytes) => self.file.write(WriteAction::Data, bytes, range.start),
            None => self.write_zeroes(range),
        })
    }

    fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        self.file.sharing_unit(source)
    }

    fn share<'t>(
        &self,
        run: &SharedRun<'_>,
        turn: Turn<'t>,
    ) -> Result<Option<Turn<'t>>, ConvertError> {
        Ok((!self.file.share(run, run.guest.start)).then_some(turn))
    }

    fn zero(&self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError> {
        drop(turn);
        self.write_zeroes(range)
    }

    fn finish(&self) -> Result<(), ConvertError> {
        if let Some(len) = self.new_len {
            self.file.set_len(len)?;
        }
        self.file.flush()
    }
}
