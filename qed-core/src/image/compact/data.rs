//! Moving data clusters: marked, copied when no request of before the mark is left, published.
//!
//! Step names are those of docs/write-ordering.md.

use std::ops::Range;
use std::time::Instant;

use qed_spec::{GuestCluster, GuestOffset, HostCluster, L2Entry};

use crate::change::Change;
use crate::error::ImageError;
use crate::image::Image;
use crate::map::mapping::NamedBy;
use crate::map::walk::Walk;
use crate::space::claims::{Claim, Wait};
use crate::space::free::HostRun;
use crate::space::guards::Moment;
use crate::space::moves::Mark;
use crate::space::sweep::STEP;

/// Bytes that are moved at a time.
const BATCH_BYTES: u64 = 16 << 20;
/// Runs that are.
const BATCH_RUNS: usize = 512;

/// Data that is to move, marked.
#[derive(Debug)]
pub(super) struct Batch {
    runs: Vec<Run>,
    /// When it was marked.
    pub(super) marked: Moment,
}

/// Clusters of the guest that follow each other, in the file as well; in one slice.
#[derive(Debug, Clone)]
struct Run {
    guest: Range<u64>,
    host: u64,
    /// Once it is marked.
    mark: Option<Mark>,
}

/// Where data moves to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// Free space below this cluster.
    Below(u64),
    /// The end of the file.
    End,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) clusters: u64,
    /// Clusters that were written meanwhile, or are being allocated.
    pub(super) busy: u64,
    /// There is no more room.
    pub(super) is_full: bool,
}

impl Image {
    /// Marks the next data in host clusters of `from`, as the walk comes to them within a few milliseconds;
    /// none at its end.
    pub(super) fn mark_batch(
        &self,
        walk: &mut Walk,
        from: &Range<u64>,
    ) -> Result<Option<Batch>, ImageError> {
        // The tables stay where they are meanwhile.
        let _request = self.request();
        let until = Instant::now() + STEP;
        let mut runs = Vec::new();
        let bits = self.map.geometry.cluster_bits();
        let entries = self.map.geometry.table_entries();
        let mut clusters = 0;
        let mut goes_on = true;
        while goes_on
            && runs.len() < BATCH_RUNS
            && clusters << bits < BATCH_BYTES
            && Instant::now() < until
        {
            // A piece at a time: the walk does not come back to what it has shown.
            goes_on = self.map.walk_on(walk, |host, by| {
                let NamedBy::L2(at) = by else { return Ok(()) };
                let inside = host.start.max(from.start)..host.end.min(from.end);
                if !inside.is_empty() {
                    let skipped = inside.start - host.start;
                    let first = at.l1.get() * entries + at.l2.get() + skipped;
                    let count = inside.end - inside.start;
                    runs.push(Run { guest: first..first + count, host: inside.start, mark: None });
                    clusters += count;
                }
                Ok(())
            })?;
        }
        if runs.is_empty() && !goes_on {
            return Ok(None);
        }
        // Step "mark".
        runs.iter_mut().for_each(|run| run.mark = Some(self.space.moves.mark(run.guest.clone())));
        Ok(Some(Batch { runs, marked: self.space.guards.moment() }))
    }

    /// Moves what is marked, of which no request of before is left.
    pub(super) fn move_marked(&self, batch: &Batch, target: Target) -> Result<Moved, ImageError> {
        let mut moved = Moved::default();
        for run in &batch.runs {
            let _request = self.request();
            self.begin_write()?;
            self.move_run(run, target, &mut moved)?;
            if moved.is_full {
                break;
            }
        }
        Ok(moved)
    }

    /// Takes the marks of a batch away.
    pub(super) fn unmark(&self, batch: &Batch) {
        let marks = batch.runs.iter().filter_map(|run| run.mark);
        marks.for_each(|mark| self.space.moves.unmark(mark));
    }

    fn move_run(&self, run: &Run, target: Target, moved: &mut Moved) -> Result<(), ImageError> {
        let count = run.guest.end - run.guest.start;
        let claim = Claim::take(&self.space.claims, run.guest.clone(), Wait::No);
        let mut next = run.host;
        let stands = |entry| {
            let is_next = entry == HostCluster::new(next).map_or(L2Entry::Zero, L2Entry::Data);
            next += 1;
            is_next
        };
        let at = self.at(run.guest.start);
        if claim.is_none() || self.map.entries(at, count, stands)? != Some(count) {
            moved.busy += count;
            return Ok(());
        }
        let mut done = 0;
        while done < count {
            let Some(space) = self.room_for(count - done, target)? else {
                moved.is_full = true;
                break;
            };
            let from = run.host + done..run.host + done + space.count;
            let copied = self.copy_run(from.start, space);
            let published = copied.and_then(|()| {
                let change = Change::moved(self.at(run.guest.start + done), space);
                let tables = (&self.map, &mut self.room(space.count)?);
                let publish = || change.publish_over(&[from], tables, &self.space.alloc.free);
                // Step "publish", unless a write has taken the mark away.
                let mark = run.mark.expect("a batch is marked");
                self.space.moves.publish_if_marked(mark, publish).transpose()
            });
            match published {
                Ok(Some(())) => moved.clusters += space.count,
                Ok(None) => {
                    self.space.alloc.free.give_back(space);
                    moved.busy += count - done;
                    break;
                }
                Err(error) => {
                    self.space.alloc.free.give_back(space);
                    return Err(error);
                }
            }
            done += space.count;
        }
        Ok(())
    }

    fn room_for(&self, count: u64, target: Target) -> Result<Option<HostRun>, ImageError> {
        match target {
            Target::Below(limit) => Ok(self.space.alloc.free.take_below(count, limit)),
            Target::End => self.space.reserve_fresh(count).map(Some),
        }
    }

    /// Step "copy".
    fn copy_run(&self, from: u64, to: HostRun) -> Result<(), ImageError> {
        let bits = self.map.geometry.cluster_bits();
        let target = self.map.geometry.host_offset(to.first).get();
        self.data.copy(from << bits, target, to.count << bits, to.fresh)
    }

    fn at(&self, guest: u64) -> GuestOffset {
        let at = self.map.geometry.guest_cluster_offset(GuestCluster::new(guest));
        at.expect("a cluster of the disk")
    }
}
