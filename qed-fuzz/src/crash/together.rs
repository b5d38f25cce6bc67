//! Writers that take turns in an order drawn from a seed, and flushes between their steps and
//! beside them: what threads do, on one thread that can do it again.

use std::ops::Range;
use std::thread;

use qed_core::{Allocation, Image, Prepared, Request};
use qed_io::RequestKind;
use qed_spec::GuestOffset;

use super::guest::Tag;
use super::run::{Runner, StepError};
use super::workload::CRASH_CLUSTER;
use crate::random::Random;
use crate::size::usize_of;
use crate::sparse::SECTOR;

/// One write; each turn does one part of it.
struct Writer<'r> {
    request: &'r Request<&'r Image>,
    /// Sectors that are not written yet.
    left: Range<u64>,
    state: State<'r>,
}

enum State<'r> {
    Idle,
    /// Has its clusters, and not its data.
    Prepared(Allocation<&'r Image>),
    /// Its data is in the file, and nothing says so.
    Written(Allocation<&'r Image>, Tag),
}

impl Runner {
    /// Does the writes, part by part.
    pub(crate) fn together(
        &mut self,
        image: &Image,
        writes: &[(u64, u64)],
        order: u64,
    ) -> Result<(), StepError> {
        let requests: Vec<_> = writes.iter().map(|_| image.request()).collect();
        let mut writers = Vec::new();
        for ((first, count), request) in writes.iter().zip(&requests) {
            writers.push(Writer { request, left: *first..first + count, state: State::Idle });
        }
        let mut random = Random::new(order);
        while !writers.is_empty() {
            match random.below(6) {
                0 => self.flush(image, under_way(&writers))?,
                1 => self.flush_beside(image, &mut writers, &mut random)?,
                _ => self.turn(&mut writers, &mut random, Allowed::All)?,
            }
        }
        Ok(())
    }

    /// A flush, and while it is on its way to the disk some turns.
    fn flush_beside(
        &mut self,
        image: &Image,
        writers: &mut Vec<Writer<'_>>,
        random: &mut Random,
    ) -> Result<(), StepError> {
        let Some(stopper) = self.stopper.clone() else {
            return self.flush(image, under_way(writers));
        };
        let mut uncovered = under_way(writers);
        let last_before = self.next_tag;
        let held = stopper.hold(|request| request.kind == RequestKind::Flush);
        thread::scope(|scope| {
            let flush = scope.spawn(|| image.flush());
            held.wait_until_stopped();
            let count = 1 + random.below(3);
            let turns = (0..count).try_for_each(|_| self.turn(writers, random, Allowed::NoTable));
            held.release();
            flush.join().map_err(|_| "a flush panicked")??;
            turns
        })?;
        uncovered.extend(last_before + 1..=self.next_tag);
        self.acknowledge(uncovered);
        Ok(())
    }

    /// One part of the write of one writer.
    fn turn(
        &mut self,
        writers: &mut Vec<Writer<'_>>,
        random: &mut Random,
        allowed: Allowed,
    ) -> Result<(), StepError> {
        if writers.is_empty() {
            return Ok(());
        }
        let number = usize_of(random.below(writers.len() as u64));
        let state = std::mem::replace(&mut writers[number].state, State::Idle);
        writers[number].state = match state {
            State::Idle if writers[number].left.is_empty() => {
                writers.remove(number);
                return Ok(());
            }
            State::Idle if allowed == Allowed::NoTable || is_claimed(writers, number) => {
                State::Idle
            }
            State::Idle => self.prepare(&mut writers[number])?,
            State::Prepared(_) if random.below(8) == 0 => State::Idle,
            State::Prepared(allocation) => self.write(&mut writers[number], allocation)?,
            State::Written(allocation, _) => {
                allocation.commit()?;
                State::Idle
            }
        };
        Ok(())
    }

    /// Finds a place for the next part of a write; done, where it has one already.
    fn prepare<'r>(&mut self, writer: &mut Writer<'r>) -> Result<State<'r>, StepError> {
        let len = (writer.left.end - writer.left.start) * SECTOR;
        let at = GuestOffset::new(writer.left.start * SECTOR);
        match writer.request.prepare(at, len)? {
            Prepared::Allocating(allocation) => Ok(State::Prepared(allocation)),
            Prepared::InPlace { host, len } => {
                let (_, data) = self.ask(writer.left.start, len / SECTOR);
                self.storage.write_at(&data, host.get())?;
                writer.left.start += len / SECTOR;
                Ok(State::Idle)
            }
        }
    }

    fn write<'r>(
        &mut self,
        writer: &mut Writer<'r>,
        allocation: Allocation<&'r Image>,
    ) -> Result<State<'r>, StepError> {
        let sectors = allocation.len() / SECTOR;
        let (tag, data) = self.ask(writer.left.start, sectors);
        self.storage.write_at(&data, allocation.host().get())?;
        writer.left.start += sectors;
        Ok(State::Written(allocation, tag))
    }
}

/// What a turn may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    All,
    /// No look at a table: that may want the turn that a flush has.
    NoTable,
}

/// Whether another writer has clusters that this one may want: it would wait for ever.
fn is_claimed(writers: &[Writer<'_>], number: usize) -> bool {
    let clusters =
        |sectors: &Range<u64>| sectors.start / CRASH_CLUSTER..sectors.end.div_ceil(CRASH_CLUSTER);
    let wanted = clusters(&writers[number].left);
    writers.iter().filter_map(Writer::claimed).any(|claimed| {
        let claimed = clusters(&claimed);
        claimed.start < wanted.end && wanted.start < claimed.end
    })
}

/// The writes that are not complete.
fn under_way(writers: &[Writer<'_>]) -> Vec<Tag> {
    let tag = |writer: &Writer<'_>| match &writer.state {
        State::Written(_, tag) => Some(*tag),
        State::Idle | State::Prepared(_) => None,
    };
    writers.iter().filter_map(tag).collect()
}

impl Writer<'_> {
    fn claimed(&self) -> Option<Range<u64>> {
        match &self.state {
            State::Idle => None,
            State::Prepared(allocation) | State::Written(allocation, _) => {
                let guest = allocation.guest();
                Some(guest.start / SECTOR..guest.end.div_ceil(SECTOR))
            }
        }
    }
}
