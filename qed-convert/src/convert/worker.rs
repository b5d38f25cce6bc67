//! One thread of a conversion: fills its buffer from the source, finds the data in it and hands it
//! to the sink.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::convert::plan::{Fate, Job, Segment};
use crate::convert::{ConvertError, Run, Turn};
use crate::target::{Chunk, SharedRun};
use crate::zero;

/// What is copied at a time of a run that could not be shared.
const PIECE: u64 = 2 << 20;
/// Smallest unit that `salvage` gives up, and that holes are made of.
const SECTOR: u64 = 512;

pub(crate) struct Worker<'r, 'a> {
    run: &'r Run<'a>,
    buf: Vec<u8>,
    data: Vec<Range<usize>>,
    kept: Vec<Range<usize>>,
    /// Bytes per block of zero detection; none to take everything for data.
    block: Option<usize>,
}

impl<'r, 'a> Worker<'r, 'a> {
    pub(crate) fn new(run: &'r Run<'a>) -> Self {
        let asked = run.options.sparse_len;
        let least = run.sink.shape().least_hole_len;
        let block = asked.max(least).div_ceil(SECTOR).saturating_mul(SECTOR);
        let block = usize::try_from(block).unwrap_or(usize::MAX);
        Self {
            run,
            buf: Vec::new(),
            data: Vec::new(),
            kept: Vec::new(),
            block: (asked != 0).then_some(block),
        }
    }

    pub(crate) fn perform(&mut self, job: &Job, turn: Turn<'_>) -> Result<(), ConvertError> {
        match job {
            Job::Zero(range) => self.run.sink.zero(range.clone(), turn),
            Job::Copy(segments) => self.copy(segments, job.range(), turn),
            Job::Share { range, depth, from } => self.share(range.clone(), *depth, *from, turn),
        }
    }

    /// Shares a run with the target, or copies it where that fails.
    fn share(
        &mut self,
        guest: Range<u64>,
        depth: u32,
        from: u64,
        mut turn: Turn<'_>,
    ) -> Result<(), ConvertError> {
        if let Some(source) = self.run.source.data_storage(guest.start, depth) {
            let run = SharedRun { guest: guest.clone(), source: &**source, from };
            let Some(unused) = self.run.sink.share(&run, turn)? else {
                self.run.data_len.fetch_add(guest.end - guest.start, Ordering::Relaxed);
                return Ok(());
            };
            turn = unused;
        }
        let mut at = guest.start;
        while guest.end - at > PIECE {
            let (now, later) = turn.split(at + PIECE);
            self.copy_run(at..at + PIECE, now)?;
            (at, turn) = (at + PIECE, later);
        }
        self.copy_run(at..guest.end, turn)
    }

    /// Copies a run with its zeros: what could not be shared may have left other bytes there.
    fn copy_run(&mut self, range: Range<u64>, turn: Turn<'_>) -> Result<(), ConvertError> {
        let block = self.block.take();
        let copied = self.copy(&[Segment { range: range.clone(), fate: Fate::Read }], range, turn);
        self.block = block;
        copied
    }

    fn copy(
        &mut self,
        segments: &[Segment],
        range: Range<u64>,
        turn: Turn<'_>,
    ) -> Result<(), ConvertError> {
        let len = index(range.end - range.start);
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        self.data.clear();
        self.kept.clear();
        for segment in segments {
            let within =
                index(segment.range.start - range.start)..index(segment.range.end - range.start);
            self.fill(segment, within)?;
        }
        let data_len: usize = self.data.iter().map(ExactSizeIterator::len).sum();
        self.run.data_len.fetch_add(data_len as u64, Ordering::Relaxed);
        self.run.wait_for_rate(data_len as u64)?;
        let chunk =
            Chunk { at: range.start, bytes: &self.buf[..len], data: &self.data, kept: &self.kept };
        self.run.sink.write(&chunk, turn)
    }

    /// Fills the part of the buffer that `segment` describes and notes what is in it.
    fn fill(&mut self, segment: &Segment, within: Range<usize>) -> Result<(), ConvertError> {
        match (segment.fate, self.block) {
            (Fate::Keep, _) => zero::extend(&mut self.kept, within),
            (Fate::Zero, Some(_)) => self.buf[within].fill(0),
            (Fate::Zero, None) => {
                self.buf[within.clone()].fill(0);
                zero::extend(&mut self.data, within);
            }
            (Fate::Read, block) => {
                self.read(within.clone(), segment.range.start)?;
                match block {
                    Some(block) => zero::find_data(&self.buf, within, block, &mut self.data),
                    None => zero::extend(&mut self.data, within),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, within: Range<usize>, at: u64) -> Result<(), ConvertError> {
        let buf = &mut self.buf[within];
        match self.run.source.read_at(buf, at) {
            Err(_) if self.run.options.salvage => {
                salvage(self.run, buf, at);
                Ok(())
            }
            read => read.map_err(ConvertError::read),
        }
    }
}

/// Reads what can be read of `buf` sector by sector; the rest becomes zeros.
fn salvage(run: &Run<'_>, buf: &mut [u8], at: u64) {
    for (sector, at) in buf.chunks_mut(index(SECTOR)).zip((at..).step_by(index(SECTOR))) {
        if let Err(error) = run.source.read_at(sector, at) {
            sector.fill(0);
            let len = sector.len() as u64;
            run.unreadable_len.fetch_add(len, Ordering::Relaxed);
            run.progress.unreadable(at, len, &error);
        }
    }
}

fn index(len: u64) -> usize {
    usize::try_from(len).expect("a job is at most 2 MiB")
}
