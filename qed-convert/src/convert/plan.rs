//! What there is to copy: walks the source's extents and cuts them into jobs.
//!
//! Asks the source for mappings only, never for data, and never looks at what is done with a job.

use std::collections::VecDeque;
use std::ops::Range;

use qed_core::{Extents, VirtualDisk};

use crate::convert::sharing::Sharing;
use crate::convert::{ConvertError, ConvertOptions};
use crate::target::{Shape, Sink};

/// Bytes of the virtual disk that one job covers, unless clusters or tables say otherwise: small
/// enough to stay in a core's cache from the read through zero detection to the write.
const JOB_LEN: u64 = 512 << 10;
/// Most bytes of a job, and so of a thread's buffer; larger clusters take several jobs.
const MAX_JOB_LEN: u64 = 2 << 20;

/// What becomes of a run of guest bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The source has to be read.
    Read,
    /// Zeros, as the source says.
    Zero,
    /// The target's backing file has the same bytes.
    Keep,
}

/// A run of guest bytes with one fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) range: Range<u64>,
    pub(crate) fate: Fate,
}

/// One piece of work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// At most [`MAX_JOB_LEN`] bytes with something to read; the segments follow each other.
    Copy(Vec<Segment>),
    /// Zeros that the target has to be told of; inside one table of the target.
    Zero(Range<u64>),
    /// Bytes of a file of the source that the target can share; inside one table of the target.
    Share {
        /// Guest bytes, whole clusters of the target.
        range: Range<u64>,
        /// Image of the chain whose file it is.
        depth: u32,
        /// First byte in the file.
        from: u64,
    },
}

impl Job {
    /// The guest bytes from the first to the last segment.
    pub(crate) fn range(&self) -> Range<u64> {
        match self {
            Self::Zero(range) | Self::Share { range, .. } => range.clone(),
            Self::Copy(segments) => {
                let start = segments.first().map_or(0, |segment| segment.range.start);
                let end = segments.last().map_or(start, |segment| segment.range.end);
                start..end
            }
        }
    }
}

/// Hands out the jobs of one conversion in ascending order.
pub(crate) struct Plan<'a> {
    extents: Extents<'a>,
    /// None to copy everything.
    sharing: Option<Sharing<'a>>,
    shape: Shape,
    /// Zeros are written like data.
    dense: bool,
    /// Where the mapping cannot be read there may be data.
    salvage: bool,
    job_len: u64,
    /// Bytes of the virtual disk planned at once: whole clusters and whole jobs.
    block_len: u64,
    end: u64,
    at: u64,
    ready: VecDeque<Job>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        source: &'a dyn VirtualDisk,
        sink: &'a dyn Sink,
        options: &ConvertOptions,
    ) -> Self {
        let shape = sink.shape();
        // What is shared is not read: neither a gap nor a zero would be found.
        let shares = options.share && !options.salvage && options.sparse_len != 0;
        let job_len = JOB_LEN.max(shape.cluster_len).min(MAX_JOB_LEN).min(shape.table_reach);
        Self {
            extents: Extents::of(source),
            sharing: shares.then(|| Sharing::new(source, sink, shape)),
            shape,
            dense: options.sparse_len == 0,
            salvage: options.salvage,
            job_len,
            block_len: job_len.max(shape.cluster_len),
            end: source.len(),
            at: 0,
            ready: VecDeque::new(),
        }
    }

    /// The next job; none at the end.
    ///
    /// # Errors
    /// The source's mapping could not be read.
    pub(crate) fn next(&mut self) -> Result<Option<Job>, ConvertError> {
        while self.ready.is_empty() && self.at < self.end {
            self.plan_on()?;
        }
        Ok(self.ready.pop_front())
    }

    /// Plans one block, or as many whole blocks as one extent without data covers.
    fn plan_on(&mut self) -> Result<(), ConvertError> {
        let extent = self.extent_at(self.at)?;
        let whole = if extent.range.end == self.end {
            self.end
        } else {
            extent.range.end - extent.range.end % self.block_len
        };
        let idle = extent.fate == Fate::Keep || (extent.fate == Fate::Zero && !self.dense);
        if idle && whole > self.at {
            self.at = if extent.fate == Fate::Zero { self.plan_zeros(whole) } else { whole };
            return Ok(());
        }
        if let Some(job) = self.shared_part(self.at)?.filter(|job| job.range().start == self.at) {
            self.at = job.range().end;
            self.ready.push_back(job);
            return Ok(());
        }
        let block_end = (self.at - self.at % self.block_len).saturating_add(self.block_len);
        let (segments, end) = self.segments(block_end.min(self.end))?;
        self.cut_jobs(segments);
        self.at = end;
        Ok(())
    }

    /// Plans zeros up to `end` or to where a table of the target ends; gives where it got to.
    fn plan_zeros(&mut self, end: u64) -> u64 {
        let (at, reach) = (self.at, self.shape.table_reach);
        if at >= self.shape.zeros_below {
            return end;
        }
        let end = (at - at % reach).saturating_add(reach).min(end);
        self.ready.push_back(Job::Zero(at..end));
        end
    }

    /// The segments from `self.at` to `end`, or to where something to share begins, and where that
    /// is; neighbours of one fate are joined, and a cluster is kept whole or not at all.
    fn segments(&mut self, mut end: u64) -> Result<(Vec<Segment>, u64), ConvertError> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut at = self.at;
        while at < end {
            let extent = self.extent_at(at)?;
            if let Some(job) = self.shared_part(at)? {
                end = end.min(job.range().start);
            }
            let range = at..extent.range.end.min(end);
            at = range.end;
            push(&mut segments, Segment { range, fate: extent.fate });
        }
        if segments.iter().any(|segment| segment.fate == Fate::Keep) {
            segments = self.keep_whole_clusters(segments);
        }
        Ok((segments, end))
    }

    /// The first part of the extent at `at` that the target can share.
    fn shared_part(&mut self, at: u64) -> Result<Option<Job>, ConvertError> {
        if self.sharing.is_none() || self.extent_at(at)?.fate != Fate::Read {
            return Ok(None);
        }
        let (extent, sharing) =
            (self.extents.at(at).map_err(ConvertError::read)?, &mut self.sharing);
        let part = sharing.as_mut().and_then(|sharing| sharing.part(at, &extent));
        Ok(part.map(|(range, from)| Job::Share { range, depth: extent.depth, from }))
    }

    fn keep_whole_clusters(&self, segments: Vec<Segment>) -> Vec<Segment> {
        let cluster = self.shape.cluster_len;
        let mut aligned = Vec::new();
        for Segment { range, fate } in segments {
            if fate != Fate::Keep {
                push(&mut aligned, Segment { range, fate });
                continue;
            }
            let start =
                range.start.checked_next_multiple_of(cluster).unwrap_or(range.end).min(range.end);
            let whole =
                if range.end == self.end { self.end } else { range.end - range.end % cluster };
            let whole = whole.max(start);
            push(&mut aligned, Segment { range: range.start..start, fate: Fate::Read });
            push(&mut aligned, Segment { range: start..whole, fate: Fate::Keep });
            push(&mut aligned, Segment { range: whole..range.end, fate: Fate::Read });
        }
        aligned
    }

    /// Cuts a block's segments into jobs of at most `job_len` bytes.
    fn cut_jobs(&mut self, segments: Vec<Segment>) {
        let mut job = Vec::new();
        let mut job_end = self.at.saturating_add(self.job_len);
        for Segment { mut range, fate } in segments {
            while range.end > job_end {
                push(&mut job, Segment { range: range.start..job_end, fate });
                self.finish_job(&mut job);
                range.start = job_end;
                job_end = job_end.saturating_add(self.job_len);
            }
            push(&mut job, Segment { range, fate });
        }
        self.finish_job(&mut job);
    }

    fn finish_job(&mut self, job: &mut Vec<Segment>) {
        if job.iter().any(|segment| segment.fate != Fate::Keep) {
            self.ready.push_back(Job::Copy(std::mem::take(job)));
        }
        job.clear();
    }

    /// What becomes of the bytes from `at`; never empty.
    fn extent_at(&mut self, at: u64) -> Result<Segment, ConvertError> {
        let extent = match self.extents.at(at) {
            Err(_) if self.salvage => {
                let end = (at - at % self.job_len).saturating_add(self.job_len).min(self.end);
                return Ok(Segment { range: at..end, fate: Fate::Read });
            }
            extent => extent.map_err(ConvertError::read)?,
        };
        let fate = match extent.kind {
            _ if self.shape.keep_from_depth.is_some_and(|depth| extent.depth >= depth) => {
                Fate::Keep
            }
            kind if kind.is_stored() => Fate::Read,
            _ => Fate::Zero,
        };
        Ok(Segment { range: at..at + extent.len, fate })
    }
}

fn push(segments: &mut Vec<Segment>, segment: Segment) {
    if segment.range.is_empty() {
        return;
    }
    match segments.last_mut() {
        Some(last) if last.fate == segment.fate => last.range.end = segment.range.end,
        _ => segments.push(segment),
    }
}
