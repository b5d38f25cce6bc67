//! Where a conversion writes to: what the caller names, and the seam that the engine writes through.
//!
//! Each format's sink is a module of its own; none of them reads the source.

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use qed_core::{Image, Layout};
use qed_io::Storage;
use qed_spec::Geometry;

use crate::convert::{ConvertError, Turn};
use file::TargetFile;
use qcow2::Qcow2CreateOptions;

mod cluster_map;
mod file;
mod mapped_file;
pub(crate) mod qcow2;
mod qed;
mod qed_image;
mod raw;
mod stream;

/// The target of a conversion. A new image replaces whatever the storage holds.
#[non_exhaustive]
pub enum Target<'a> {
    /// A new raw image: a regular file is emptied first and gets the source's exact length; on a
    /// block device at least as large as the source, zeros are written.
    Raw(Arc<dyn Storage>),
    /// An existing raw image or device, at least as large as the source; the rest of it stays.
    RawImage {
        /// The file or device.
        storage: Arc<dyn Storage>,
        /// What it holds now.
        content: TargetContent,
    },
    /// A raw image as a stream, in order and without holes.
    Stream(Box<dyn Write + Send + 'a>),
    /// A new QED image.
    Qed {
        /// The file.
        storage: Arc<dyn Storage>,
        /// Cluster and table size.
        geometry: Geometry,
        /// What the header area holds.
        layout: Layout,
        /// The backing file, whose bytes are not copied.
        backing: Option<NewBacking>,
    },
    /// A new QCOW2 image.
    Qcow2 {
        /// The file or device.
        storage: Arc<dyn Storage>,
        /// What the image looks like; its size is the source's and need not be set.
        options: Qcow2CreateOptions,
        /// Compresses every cluster that gets smaller by it.
        compress: bool,
    },
    /// An existing QED image, at least as large as the source; the rest of it stays.
    QedImage {
        /// The image, open for writing.
        image: &'a Image,
        /// What it holds now.
        content: TargetContent,
    },
}

/// What an existing target holds before the conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetContent {
    /// Unknown bytes that have to be overwritten.
    Unknown,
    /// Zeros only, as the caller vouches.
    Zeros,
    /// What images of the source's backing chain hold from this depth on: the target is one of
    /// them, or has it as its own backing file. Only what is above is copied.
    SourceFrom(u32),
}

impl TargetContent {
    fn keep_from_depth(self) -> Option<u32> {
        match self {
            Self::SourceFrom(depth) => Some(depth),
            Self::Unknown | Self::Zeros => None,
        }
    }
}

/// The backing file of a new image.
///
/// It holds the same bytes as the backing file of the source: what the source leaves to its own
/// backing file is left out of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBacking {
    /// The name to record.
    pub name: Vec<u8>,
    /// The format to record. QCOW2 takes any name; QED can record `raw` and leaves out any other.
    pub format: Option<String>,
    /// Bytes of its virtual disk; past them nothing has to be marked as zero.
    pub len: u64,
}

/// What a sink needs from the plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes that are allocated together; a power of two.
    pub(crate) cluster_len: u64,
    /// Guest bytes behind one table, a multiple of `cluster_len`; no job crosses from one to the
    /// next.
    pub(crate) table_reach: u64,
    /// Zeros from here on need no word; 0 when the target reads zeros wherever nothing is written.
    pub(crate) zeros_below: u64,
    /// The target already has, or sees through, what the source's images from this depth on hold.
    pub(crate) keep_from_depth: Option<u32>,
    /// Shorter runs of zeros have to be written with the data around them.
    pub(crate) least_hole_len: u64,
}

/// A filled buffer on its way to the target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    /// Guest offset of the first byte.
    pub(crate) at: u64,
    pub(crate) bytes: &'a [u8],
    /// Ascending ranges of `bytes` to be stored; all other bytes are zeros or kept.
    pub(crate) data: &'a [Range<usize>],
    /// Ascending ranges of `bytes`, whole clusters, that the backing file provides; the bytes are
    /// not filled in.
    pub(crate) kept: &'a [Range<usize>],
}

/// Guest bytes, whole clusters of the target, that lie in a file of the source.
#[derive(Debug, Clone)]
pub(crate) struct SharedRun<'a> {
    pub(crate) guest: Range<u64>,
    pub(crate) source: &'a dyn Storage,
    /// First byte in `source`.
    pub(crate) from: u64,
}

/// A target that takes chunks from any number of threads.
pub(crate) trait Sink: Sync {
    fn shape(&self) -> Shape;

    /// Stores a chunk. Space is given out after `turn.wait()`; the turn is dropped before data is
    /// written.
    fn write(&self, chunk: &Chunk<'_>, turn: Turn<'_>) -> Result<(), ConvertError>;

    /// In which units bytes of a file of the source can be shared with the target's; none where they
    /// are written.
    fn sharing_unit(&self, source: &dyn Storage) -> Option<u64> {
        let _ = source;
        None
    }

    /// Stores a run by sharing. Gives the turn back if it has to be written after all.
    fn share<'t>(
        &self,
        run: &SharedRun<'_>,
        turn: Turn<'t>,
    ) -> Result<Option<Turn<'t>>, ConvertError> {
        let _ = run;
        Ok(Some(turn))
    }

    /// Makes guest bytes below `zeros_below` read as zeros.
    fn zero(&self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError>;

    /// Completes the target and makes it durable, after the last chunk.
    fn finish(&self) -> Result<(), ConvertError>;
}

impl<'a> Target<'a> {
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// Checks that the target can hold `len` bytes and prepares it; unless `durable`, nothing is
    /// flushed.
    pub(crate) fn into_sink(
        self,
        len: u64,
        durable: bool,
    ) -> Result<Box<dyn Sink + 'a>, ConvertError> {
        let file = |storage| TargetFile { storage, durable };
        Ok(match self {
            Self::Raw(storage) => Box::new(raw::RawSink::create(file(storage), len)?),
            Self::RawImage { storage, content } => {
                Box::new(raw::RawSink::open(file(storage), content, len)?)
            }
            Self::Stream(writer) => Box::new(stream::StreamSink::new(writer, len)),
            Self::Qed { storage, geometry, layout, backing } => {
                Box::new(qed::QedSink::create(file(storage), geometry, layout, backing, len)?)
            }
            Self::Qcow2 { storage, options, compress } => {
                let options = Qcow2CreateOptions { size: len, ..options };
                Box::new(qcow2::Qcow2Sink::create(file(storage), options, compress)?)
            }
            Self::QedImage { image, content } => {
                Box::new(qed_image::QedImageSink::open(image, content, len, durable)?)
            }
        })
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw(_) => "Raw",
            Self::RawImage { .. } => "RawImage",
            Self::Stream(_) => "Stream",
            Self::Qed { .. } => "Qed",
            Self::Qcow2 { .. } => "Qcow2",
            Self::QedImage { .. } => "QedImage",
        })
    }
}

/// What a cluster of a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Data,
    Zero,
    Kept,
}

impl Chunk<'_> {
    /// Calls `act` for every run that is not kept, in order: with its bytes if it holds data, else
    /// without, for zeros.
    pub(crate) fn each_run(
        &self,
        mut act: impl FnMut(Range<u64>, Option<&[u8]>) -> Result<(), ConvertError>,
    ) -> Result<(), ConvertError> {
        let range = |from: usize, to: usize| self.at + from as u64..self.at + to as u64;
        let (mut data, mut kept) = (self.data.iter().peekable(), self.kept.iter().peekable());
        let mut at = 0;
        while at < self.bytes.len() {
            let (next_data, next_kept) = (data.peek(), kept.peek());
            if let Some(run) = next_data.filter(|run| run.start == at) {
                act(range(run.start, run.end), Some(&self.bytes[(*run).clone()]))?;
                at = run.end;
                data.next();
            } else if let Some(run) = next_kept.filter(|run| run.start == at) {
                at = run.end;
                kept.next();
            } else {
                let starts = [next_data, next_kept].into_iter().flatten().map(|run| run.start);
                let end = starts.min().unwrap_or(self.bytes.len());
                act(range(at, end), None)?;
                at = end;
            }
        }
        Ok(())
    }

    /// What each cluster that the chunk touches holds, in order.
    pub(crate) fn contents(&self, cluster_len: u64) -> Vec<Content> {
        let first = self.at / cluster_len;
        let slots = (self.at + self.bytes.len() as u64).div_ceil(cluster_len) - first;
        let mut contents = vec![Content::Zero; usize::try_from(slots).expect("at most one a byte")];
        let mut mark = |runs: &[Range<usize>], content| {
            for run in runs {
                let (start, end) = (self.at + run.start as u64, self.at + run.end as u64);
                let span = start / cluster_len - first..end.div_ceil(cluster_len) - first;
                contents[index(span.start)..index(span.end)].fill(content);
            }
        };
        mark(self.kept, Content::Kept);
        mark(self.data, Content::Data);
        contents
    }
}

fn index(count: u64) -> usize {
    usize::try_from(count).expect("counts within one buffer")
}
