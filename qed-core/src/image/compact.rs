//! Compaction of an open image: data and tables move down into free space, and the file is cut behind them.
//!
//! In steps, beside requests, which go first: a write to a cluster that is about to move takes it out of
//! the move. It can end anywhere: what was moved is moved, a copy that nothing names is free space. How a
//! run of data moves is in `compact/data.rs`, tables and the end of the file in `compact/tail.rs`.

mod data;
mod tail;

use std::ops::{Deref, Range};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::ImageError;
use crate::image::Image;
use crate::image::compact::data::{Batch, Target};
use crate::image::sweep::Sweeping;
use crate::map::walk::Walk;
use crate::space::free::Verdict;

/// How long a step waits when it has to wait for requests to end.
const ASK_AFTER: Duration = Duration::from_micros(100);
/// How long space that was moved from is waited for: requests that last longer keep theirs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the image that are moved until a flush: what a crash undoes at most.
const FLUSH_AFTER: u64 = 256 << 20;

/// How often data is moved down once more that was busy.
const ROUNDS: u32 = 3;

/// What a compaction does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CompactOptions {
    /// Data is laid out anew first, in the order of the virtual disk: at the end of the file, from where
    /// it moves down. The file takes as much space more meanwhile as it has data.
    pub defragment: bool,
}

/// A compaction in progress; see [`Image::compact`]. Dropping it ends it there.
///
/// `I` is a reference to the image, or an `Arc` of it.
#[derive(Debug)]
pub struct Compaction<I: Deref<Target = Image>> {
    image: I,
    options: CompactOptions,
    phase: Phase,
    walk: Walk,
    batch: Option<Batch>,
    /// Data clusters from this one on move below it.
    limit: u64,
    end_before: u64,
    moved_bytes: u64,
    unflushed_bytes: u64,
    to_move_bytes: u64,
    held_back: HeldBack,
    /// How often data was moved down.
    rounds: u32,
}

/// What is done, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    /// Tables are read for free space.
    Sweep,
    /// Data moves to the end, in the order of the disk.
    Spread,
    /// Space that was moved from becomes free, before the phase after.
    Settle {
        until: Option<Instant>,
        then: After,
    },
    /// Data moves down.
    Pack,
    /// Tables move down.
    Tables,
    /// The file is cut.
    Cut,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Pack,
    Tables,
    Cut,
}

/// How far a compaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactStep {
    /// There is more to do.
    GoesOn {
        /// Bytes that were moved so far.
        moved_bytes: u64,
        /// Bytes that are to be moved in all, as far as is known; 0 while tables are read.
        to_move_bytes: u64,
    },
    /// It has ended.
    Done(Compacted),
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes up to the end of the image before and after.
    pub end_before: u64,
    /// As `end_before`, now.
    pub end_after: u64,
    /// Bytes of data and tables that were copied.
    pub moved_bytes: u64,
    /// Why the end is not lower.
    pub held_back: HeldBack,
}

/// What kept the end of the image from being lower.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack {
    /// Data clusters that were written while they were to be moved.
    pub busy_clusters: u64,
    /// Tables for which there was no run of free clusters below them.
    pub tables: u64,
}

impl Image {
    /// Moves data and tables down into free space and cuts the file behind them, in steps: nothing is done
    /// before the first [`Compaction::step`]. Any number of requests may be in flight meanwhile.
    #[must_use]
    pub fn compact(&self, options: CompactOptions) -> Compaction<&Self> {
        Compaction::new(self, options)
    }
}

impl<I: Deref<Target = Image>> Compaction<I> {
    /// As [`Image::compact`], by a reference or an `Arc`.
    pub fn new(image: I, options: CompactOptions) -> Self {
        Self {
            image,
            options,
            phase: Phase::Begin,
            walk: Walk::default(),
            batch: None,
            limit: 0,
            end_before: 0,
            moved_bytes: 0,
            unflushed_bytes: 0,
            to_move_bytes: 0,
            held_back: HeldBack::default(),
            rounds: 0,
        }
    }

    /// Does a little: reads tables for some milliseconds, or moves some MiB. The caller has no
    /// [`crate::Request`].
    ///
    /// # Errors
    /// As [`Image::sweep`]: an image with a finding is not compacted. As [`Image::flush`], and failed
    /// copies. What was moved is moved; another compaction goes on from there.
    pub fn step(&mut self) -> Result<CompactStep, ImageError> {
        self.image.begin_write()?;
        self.phase = match self.phase {
            Phase::Begin => self.begin()?,
            Phase::Sweep => self.sweep()?,
            Phase::Spread => self.spread()?,
            Phase::Settle { until, then } => self.settle(until, then)?,
            Phase::Pack => self.pack()?,
            Phase::Tables => self.move_table()?,
            Phase::Cut => {
                self.image.cut_free_tail()?;
                Phase::Done
            }
            Phase::Done => Phase::Done,
        };
        if self.phase != Phase::Done {
            let Self { moved_bytes, to_move_bytes, .. } = *self;
            let to_move_bytes = to_move_bytes.max(moved_bytes);
            return Ok(CompactStep::GoesOn { moved_bytes, to_move_bytes });
        }
        Ok(CompactStep::Done(Compacted {
            end_before: self.end_before,
            end_after: self.image.space.alloc.end.bytes(),
            moved_bytes: self.moved_bytes,
            held_back: self.held_back,
        }))
    }

    fn begin(&mut self) -> Result<Phase, ImageError> {
        self.end_before = self.image.space.alloc.end.bytes();
        self.image.flush()?;
        self.image.space.want_new_sweep();
        Ok(Phase::Sweep)
    }

    fn sweep(&mut self) -> Result<Phase, ImageError> {
        match self.image.sweep_for_a_while()? {
            Sweeping::GoesOn => return Ok(Phase::Sweep),
            Sweeping::Waits => {
                thread::sleep(ASK_AFTER);
                return Ok(Phase::Sweep);
            }
            // For what was let go meanwhile, or after a change of the image's shape.
            Sweeping::No if self.image.space.wants_sweep() => return Ok(Phase::Sweep),
            Sweeping::No => {}
        }
        match self.image.space.alloc.free.verdict() {
            Verdict::Sound => {}
            Verdict::Broken(finding) => return Err(finding.into()),
            // It is too large for a sweep.
            Verdict::Unknown => return Ok(Phase::Cut),
        }
        self.plan();
        Ok(if self.options.defragment { Phase::Spread } else { Phase::Pack })
    }

    /// Where the end could be: all that is named below it, and tables, which take runs of clusters, last.
    fn plan(&mut self) {
        let (space, map) = (&self.image.space, &self.image.map);
        let end = space.alloc.end.clusters();
        let used = end.saturating_sub(space.alloc.free.count());
        let table = map.geometry.table_size_clusters();
        let above = space.owner.tables_from(used << map.geometry.cluster_bits());
        self.limit = used.saturating_sub(above * table);
        let free_above = space.alloc.free.count_from(self.limit);
        let mut to_move = (end - self.limit).saturating_sub(free_above);
        if self.options.defragment {
            to_move += used;
        }
        self.to_move_bytes = to_move << map.geometry.cluster_bits();
    }

    /// Moves some data to the end of the file.
    fn spread(&mut self) -> Result<Phase, ImageError> {
        if self.move_batch(0..u64::MAX, Target::End)? {
            return Ok(Phase::Spread);
        }
        self.walk = Walk::default();
        Ok(Phase::Settle { until: None, then: After::Pack })
    }

    /// Moves some data down.
    fn pack(&mut self) -> Result<Phase, ImageError> {
        if self.move_batch(self.limit..u64::MAX, Target::Below(self.limit))? {
            return Ok(Phase::Pack);
        }
        Ok(Phase::Settle { until: None, then: After::Tables })
    }

    /// Marks the next data to be moved, or moves what is marked; false when there is no more.
    fn move_batch(&mut self, from: Range<u64>, target: Target) -> Result<bool, ImageError> {
        let Some(batch) = &self.batch else {
            self.batch = self.image.mark_batch(&mut self.walk, &from)?;
            return Ok(self.batch.is_some());
        };
        if !self.image.space.guards.has_passed(batch.marked) {
            thread::sleep(ASK_AFTER);
            return Ok(true);
        }
        let Some(batch) = self.batch.take() else { return Ok(true) };
        let moved = self.image.move_marked(&batch, target);
        self.image.unmark(&batch);
        let moved = moved?;
        let bits = self.image.map.geometry.cluster_bits();
        self.moved_bytes += moved.clusters << bits;
        self.unflushed_bytes += moved.clusters << bits;
        self.held_back.busy_clusters += moved.busy;
        if self.unflushed_bytes >= FLUSH_AFTER {
            self.unflushed_bytes = 0;
            self.image.flush()?;
        }
        Ok(!moved.is_full)
    }

    /// Waits until what was moved from is free.
    fn settle(&mut self, until: Option<Instant>, then: After) -> Result<Phase, ImageError> {
        let Some(until) = until else {
            self.image.flush()?;
            let until = Some(Instant::now() + PATIENCE);
            return Ok(Phase::Settle { until, then });
        };
        self.image.space.reclaim();
        if self.image.space.alloc.free.is_any_away() && Instant::now() < until {
            thread::sleep(ASK_AFTER);
            return Ok(Phase::Settle { until: Some(until), then });
        }
        Ok(match then {
            After::Pack => {
                self.plan();
                Phase::Pack
            }
            After::Tables if self.held_back.busy_clusters > 0 && self.rounds < ROUNDS => {
                self.rounds += 1;
                self.held_back = HeldBack::default();
                self.walk = Walk::default();
                self.plan();
                Phase::Pack
            }
            After::Tables => Phase::Tables,
            After::Cut => Phase::Cut,
        })
    }

    /// Moves the last table, if it can lie lower.
    fn move_table(&mut self) -> Result<Phase, ImageError> {
        match self.image.move_last_table()? {
            tail::TableMoved::Yes => {
                let table = self.image.map.geometry.table_size_bytes();
                self.moved_bytes += table;
                return Ok(Phase::Tables);
            }
            tail::TableMoved::NoRoom => self.held_back.tables += 1,
            tail::TableMoved::NoNeed => {}
        }
        Ok(Phase::Settle { until: None, then: After::Cut })
    }
}

impl<I: Deref<Target = Image>> Drop for Compaction<I> {
    fn drop(&mut self) {
        if let Some(batch) = &self.batch {
            self.image.unmark(batch);
        }
    }
}
