//! A walk through all L2 tables beside requests: the entries as they are now, of the cache, of the
//! journal or of the file, without keeping any in the cache.
//!
//! Of an entry that changes meanwhile the walk sees one value that it has had since the walk began.

use std::ops::Range;

use qed_io::RunKind;
use qed_spec::{HostOffset, L1Index, L2Index};
use zerocopy::IntoBytes;

use crate::error::{ImageError, IoAction};
use crate::map::cache::Glance;
use crate::map::mapping::{EntryAt, NamedBy};
use crate::map::slice::{BadSlots, SLICE_ENTRIES, Slice};
use crate::map::tables::Tables;
use crate::space::owner::Written;
use crate::space::sweep::WalkPlace;

/// Entries of a slice.
const SLICE: usize = 512;
/// Slices that are read at a time.
const PIECE_SLICES: u64 = 64;

/// Where a walk is, and its memory.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    place: WalkPlace,
    values: Vec<u64>,
    read: Vec<u64>,
}

impl Walk {
    /// A walk that goes on from a place.
    pub(crate) fn from(place: WalkPlace) -> Self {
        Self { place, ..Self::default() }
    }

    pub(crate) fn place(&self) -> WalkPlace {
        self.place
    }
}

/// A part of one table: its first slot, and for each slice the byte after the last that an entry may name.
struct Piece {
    l1: L1Index,
    first: u64,
    limits: Vec<u64>,
}

impl Tables {
    /// Shows the walk's next piece of a table: runs of clusters that entries name one after the other, the
    /// table's own before its first piece, and by what they are named. False at the end of all tables.
    ///
    /// # Errors
    /// A table that cannot be read, an entry that breaks a rule other than that of being the only one,
    /// and what `each` says of a run.
    pub(crate) fn walk_on(
        &self,
        walk: &mut Walk,
        mut each: impl FnMut(Range<u64>, NamedBy) -> Result<(), ImageError>,
    ) -> Result<bool, ImageError> {
        let entries = self.geometry.table_entries();
        let at = &mut walk.place;
        if at.slot >= entries {
            (at.l1, at.slot) = (at.l1 + 1, 0);
        }
        if at.slot == 0 {
            at.l1 += self.l1.missing(L1Index::new(at.l1), u64::MAX);
        }
        if at.l1 >= self.l1.len() {
            return Ok(false);
        }
        let l1 = L1Index::new(at.l1);
        let slots = at.slot..(at.slot + PIECE_SLICES * SLICE_ENTRIES).min(entries);
        at.slot = slots.end;
        let Some(table) = self.table(l1)? else {
            at.slot = entries;
            return Ok(true);
        };
        let home = self.geometry.host_offset(table).checked_add(slots.start * 8);
        let home = home.expect("a legal table lies inside the file");
        if slots.start == 0 {
            let clusters = table.get()..table.get() + self.geometry.table_size_clusters();
            each(clusters, NamedBy::L1(l1))?;
        }
        if let Some(slot) = self.behind_hole(l1, slots.clone(), home)? {
            walk.place.slot = slot;
            return Ok(true);
        }
        let piece = self.read_piece(l1, slots, home, walk)?;
        self.show_runs(&piece, &walk.values, &mut each)?;
        Ok(true)
    }

    /// Where the walk goes on, if the piece is part of a hole of the file, of which the cache has nothing:
    /// most of a sparse table is none that anybody wrote.
    fn behind_hole(
        &self,
        l1: L1Index,
        slots: Range<u64>,
        home: HostOffset,
    ) -> Result<Option<u64>, ImageError> {
        if self.journal().is_some_and(|journal| journal.usage().runs > 0) {
            return Ok(None);
        }
        let entries = self.geometry.table_entries();
        let hole_from = || {
            let run = self.storage.run_at(home.get());
            run.map_err(ImageError::io(IoAction::ReadTable, home))
        };
        let run = hole_from()?;
        let hole = (run.len / 8).min(entries - slots.start);
        if run.kind != RunKind::Hole || hole < slots.end - slots.start {
            return Ok(None);
        }
        let end = slots.start + hole - hole % SLICE_ENTRIES;
        let first = l1.get() * entries / SLICE_ENTRIES;
        let slices = first + slots.start / SLICE_ENTRIES..first + end / SLICE_ENTRIES;
        if self.cache.has_any(&slices) {
            return Ok(None);
        }
        // Once more: what was in the cache before may have been written home since the first look.
        Ok((hole_from()? == run).then_some(end))
    }

    /// Copies the entries of a piece.
    ///
    /// Those that are in the cache first: what was not there then is in the file or the journal, whatever
    /// becomes of the slice meanwhile.
    fn read_piece(
        &self,
        l1: L1Index,
        slots: Range<u64>,
        home: HostOffset,
        walk: &mut Walk,
    ) -> Result<Piece, ImageError> {
        let count = usize::try_from(slots.end - slots.start).expect("a piece is small");
        walk.values.resize(count, 0);
        let number = (l1.get() * self.geometry.table_entries() + slots.start) / SLICE_ENTRIES;
        let mut piece = Piece { l1, first: slots.start, limits: Vec::new() };
        let mut of_file = Vec::new();
        for (index, part) in walk.values.chunks_mut(SLICE).enumerate() {
            let limit = match self.cache.glance(number + index as u64, Slice::values) {
                Glance::Cached(Ok(values)) => {
                    part.copy_from_slice(&values);
                    // They were judged when they came there.
                    u64::MAX
                }
                Glance::Cached(Err((slot, value))) => {
                    return Err(self.bad_entry(piece.at(index * SLICE + slot), value));
                }
                Glance::InFile { written } => {
                    let state = written.map_or(Written::BeforeOpen, |_| Written::InSession);
                    of_file.push((index, written.unwrap_or_default()));
                    self.space().limit(l1, state)
                }
            };
            piece.limits.push(limit);
        }
        if !of_file.is_empty() {
            self.read_missing(walk, home, &of_file)?;
        }
        // What was bad when it was first read is bad yet, where this session wrote around it.
        for (index, bad) in of_file {
            let is_bad = |slot: &usize| bad[slot / 64] >> (slot % 64) & 1 == 1;
            if let Some(slot) = (0..SLICE).find(is_bad).map(|slot| index * SLICE + slot) {
                return Err(self.bad_entry(piece.at(slot), walk.values[slot]));
            }
        }
        Ok(piece)
    }

    /// Fills in the slices that are not cached.
    fn read_missing(
        &self,
        walk: &mut Walk,
        home: HostOffset,
        slices: &[(usize, BadSlots)],
    ) -> Result<(), ImageError> {
        let Walk { values, read, .. } = walk;
        if slices.len() * SLICE == values.len() {
            return self.read_values(values, home);
        }
        read.resize(values.len(), 0);
        self.read_values(read, home)?;
        for (index, _) in slices {
            let part = index * SLICE..(index + 1) * SLICE;
            values[part.clone()].copy_from_slice(&read[part]);
        }
        Ok(())
    }

    fn read_values(&self, values: &mut [u64], home: HostOffset) -> Result<(), ImageError> {
        let read = match self.journal() {
            Some(journal) => journal.read_at(values.as_mut_bytes(), home),
            None => self.storage.read_at(values.as_mut_bytes(), home.get()),
        };
        read.map_err(ImageError::io(IoAction::ReadTable, home))?;
        values.iter_mut().for_each(|value| *value = u64::from_le(*value));
        Ok(())
    }

    fn show_runs(
        &self,
        piece: &Piece,
        values: &[u64],
        each: &mut impl FnMut(Range<u64>, NamedBy) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let (size, bits) = (self.geometry.cluster_size_bytes(), self.geometry.cluster_bits());
        for (index, values) in values.chunks(SLICE).enumerate() {
            let mut slot = 0;
            while slot < values.len() {
                let first = slot;
                slot += 1;
                let value = values[first];
                // Unallocated, or a zero cluster.
                if value <= 1 {
                    continue;
                }
                let mut end = value.wrapping_add(size);
                while slot < values.len() && values[slot] == end {
                    (slot, end) = (slot + 1, end.wrapping_add(size));
                }
                let at = piece.at(index * SLICE + first);
                if value % size != 0 || end < value || end > piece.limits[index] {
                    return Err(self.bad_entry(at, value));
                }
                each(value >> bits..end >> bits, NamedBy::L2(at))?;
            }
        }
        Ok(())
    }
}

impl Piece {
    fn at(&self, index: usize) -> EntryAt {
        EntryAt { l1: self.l1, l2: L2Index::new(self.first + index as u64) }
    }
}
