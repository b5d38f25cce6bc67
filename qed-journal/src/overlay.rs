//! Committed slots that the tables on disk do not hold yet: a map of runs that do not overlap.
//!
//! Knows offsets and 8-byte values; neither blocks nor what a table is.

use std::collections::BTreeMap;

use qed_spec::{HostOffset, SlotRun};

/// Table slots and what they hold, as runs: the later of two values for a slot stands.
///
/// Takes memory for runs, not for slots: a run of a million slots costs as much as one slot.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// By the offset of their first slot.
    runs: BTreeMap<u64, Run>,
}

/// Slots that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Byte after the last slot.
    end: u64,
    /// Value of the first slot.
    first: u64,
    /// What each next slot has more.
    step: u64,
}

const SLOT_LEN_BYTES: u64 = 8;

impl Overlay {
    /// How many runs there are, which is what the memory is for.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Whether no slot has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Puts the slots that have a value into `bytes`, which were read from `at` of the file.
    ///
    /// # Panics
    /// If `at` or the length is not a multiple of 8: slots are patched whole.
    pub fn patch(&self, bytes: &mut [u8], at: HostOffset) {
        let at = at.get();
        let len = bytes.len() as u64;
        assert!((at | len).is_multiple_of(SLOT_LEN_BYTES), "slots are patched whole");
        let end = at.saturating_add(len);
        for (start, run) in self.overlapping(at, end) {
            let from = start.max(at);
            let slots = &mut bytes[to_index(from - at)..to_index(run.end.min(end) - at)];
            let mut value = run.value_at(start, from);
            for slot in slots.chunks_exact_mut(size_of::<u64>()) {
                slot.copy_from_slice(&value.to_le_bytes());
                value = value.wrapping_add(run.step);
            }
        }
    }

    /// Whether a slot in `start..end` of the file has a value.
    #[must_use]
    pub fn touches(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).next().is_some()
    }

    /// The first byte from `from` on that belongs to a slot with a value.
    #[must_use]
    pub fn next_touched(&self, from: u64) -> Option<u64> {
        self.overlapping(from, u64::MAX).next().map(|(start, _)| start.max(from))
    }

    /// Gives slots their values, whatever they held before.
    pub(crate) fn set(&mut self, slots: &SlotRun) {
        let (start, end) = (slots.at().get(), slots.end().get());
        let run = Run { end, first: slots.first(), step: slots.step() };
        // Most runs overlap none or replace one: that takes one search, or two.
        match self.runs.range_mut(..end).next_back() {
            Some((&at, same)) if at == start && same.end == end => *same = run,
            Some((_, last)) if last.end > start => {
                self.clear(start, end);
                self.runs.insert(start, run);
            }
            Some((&before, last)) if last.continues_with(before, start, &run) => last.end = end,
            _ => drop(self.runs.insert(start, run)),
        }
    }

    /// Whether all of `start..end` belongs to slots with values.
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        let mut reached = start;
        for (from, run) in self.overlapping(start, end) {
            if from > reached {
                return false;
            }
            reached = run.end;
        }
        reached >= end
    }

    /// Takes the values of the slots in `start..end` away.
    fn clear(&mut self, start: u64, end: u64) {
        if let Some((&before, run)) = self.runs.range_mut(..start).next_back()
            && run.end > start
        {
            let old = *run;
            run.end = start;
            if old.end > end {
                self.runs.insert(end, old.from(before, end));
            }
        }
        while let Some((&from, &run)) = self.runs.range(start..end).next() {
            self.runs.remove(&from);
            if run.end > end {
                self.runs.insert(end, run.from(from, end));
            }
        }
    }

    /// The runs that have bytes in `start..end`, with the offsets of their first slots.
    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Run)> {
        let before = self.runs.range(..start).next_back().filter(move |(_, run)| run.end > start);
        let inside = self.runs.range(start..end.max(start));
        before.into_iter().chain(inside).map(|(from, run)| (*from, *run))
    }
}

impl Run {
    /// The value of the slot at `at`, in a run that begins at `start`.
    fn value_at(&self, start: u64, at: u64) -> u64 {
        self.first.wrapping_add(((at - start) / SLOT_LEN_BYTES).wrapping_mul(self.step))
    }

    /// What is left of a run that began at `start` when it begins at `at`.
    fn from(self, start: u64, at: u64) -> Self {
        Self { first: self.value_at(start, at), ..self }
    }

    /// Whether `next`, which begins at `at`, goes on where this run, from `start`, ends.
    fn continues_with(&self, start: u64, at: u64, next: &Self) -> bool {
        self.end == at && self.step == next.step && self.value_at(start, at) == next.first
    }
}

fn to_index(within: u64) -> usize {
    usize::try_from(within).expect("less than the length of a buffer")
}

#[cfg(test)]
mod tests;
