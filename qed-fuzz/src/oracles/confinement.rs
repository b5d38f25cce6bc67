//! What a guest writes stays in its place: an image with bad tables, written to, has lost nothing
//! but what the guest overwrote.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qed_check::{CheckError, CheckOptions, Repair, check, repair};
use qed_core::{BackingGate, VirtualDisk};
use qed_io::Storage;

use crate::operation::{Operation, content};
use crate::oracles::guest::{Guest, Reader, Source};
use crate::oracles::reference::{Reference, Table};
use crate::oracles::validity::open_for_reading;
use crate::size::usize_of;
use crate::sparse::SparseStorage;

/// Runs of which the parts that nobody wrote to are compared, and bytes of each.
const MAX_RUNS: usize = 64;
const COMPARED: u64 = 4096;

/// An image as it was when it was opened, and what was written since.
#[derive(Debug)]
pub(crate) struct Before<'a> {
    reference: &'a Reference,
    guest: Guest<'a>,
    corruptions: u64,
    /// Data clusters that two entries name: what happens to one happens to the other.
    shared: BTreeSet<u64>,
    /// Guest clusters that were written to, as they must read now; none where a write failed.
    written: BTreeMap<u64, Option<Vec<u8>>>,
}

impl<'a> Before<'a> {
    /// The image that `reference` is about, in `storage`, with no backing file.
    pub(crate) fn new(storage: &dyn Storage, reference: &'a Reference) -> Self {
        let report = check(storage, &CheckOptions::default()).expect("small enough to be checked");
        let (mut named, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for (_, value) in reference.tables.iter().flat_map(|table| &table.entries) {
            if !named.insert(*value) {
                shared.insert(*value);
            }
        }
        Self {
            reference,
            guest: Guest::new(reference, Reader::Vetted, None),
            corruptions: report.corruptions(),
            shared,
            written: BTreeMap::new(),
        }
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.reference.cluster
    }

    pub(crate) fn image_size(&self) -> u64 {
        self.reference.image_size
    }

    /// Whether no cluster was named twice: a sweep may use space again.
    pub(crate) fn may_be_swept(&self) -> bool {
        self.shared.iter().all(|value| *value <= 1)
    }

    /// Where runs of the disk begin and end.
    pub(crate) fn edges(&self) -> Vec<u64> {
        self.guest.runs().iter().flat_map(|run| [run.guest.start, run.guest.end]).collect()
    }

    /// Notes what was written, or that it may have been.
    pub(crate) fn note(&mut self, operation: &Operation, is_done: bool) {
        let (range, data) = match operation {
            Operation::Write { range, fill } => (range.clone(), content(*fill, range.clone())),
            Operation::WriteZeroes { range } | Operation::Unmap { range } => {
                (range.clone(), vec![0; usize_of(range.end - range.start)])
            }
            Operation::Read { .. } | Operation::Flush | Operation::Resize { .. } => return,
        };
        let cluster = self.reference.cluster;
        for number in range.start / cluster..range.end.div_ceil(cluster) {
            let (start, end) = (number * cluster, ((number + 1) * cluster).min(self.image_size()));
            let guest = &self.guest;
            let bytes = self.written.entry(number).or_insert_with(|| guest.bytes(start..end));
            let part = range.start.max(start)..range.end.min(end);
            let new = &data[usize_of(part.start - range.start)..usize_of(part.end - range.start)];
            match bytes {
                Some(bytes) if is_done => bytes
                    [usize_of(part.start - start)..usize_of(part.end - start)]
                    .copy_from_slice(new),
                _ => *bytes = None,
            }
        }
    }

    /// The image, closed again, has its header area, no more bad entries than before, and all
    /// bytes of the guest but those that were written; so it has after a repair.
    ///
    /// # Panics
    /// If it has not.
    pub(crate) fn assert_confined(&self, storage: &Arc<SparseStorage>, gate: &dyn BackingGate) {
        let (before, after) = (&self.reference.content, storage.content());
        let header_area = 64..before.len().min(4096);
        assert_eq!(after.bytes(header_area.clone()), before.bytes(header_area), "header area");
        assert_eq!(after.bytes(0..16), before.bytes(0..16), "header");
        assert_eq!(after.bytes(40..64), before.bytes(40..64), "header");
        let report = check(&**storage, &CheckOptions::default()).expect("it could be checked");
        let (found, kinds) = (report.corruptions(), report.counts);
        // A slot past the end of the disk may come to name data as the file grows, and what is in
        // there is no table.
        let is_counted = self.reference.tables.iter().all(|table| self.is_of_disk(table));
        assert!(found <= self.corruptions || !is_counted, "{found} corruptions: {kinds:?}");
        self.assert_kept(storage, gate);
        match repair(&**storage, Repair::All) {
            Ok(_) => self.assert_kept(storage, gate),
            Err(CheckError::TooManyCopies { .. } | CheckError::TableOrData { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    fn is_of_disk(&self, table: &Table) -> bool {
        table.slot < self.reference.l1_slots()
    }

    fn assert_kept(&self, storage: &Arc<SparseStorage>, gate: &dyn BackingGate) {
        let image = open_for_reading(storage, gate).expect("it could be opened before");
        for (number, bytes) in &self.written {
            if let Some(bytes) = bytes.as_ref().filter(|_| !self.is_shared(*number)) {
                self.assert_reads(&image, number * self.reference.cluster, bytes);
            }
        }
        for run in self.guest.runs().iter().take(MAX_RUNS) {
            let cluster = self.reference.cluster;
            for number in run.guest.start / cluster..run.guest.end.div_ceil(cluster) {
                let start = number * cluster;
                let end = (start + cluster.min(COMPARED)).min(self.image_size());
                let is_theirs = self.written.contains_key(&number) || self.is_shared(number);
                if let Some(bytes) = self.guest.bytes(start..end).filter(|_| !is_theirs) {
                    self.assert_reads(&image, start, &bytes);
                }
            }
        }
    }

    fn is_shared(&self, number: u64) -> bool {
        let run = self.guest.run_at(number * self.reference.cluster);
        matches!(run.source, Source::Data(host) | Source::Shared(host) if self.shared.contains(&host))
    }

    fn assert_reads(&self, image: &dyn VirtualDisk, at: u64, expected: &[u8]) {
        let mut found = vec![0xee; expected.len()];
        let read = image.read_at(&mut found, at);
        assert!(read.is_ok(), "reading {at:#x}: {read:?}");
        let differ = found.iter().zip(expected).position(|(found, want)| found != want);
        assert_eq!(differ, None, "of the bytes at {at:#x}, {:x?}", self.guest.run_at(at));
    }
}
