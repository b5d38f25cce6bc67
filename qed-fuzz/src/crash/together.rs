//! Writers that take turns in an order drawn from a seed, discards between their steps, and flushes
//! between these and beside them: what threads do, on one thread that can do it again.

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
    /// Has found its clusters, and not written to them: a discard may take their names away.
    InPlace(InPlace),
    /// Has its clusters, and not its data.
    Prepared(Allocation<&'r Image>),
    /// Its data is in the file, and nothing says so.
    Written(Allocation<&'r Image>, Tag),
}

struct InPlace {
    host: u64,
    sectors: Range<u64>,
    tag: Tag,
    data: Vec<u8>,
}

impl Runner {
    /// Does the writes, part by part, and the discards.
    pub(crate) fn together(
        &mut self,
        image: &Image,
        writes: &[(u64, u64)],
        discards: &[(u64, u64)],
        order: u64,
    ) -> Result<(), StepError> {
        let mut discards = discards.to_vec();
        let requests: Vec<_> = writes.iter().map(|_| image.request()).collect();
        let mut writers = Vec::new();
        for ((first, count), request) in writes.iter().zip(&requests) {
            writers.push(Writer { request, left: *first..first + count, state: State::Idle });
        }
        let mut random = Random::new(order);
        while !writers.is_empty() {
            match random.below(8) {
                0 => self.flush(image, under_way(&writers))?,
                1 => self.flush_beside(image, &mut writers, &mut random)?,
                2 => self.discard_one(image, &writers, &mut discards)?,
                3 => drop(image.maintain(self.now)?),
                _ => self.turn(&mut writers, &mut random, Allowed::All)?,
            }
            self.answered(under_way(&writers));
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

    /// The next discard, unless it would wait for a writer.
    fn discard_one(
        &mut self,
        image: &Image,
        writers: &[Writer<'_>],
        discards: &mut Vec<(u64, u64)>,
    ) -> Result<(), StepError> {
        let Some((first, count)) = discards.pop() else { return Ok(()) };
        if is_met(writers, &(first..first + count), |writer| writer.claimed()) {
            discards.push((first, count));
            return Ok(());
        }
        self.discard(image, first, count)
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
            State::InPlace(InPlace { host, data, .. }) => {
                self.storage.write_at(&data, host)?;
                State::Idle
            }
            State::Prepared(_) if random.below(8) == 0 => State::Idle,
            State::Prepared(allocation) => self.write(&mut writers[number], allocation)?,
            State::Written(allocation, _) => {
                allocation.commit()?;
                State::Idle
            }
        };
        Ok(())
    }

    /// Finds a place for the next part of a write.
    fn prepare<'r>(&mut self, writer: &mut Writer<'r>) -> Result<State<'r>, StepError> {
        let len = (writer.left.end - writer.left.start) * SECTOR;
        let at = GuestOffset::new(writer.left.start * SECTOR);
        match writer.request.prepare(at, len)? {
            Prepared::Allocating(allocation) => Ok(State::Prepared(allocation)),
            Prepared::InPlace { host, len } => {
                let sectors = writer.left.start..writer.left.start + len / SECTOR;
                let (tag, data) = self.ask(sectors.start, len / SECTOR);
                writer.left.start = sectors.end;
                Ok(State::InPlace(InPlace { host: host.get(), sectors, tag, data }))
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

/// Whether another writer has clusters that this one may want: it would wait for ever, or nobody knew
/// whose write is the last.
fn is_claimed(writers: &[Writer<'_>], number: usize) -> bool {
    is_met(writers, &writers[number].left, |writer| writer.claimed().or_else(|| writer.in_place()))
}

/// Whether one of the ranges that writers have is in a cluster of the `wanted`.
fn is_met<'r>(
    writers: &[Writer<'r>],
    wanted: &Range<u64>,
    range: impl Fn(&Writer<'r>) -> Option<Range<u64>>,
) -> bool {
    let clusters =
        |sectors: &Range<u64>| sectors.start / CRASH_CLUSTER..sectors.end.div_ceil(CRASH_CLUSTER);
    let wanted = clusters(wanted);
    writers.iter().filter_map(range).any(|range| {
        let range = clusters(&range);
        range.start < wanted.end && wanted.start < range.end
    })
}

/// The writes that are not complete.
fn under_way(writers: &[Writer<'_>]) -> Vec<Tag> {
    let tag = |writer: &Writer<'_>| match &writer.state {
        State::Written(_, tag) | State::InPlace(InPlace { tag, .. }) => Some(*tag),
        State::Idle | State::Prepared(_) => None,
    };
    writers.iter().filter_map(tag).collect()
}

impl Writer<'_> {
    fn in_place(&self) -> Option<Range<u64>> {
        match &self.state {
            State::InPlace(InPlace { sectors, .. }) => Some(sectors.clone()),
            State::Idle | State::Prepared(_) | State::Written(..) => None,
        }
    }

    fn claimed(&self) -> Option<Range<u64>> {
        match &self.state {
            State::Idle | State::InPlace(_) => None,
            State::Prepared(allocation) | State::Written(allocation, _) => {
                let guest = allocation.guest();
                Some(guest.start / SECTOR..guest.end.div_ceil(SECTOR))
            }
        }
    }
}
