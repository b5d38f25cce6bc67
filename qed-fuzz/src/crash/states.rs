//! Every state that a crash may leave of a recorded run.
//!
//! The disk model of docs/write-ordering.md: between two completed flushes each sector
//! independently holds its durable version or any written since, and so does the length. A flush
//! covers the writes that completed before it was submitted.

use std::collections::BTreeMap;

use qed_io::{Operation, Record};

use crate::random::Random;
use crate::size::usize_of;
use crate::sparse::{Sector, SparseContent};

/// A moment of a recorded run at which power may fail: a flush is about to complete, or the end.
#[derive(Debug, Clone)]
pub struct CrashPoint {
    /// How many records were submitted before.
    pub position: usize,
    /// The order number of the moment; `u64::MAX` at the end.
    pub order: u64,
    pub(crate) durable: SparseContent,
    /// What was written since the last completed flush, oldest first; the first is the durable one.
    /// One alone was written with the bytes that it had.
    pub(crate) sectors: Vec<(u64, Vec<Sector>)>,
    pub(crate) lens: Vec<u64>,
    /// Whether something of it was written while the flush before was under way, which does not
    /// cover it.
    pub(crate) carried: bool,
}

/// Which version of each sector of a crash point survives, and last, which length.
pub(crate) type Choice = [usize];

/// So few choices are all made, whatever they are about.
const FEW: u64 = 64;

/// All crash points of a run that began with `start`.
///
/// The states of any other moment are among those of the next flush.
#[must_use]
pub fn crash_points(start: &SparseContent, records: &[Record]) -> Vec<CrashPoint> {
    Timeline::new(start).crash_points(records)
}

/// The disk of a run that began with `start` at each of these moments, in order.
pub(crate) fn disks_at(
    start: &SparseContent,
    records: &[Record],
    orders: impl Iterator<Item = u64>,
) -> Vec<Timeline> {
    let mut timeline = Timeline::new(start);
    let mut moments = moments(records).into_iter().peekable();
    orders
        .map(|order| {
            while let Some((at, moment)) = moments.next_if(|(at, _)| *at < order) {
                timeline.pass(records, at, moment);
            }
            timeline.clone()
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
enum Moment {
    Submitted(usize),
    Completed(usize),
}

/// Starts and ends of all operations, in order.
fn moments(records: &[Record]) -> Vec<(u64, Moment)> {
    let mut moments = Vec::with_capacity(2 * records.len());
    for (position, record) in records.iter().enumerate() {
        moments.push((record.submitted, Moment::Submitted(position)));
        if let Some(completion) = record.completion {
            moments.push((completion.order, Moment::Completed(position)));
        }
    }
    moments.sort_unstable_by_key(|(order, _)| *order);
    moments
}

/// A version, and when the operation that made it was submitted and completed.
#[derive(Debug, Clone, Copy)]
struct Version<T> {
    value: T,
    submitted: u64,
    completed: u64,
}

/// What is durable at a moment of a run and what was written since.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    durable: SparseContent,
    now: SparseContent,
    sectors: BTreeMap<u64, Vec<Version<Sector>>>,
    lens: Vec<Version<u64>>,
    /// Whether any of these is older than the last flush that completed.
    carried: bool,
    /// The last moment that has passed.
    last_order: u64,
}

impl Timeline {
    fn new(start: &SparseContent) -> Self {
        let (sectors, lens) = (BTreeMap::new(), Vec::new());
        let (durable, now) = (start.clone(), start.clone());
        Self { durable, now, sectors, lens, carried: false, last_order: 0 }
    }

    /// What the page cache has: all that was written.
    pub(crate) fn now(&self) -> &SparseContent {
        &self.now
    }

    pub(crate) fn last_order(&self) -> u64 {
        self.last_order
    }

    /// All crash points of a run that goes on from here, whose order numbers are greater than those before.
    pub(crate) fn crash_points(mut self, records: &[Record]) -> Vec<CrashPoint> {
        let mut points = Vec::new();
        for (order, moment) in moments(records) {
            if let Moment::Completed(position) = moment
                && records[position].operation == Operation::Flush
            {
                let submitted =
                    records.iter().take_while(|record| record.submitted < order).count();
                // What was submitted while the flush was under way counts, the flush does not.
                let is_beside = submitted > position + 1;
                let before = if is_beside { submitted } else { position };
                points.push(self.point(before, order));
            }
            self.pass(records, order, moment);
        }
        points.push(self.point(records.len(), u64::MAX));
        points
    }

    fn pass(&mut self, records: &[Record], order: u64, moment: Moment) {
        self.last_order = order;
        match moment {
            Moment::Submitted(position) => self.submit(&records[position], order),
            Moment::Completed(position) => {
                let Record { operation, submitted, .. } = &records[position];
                match operation {
                    Operation::Flush => self.make_durable(*submitted),
                    _ => self.complete(*submitted, order),
                }
            }
        }
    }

    fn submit(&mut self, record: &Record, submitted: u64) {
        if record.operation == Operation::Flush {
            return;
        }
        let completed = u64::MAX;
        let touched = self.now.touched(&record.operation);
        let was_len = self.now.len();
        self.now.apply(&record.operation);
        for number in touched {
            let version = Version { value: self.now.sector(number), submitted, completed };
            self.sectors.entry(number).or_default().push(version);
        }
        if self.now.len() != was_len {
            self.lens.push(Version { value: self.now.len(), submitted, completed });
        }
    }

    fn complete(&mut self, submitted: u64, completed: u64) {
        let sectors = self.sectors.values_mut().filter_map(|versions| {
            versions.iter_mut().rfind(|version| version.submitted == submitted)
        });
        sectors.for_each(|version| version.completed = completed);
        let len = self.lens.iter_mut().rfind(|version| version.submitted == submitted);
        len.into_iter().for_each(|version| version.completed = completed);
    }

    /// What completed before a flush was submitted is durable now that the flush has completed.
    fn make_durable(&mut self, flush: u64) {
        if let Some(len) = cover(&mut self.lens, flush) {
            self.durable.set_len(len);
        }
        for (number, versions) in &mut self.sectors {
            if let Some(sector) = cover(versions, flush) {
                self.durable.set_sector(*number, &sector);
            }
        }
        self.sectors.retain(|_, versions| !versions.is_empty());
        self.carried = !self.sectors.is_empty() || !self.lens.is_empty();
    }

    fn point(&self, position: usize, order: u64) -> CrashPoint {
        let sectors = self.sectors.iter().map(|(number, versions)| {
            let mut all = vec![self.durable.sector(*number)];
            for version in versions {
                if !all.contains(&version.value) {
                    all.push(version.value);
                }
            }
            (*number, all)
        });
        let mut lens = vec![self.durable.len()];
        for version in &self.lens {
            if !lens.contains(&version.value) {
                lens.push(version.value);
            }
        }
        CrashPoint {
            position,
            order,
            durable: self.durable.clone(),
            sectors: sectors.collect(),
            lens,
            carried: self.carried,
        }
    }
}

/// Takes the versions out that a flush covers; the last of them. One that was submitted before and has not
/// completed may still come.
fn cover<T: Copy>(versions: &mut Vec<Version<T>>, flush: u64) -> Option<T> {
    let last = versions.iter().rfind(|version| version.completed < flush)?.value;
    versions.retain(|version| version.completed >= flush);
    Some(last)
}

impl CrashPoint {
    /// Lets a sector that was being written hold garbage as well, where `tears` says so of its
    /// number: what blocks with a checksum must survive. Zeros written over zeros stay zeros, so
    /// that the states do not multiply without need.
    #[must_use]
    pub fn with_garbage(mut self, tears: impl Fn(u64) -> bool) -> Self {
        for (number, versions) in &mut self.sectors {
            let last = versions[versions.len() - 1];
            let is_written = versions.len() > 1 || last.iter().any(|byte| *byte != 0);
            if tears(*number) && is_written {
                versions.insert(1, last.map(|byte| byte.rotate_left(3) ^ 0x5a));
                if versions.len() == 2 {
                    versions.push(last);
                }
            }
        }
        self
    }

    /// Calls `visit` with each state, or where there are more than `most` with a sample: nothing,
    /// everything, each change alone, each missing, pairs, then random ones up to an eighth of
    /// `most`.
    pub fn for_each_state(&self, most: u64, mut visit: impl FnMut(SparseContent)) {
        self.for_each_choice(most, most / 8, |choice| visit(self.state(choice)));
    }

    /// As [`CrashPoint::for_each_state`], with `random` of the last kind.
    pub(crate) fn for_each_choice(&self, most: u64, random: u64, visit: impl FnMut(&Choice)) {
        let mut numbers = Random::new(self.position as u64 + 1);
        enumerate(&self.radices(), most, random, &mut numbers, visit);
    }

    /// As [`CrashPoint::for_each_choice`] of metadata and length alone, each with none of the other
    /// sectors, all and some of them. Few choices are all made.
    pub(crate) fn for_each_by_metadata(
        &self,
        is_metadata: impl Fn(usize) -> bool,
        most: u64,
        mut visit: impl FnMut(&Choice),
    ) {
        let radices = self.radices();
        if product(&radices).is_some_and(|product| product <= FEW) {
            return self.for_each_choice(FEW, 0, visit);
        }
        let length = radices.len() - 1;
        let data: Vec<usize> =
            (0..length).filter(|i| !is_metadata(*i) && radices[*i] > 1).collect();
        let mut metadata = radices.clone();
        data.iter().for_each(|i| metadata[*i] = 1);
        let mut numbers = Random::new(self.position as u64 + 1);
        let mut some = numbers.clone();
        enumerate(&metadata, most, most, &mut numbers, |choice| {
            visit(choice);
            if data.is_empty() {
                return;
            }
            let mut with = choice.to_vec();
            data.iter().for_each(|i| with[*i] = radices[*i] - 1);
            visit(&with);
            data.iter().for_each(|i| with[*i] = usize_of(some.below(radices[*i] as u64)));
            visit(&with);
        });
    }

    /// The state with these versions of the sectors and, last, of the length.
    pub(crate) fn state(&self, choice: &Choice) -> SparseContent {
        let mut content = self.durable.clone();
        content.set_len(self.lens[choice[choice.len() - 1]]);
        for ((number, versions), version) in self.sectors.iter().zip(choice) {
            if *version > 0 {
                content.set_sector(*number, &versions[*version]);
            }
        }
        content
    }

    /// The choice of all that was written last: what the disk holds without a crash.
    pub(crate) fn everything(&self) -> Vec<usize> {
        self.radices().iter().map(|n| n - 1).collect()
    }

    /// A choice that random numbers make.
    pub(crate) fn any(&self, random: &mut Random) -> Vec<usize> {
        self.radices().iter().map(|n| usize_of(random.below(*n as u64))).collect()
    }

    /// How many versions there are of each sector, and last, of the length.
    fn radices(&self) -> Vec<usize> {
        self.sectors.iter().map(|(_, all)| all.len()).chain([self.lens.len()]).collect()
    }
}

/// Calls `visit` with all choices, or where there are more than `most` with a sample.
fn enumerate(
    radices: &[usize],
    most: u64,
    random: u64,
    numbers: &mut Random,
    mut visit: impl FnMut(&Choice),
) {
    if let Some(product) = product(radices).filter(|product| *product <= most) {
        (0..product).for_each(|number| visit(&digits(radices, number)));
        return;
    }
    let none = vec![0; radices.len()];
    let all: Vec<usize> = radices.iter().map(|n| n - 1).collect();
    visit(&none);
    visit(&all);
    let changed: Vec<usize> = (0..radices.len()).filter(|i| radices[*i] > 1).collect();
    for i in &changed {
        let mut alone = none.clone();
        alone[*i] = all[*i];
        visit(&alone);
        let mut missing = all.clone();
        missing[*i] = 0;
        visit(&missing);
    }
    for _ in 0..random / 8 {
        let [a, b] = [0; 2].map(|_| changed[usize_of(numbers.below(changed.len() as u64))]);
        let mut pair = none.clone();
        (pair[a], pair[b]) = (all[a], all[b]);
        visit(&pair);
    }
    for _ in 0..random {
        let pick = |n: &usize| usize_of(numbers.below(*n as u64));
        visit(&radices.iter().map(pick).collect::<Vec<_>>());
    }
}

/// How many choices there are; none if they cannot be counted.
fn product(radices: &[usize]) -> Option<u64> {
    radices.iter().try_fold(1_u64, |all, n| all.checked_mul(*n as u64))
}

/// A number as a choice: the first radix is its lowest digit.
fn digits(radices: &[usize], number: u64) -> Vec<usize> {
    let mut rest = number;
    let digit = |n: &usize| {
        let versions = *n as u64;
        let digit = rest % versions;
        rest /= versions;
        usize_of(digit)
    };
    radices.iter().map(digit).collect()
}
