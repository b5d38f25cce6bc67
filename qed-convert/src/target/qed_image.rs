//! An existing QED image as a target: everything goes through its ordinary write path.

use std::ops::Range;

use qed_core::{Image, ZeroMode};
use qed_spec::GuestOffset;

use crate::convert::{ConvertError, Turn};
use crate::target::{Chunk, Shape, Sink, TargetContent};

pub(crate) struct QedImageSink<'a> {
    image: &'a Image,
    content: TargetContent,
    durable: bool,
}

impl<'a> QedImageSink<'a> {
    pub(crate) fn open(
        image: &'a Image,
        content: TargetContent,
        len: u64,
        durable: bool,
    ) -> Result<Self, ConvertError> {
        let target_len = image.image_size();
        if target_len < len {
            return Err(ConvertError::OutputTooSmall { source_len: len, target_len });
        }
        Ok(Self { image, content, durable })
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), ConvertError> {
        if self.content == TargetContent::Zeros || range.is_empty() {
            return Ok(());
        }
        let at = GuestOffset::new(range.start);
        Ok(self.image.write_zeroes(at, range.end - range.start, ZeroMode::IfNeeded)?)
    }
}

impl Sink for QedImageSink<'_> {
    fn shape(&self) -> Shape {
        Shape {
            // The image merges parts of clusters itself.
            cluster_len: 512,
            table_reach: self.image.geometry().l2_coverage_bytes(),
            zeros_below: if self.content == TargetContent::Zeros { 0 } else { u64::MAX },
            keep_from_depth: self.content.keep_from_depth(),
            least_hole_len: 0,
        }
    }

    fn write(&self, chunk: &Chunk<'_>, turn: Turn<'_>) -> Result<(), ConvertError> {
        drop(turn);
        chunk.each_run(|range, bytes| match bytes {
            Some(bytes) => Ok(self.image.write_at(bytes, GuestOffset::new(range.start))?),
            None => self.write_zeroes(range),
        })
    }

    fn zero(&self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError> {
        drop(turn);
        self.write_zeroes(range)
    }

    fn finish(&self) -> Result<(), ConvertError> {
        if self.durable { Ok(self.image.flush()?) } else { Ok(()) }
    }
}
