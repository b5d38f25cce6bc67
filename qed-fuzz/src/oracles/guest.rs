//! What the guest sees of an image by its bytes, and that a reader shows just that.

use std::collections::BTreeSet;
use std::ops::Range;

use qed_core::{GuestExtent, GuestExtentKind, VirtualDisk};

use crate::oracles::reference::Reference;
use crate::size::usize_of;

/// Extents that are asked for, at most: the rest of a disk that has more is like them.
const MAX_EXTENTS: usize = 4096;
/// Runs that are read, and bytes at each end of one.
const MAX_READS: usize = 64;
const READ_LEN: u64 = 8192;

/// A virtual disk as it must be seen.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    reference: &'a Reference,
    /// All that is not unallocated, in order.
    runs: Vec<Run>,
    /// What a raw file under the image holds.
    backing: Option<&'a [u8]>,
    /// What two entries name.
    shared: BTreeSet<u64>,
}

/// A run of guest bytes that come from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) guest: Range<u64>,
    pub(crate) source: Source,
}

/// Where guest bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Unallocated,
    Zero,
    /// From this byte of the file on.
    Data(u64),
    /// As data, or an error once the other entry that names the cluster was met.
    Shared(u64),
    /// An entry that breaks a rule: an error to the request that meets it.
    Corrupt,
}

/// How far a reader goes to find entries that break a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Open for reading: each entry by itself, and after a crash those past the end count for
    /// nothing.
    AsItIs,
    /// Open for writing: entries into L2 tables, too, and those that name what another one names.
    Vetted,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(reference: &'a Reference, reader: Reader, backing: Option<&'a [u8]>) -> Self {
        let (mut named, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for (_, value) in reference.tables.iter().flat_map(|table| &table.entries) {
            if !named.insert(*value) {
                shared.insert(*value);
            }
        }
        let mut guest = Self { reference, runs: Vec::new(), backing, shared };
        for table in reference.tables.iter().filter(|table| table.slot < reference.l1_slots()) {
            let start = table.slot * reference.coverage;
            if !reference.is_open_to(table.value, reference.table_clusters()) {
                let len = reference.table_clusters() * reference.cluster;
                if !guest.is_dangling(reader, table.value, len) {
                    guest.push(start, reference.coverage, Source::Corrupt);
                }
                continue;
            }
            for (slot, value) in &table.entries {
                let source = guest.source(reader, *value);
                guest.push(start + slot * reference.cluster, reference.cluster, source);
            }
        }
        guest
    }

    /// The runs that are not unallocated, in order.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Bytes of the virtual disk.
    pub(crate) fn len(&self) -> u64 {
        self.reference.image_size
    }

    fn source(&self, reader: Reader, value: u64) -> Source {
        let reference = self.reference;
        let is_metadata = || {
            let slots = 0..reference.l1_slots();
            let mut tables = reference.tables.iter().filter(|table| slots.contains(&table.slot));
            tables.any(|table| {
                let len = reference.table_clusters() * reference.cluster;
                table.start.is_ok() && (table.value..table.value + len).contains(&value)
            })
        };
        if value == 1 {
            Source::Zero
        } else if reference.is_open_to(value, 1) && !(reader == Reader::Vetted && is_metadata()) {
            let is_shared = reader == Reader::Vetted && self.shared.contains(&value);
            if is_shared { Source::Shared(value) } else { Source::Data(value) }
        } else if self.is_dangling(reader, value, reference.cluster) {
            Source::Unallocated
        } else {
            Source::Corrupt
        }
    }

    fn is_dangling(&self, reader: Reader, value: u64, len: u64) -> bool {
        let is_past_end = value.saturating_add(len) > self.reference.content.len();
        let is_cluster = value.is_multiple_of(self.reference.cluster);
        reader == Reader::AsItIs && self.reference.is_dirty && is_cluster && is_past_end
    }

    /// Adds a run as far as it lies inside the disk, joined with the one before it.
    fn push(&mut self, start: u64, len: u64, source: Source) {
        let guest = start..start.saturating_add(len).min(self.len());
        if guest.is_empty() || source == Source::Unallocated {
            return;
        }
        if let Some(last) = self.runs.last_mut().filter(|last| last.guest.end == guest.start) {
            let joins = match (last.source, source) {
                (Source::Data(first), Source::Data(next)) => {
                    first + (guest.start - last.guest.start) == next
                }
                (Source::Shared(_), _) => false,
                (last, next) => last == next,
            };
            if joins {
                last.guest.end = guest.end;
                return;
            }
        }
        self.runs.push(Run { guest, source });
    }

    /// The run at a byte of the disk, from that byte on.
    pub(crate) fn run_at(&self, at: u64) -> Run {
        let next = self.runs.partition_point(|run| run.guest.end <= at);
        match self.runs.get(next) {
            Some(run) if run.guest.contains(&at) => {
                let source = match run.source {
                    Source::Data(host) => Source::Data(host + (at - run.guest.start)),
                    Source::Shared(host) => Source::Shared(host + (at - run.guest.start)),
                    other => other,
                };
                Run { guest: at..run.guest.end, source }
            }
            run => {
                let end = run.map_or(self.len(), |run| run.guest.start);
                Run { guest: at..end, source: Source::Unallocated }
            }
        }
    }

    /// The bytes of a range; none if part of it cannot be read.
    pub(crate) fn bytes(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let run = self.run_at(at);
            let end = run.guest.end.min(range.end);
            match run.source {
                Source::Corrupt => return None,
                Source::Zero => bytes.resize(bytes.len() + usize_of(end - at), 0),
                Source::Data(host) | Source::Shared(host) => {
                    bytes.extend(self.reference.content.bytes(host..host + (end - at)));
                }
                Source::Unallocated => bytes.extend(self.below(at..end)),
            }
            at = end;
        }
        Some(bytes)
    }

    /// What lies under the image, zeros where nothing does.
    fn below(&self, range: Range<u64>) -> Vec<u8> {
        let under = self.backing.unwrap_or_default();
        let clip = |at: u64| usize_of(at.min(under.len() as u64));
        let mut bytes = under[clip(range.start)..clip(range.end)].to_vec();
        bytes.resize(usize_of(range.end - range.start), 0);
        bytes
    }

    /// The disk has these runs, each byte in one of them, and reads as they say.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn assert_shown_by(&self, disk: &dyn VirtualDisk) {
        assert_eq!(disk.len(), self.len(), "bytes of the disk");
        self.assert_mapped_by(disk);
        let mut at = 0;
        for _ in 0..MAX_READS {
            if at >= self.len() {
                break;
            }
            let run = self.run_at(at).guest;
            self.assert_read_by(disk, at..run.end.min(at + READ_LEN));
            self.assert_read_by(disk, at.max(run.end.saturating_sub(READ_LEN))..run.end);
            at = run.end;
        }
    }

    fn assert_mapped_by(&self, disk: &dyn VirtualDisk) {
        let mut at = 0;
        for _ in 0..MAX_EXTENTS {
            if at >= self.len() {
                return;
            }
            let run = self.run_at(at);
            let extent = disk.extent_at(at, self.len() - at);
            if run.source == Source::Corrupt {
                assert!(extent.is_err(), "a bad entry at {at:#x} is shown as {extent:?}");
                at = run.guest.end;
                continue;
            }
            if matches!(run.source, Source::Shared(_)) && extent.is_err() {
                at = run.guest.end;
                continue;
            }
            let extent = extent.unwrap_or_else(|error| panic!("{at:#x}, {run:x?}: {error:?}"));
            // An extent goes on over what is named twice, until that is known.
            let is_long = extent.len > run.guest.end - at && self.shared.is_empty();
            let fits = extent.len > 0 && !is_long;
            assert!(fits && self.is_shown_right(&run, &extent), "{run:x?} as {extent:x?}");
            at += extent.len;
        }
    }

    fn is_shown_right(&self, run: &Run, extent: &GuestExtent) -> bool {
        let at = run.guest.start;
        let below = self.backing.map_or(0, |under| under.len() as u64).next_multiple_of(512);
        match (run.source, extent.kind) {
            (Source::Data(host) | Source::Shared(host), GuestExtentKind::Data { host_offset }) => {
                extent.depth == 0 && host == host_offset
            }
            (Source::Zero, GuestExtentKind::Zero) => extent.depth == 0,
            (Source::Unallocated, GuestExtentKind::Unallocated) => at >= below,
            (Source::Unallocated, GuestExtentKind::Data { host_offset }) => {
                extent.depth == 1 && at < below && host_offset == at
            }
            (Source::Unallocated, GuestExtentKind::Zero) => extent.depth == 1 && at < below,
            _ => false,
        }
    }

    /// Whether part of a range may be an error.
    fn has_shared(&self, range: &Range<u64>) -> bool {
        let is_in = |run: &Run| run.guest.start < range.end && range.start < run.guest.end;
        let mut runs = self.runs.iter().filter(|run| is_in(run));
        runs.any(|run| matches!(run.source, Source::Shared(_)))
    }

    /// A range reads as it must, or fails if part of it cannot be read.
    pub(crate) fn assert_read_by(&self, disk: &dyn VirtualDisk, range: Range<u64>) {
        let mut found = vec![0xee; usize_of(range.end - range.start)];
        let read = disk.read_at(&mut found, range.start);
        match self.bytes(range.clone()) {
            None => assert!(read.is_err(), "bad entries in {range:x?} are read"),
            Some(_) if read.is_err() && self.has_shared(&range) => {}
            Some(expected) => {
                assert!(read.is_ok(), "reading {range:x?}: {read:?}");
                let differ = found.iter().zip(&expected).position(|(found, want)| found != want);
                assert_eq!(
                    differ,
                    None,
                    "of the bytes {range:x?}, {:x?}",
                    self.run_at(range.start)
                );
            }
        }
    }
}
