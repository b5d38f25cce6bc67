//! Every state that a crash may leave of a recorded run.
//!
//! The disk model of docs/write-ordering.md: between two completed flushes each sector
//! independently holds its durable version or any written since, and so does the length.

use std::collections::BTreeMap;

use qed_io::{Operation, Record};

use super::disk::{DiskContent, Sector};
use crate::random::Random;

/// A moment of a recorded run at which power may fail: a flush is about to complete, or the end.
#[derive(Debug, Clone)]
pub struct CrashPoint {
    /// How many records were submitted before.
    pub position: usize,
    durable: DiskContent,
    /// What was written since the last completed flush, oldest first; the first is the durable one.
    /// One alone was written with the bytes that it had.
    sectors: Vec<(u64, Vec<Sector>)>,
    lens: Vec<u64>,
}

/// All crash points of a run of one thread that began with `start`.
///
/// The states of any other moment are among those of the next flush.
#[must_use]
pub fn crash_points(start: &DiskContent, records: &[Record]) -> Vec<CrashPoint> {
    let mut points = Vec::new();
    let (mut durable, mut now) = (start.clone(), start.clone());
    let mut versions = BTreeMap::new();
    let mut lens = vec![start.len];
    let point =
        |position, durable: &DiskContent, versions: &BTreeMap<u64, Vec<Sector>>, lens: &[u64]| {
            let sectors = versions.iter().map(|(number, all)| (*number, all.clone())).collect();
            CrashPoint { position, durable: durable.clone(), sectors, lens: lens.to_vec() }
        };
    for (position, record) in records.iter().enumerate() {
        if record.operation == Operation::Flush {
            points.push(point(position, &durable, &versions, &lens));
            durable = now.clone();
            versions.clear();
            lens = vec![now.len];
            continue;
        }
        let touched = now.touched(&record.operation);
        now.apply(&record.operation);
        for number in touched {
            let all: &mut Vec<Sector> =
                versions.entry(number).or_insert_with(|| vec![durable.sector(number)]);
            if !all.contains(&now.sector(number)) {
                all.push(now.sector(number));
            }
        }
        if !lens.contains(&now.len) {
            lens.push(now.len);
        }
    }
    points.push(point(records.len(), &durable, &versions, &lens));
    points
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
    /// everything, each change alone, each missing, then random ones up to an eighth of `most`.
    pub fn for_each_state(&self, most: u64, mut visit: impl FnMut(DiskContent)) {
        let radices: Vec<usize> =
            self.sectors.iter().map(|(_, all)| all.len()).chain([self.lens.len()]).collect();
        let product = radices.iter().try_fold(1_u64, |all, n| all.checked_mul(*n as u64));
        if let Some(product) = product.filter(|product| *product <= most) {
            for mut number in 0..product {
                let digit = |n: &usize| {
                    let versions = *n as u64;
                    let digit = number % versions;
                    number /= versions;
                    to_index(digit)
                };
                visit(self.state(&radices.iter().map(digit).collect::<Vec<_>>()));
            }
            return;
        }
        let none = vec![0; radices.len()];
        let all: Vec<usize> = radices.iter().map(|n| n - 1).collect();
        visit(self.state(&none));
        visit(self.state(&all));
        for i in (0..radices.len()).filter(|i| radices[*i] > 1) {
            let mut alone = none.clone();
            alone[i] = all[i];
            visit(self.state(&alone));
            let mut missing = all.clone();
            missing[i] = 0;
            visit(self.state(&missing));
        }
        let mut random = Random::new(1);
        for _ in 0..most / 8 {
            let pick = |n: &usize| to_index(random.below(*n as u64));
            visit(self.state(&radices.iter().map(pick).collect::<Vec<_>>()));
        }
    }

    /// The state with these versions of the sectors and, last, of the length.
    fn state(&self, choice: &[usize]) -> DiskContent {
        let mut content = self.durable.clone();
        for ((number, versions), version) in self.sectors.iter().zip(choice) {
            content.sectors.insert(*number, versions[*version]);
        }
        content.set_len(self.lens[choice[choice.len() - 1]]);
        content
    }
}

fn to_index(digit: u64) -> usize {
    usize::try_from(digit).expect("less than the number of versions")
}
