//! Reading tables: in bounded pieces, holes skipped, never a whole table in memory.
//!
//! Owns the I/O of a check; knows where tables lie but not what is right or wrong about them.

use std::ops::Range;

use qed_io::{RunKind, Storage};
use qed_spec::{
    AutoclearFeatures, Features, HEADER_SECTOR_LEN_BYTES, Header, HostOffset, L1Index, TableEntry,
    UNDO_RECORD_LEN_BYTES, UndoRecord,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::CheckError;
use crate::layout::Layout;
use crate::marks::Marks;

/// Bytes of one read: large enough to hide a call's cost, small enough for a processor's cache.
const PIECE_BYTES: u64 = 256 << 10;

/// One image open for checking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) layout: Layout,
    /// The only tables that are looked at; all of them without it.
    /// Cluster after the last that may be held for undo without being named.
    pub(crate) held_end: u64,
    pub(crate) marked: Option<&'a Marks>,
}

/// A run of entries of one table, small enough to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The table: the L1 slot that names it. Unused for a piece of the L1 table itself.
    pub(crate) l1: L1Index,
    /// The slot of the table that the piece starts with.
    pub(crate) first: u64,
    /// Bytes.
    pub(crate) at: u64,
    /// Bytes, a multiple of 8.
    pub(crate) len: usize,
}

/// The incompatible features of images that can be checked; a journal is replayed first.
const SUPPORTED: Features = Features::CLASSIC.union(Features::CONVERSION_HOLD);

/// Where space ends that is held to undo a conversion in place.
// spec: QED-CONV-04
fn held_end(
    storage: &dyn Storage,
    layout: &Layout,
    sector: &[u8; HEADER_SECTOR_LEN_BYTES],
) -> Result<u64, CheckError> {
    let autoclear = layout.header.fields().autoclear_features;
    let end = UndoRecord::OFFSET.get() + UNDO_RECORD_LEN_BYTES as u64;
    if !autoclear.contains(AutoclearFeatures::CONVERSION_UNDO) || layout.file_len < end {
        return Ok(0);
    }
    let mut bytes = [0; UNDO_RECORD_LEN_BYTES];
    read(storage, &mut bytes, UndoRecord::OFFSET.get())?;
    let record = UndoRecord::parse(&bytes).ok().filter(|record| record.new_sector == *sector);
    Ok(record.map_or(0, |record| record.old_len.div_ceil(layout.cluster_size())))
}

impl<'a> Tables<'a> {
    /// Reads and checks the header.
    pub(crate) fn open(storage: &'a dyn Storage) -> Result<Self, CheckError> {
        let file_len = storage.len().map_err(CheckError::Len)?;
        let mut bytes = [0; HEADER_SECTOR_LEN_BYTES];
        let there = bytes.len().min(usize::try_from(file_len).unwrap_or(usize::MAX));
        read(storage, &mut bytes[..there], 0)?;
        let header =
            Header::parse(&bytes[..there], file_len, SUPPORTED).map_err(CheckError::Header)?;
        let layout = Layout::new(header, file_len);
        let held_end = held_end(storage, &layout, &bytes)?;
        Ok(Self { storage, layout, marked: None, held_end })
    }

    /// The L1 table in pieces.
    pub(crate) fn l1_pieces(&self) -> Pieces<'a> {
        self.pieces(L1Index::new(0), self.layout.l1_offset())
    }

    /// The L2 table that starts at cluster `start` in pieces.
    pub(crate) fn l2_pieces(&self, l1: L1Index, start: u64) -> Pieces<'a> {
        self.pieces(l1, start << self.layout.cluster_bits())
    }

    /// Whether the table of a slot is looked at.
    pub(crate) fn covers(&self, l1: L1Index) -> bool {
        self.marked.is_none_or(|marks| marks.contains(l1))
    }

    /// Calls `each` with every slot of the L1 table that is looked at and not 0, in order.
    pub(crate) fn for_each_l1(
        &self,
        mut each: impl FnMut(L1Index, u64) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        let mut buffer = PieceBuffer::default();
        self.for_each(self.l1_pieces(), &mut buffer, |slot, value| {
            let l1 = L1Index::new(slot);
            if self.covers(l1) { each(l1, value) } else { Ok(()) }
        })
    }

    /// Calls `each` with the number and value of every slot in `pieces` that is not 0, in order.
    pub(crate) fn for_each(
        &self,
        pieces: Pieces<'_>,
        buffer: &mut PieceBuffer,
        mut each: impl FnMut(u64, u64) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        for piece in pieces {
            let piece = piece?;
            for (slot, entry) in (piece.first..).zip(buffer.read(self, &piece)?) {
                if entry.get() != 0 {
                    each(slot, entry.get())?;
                }
            }
        }
        Ok(())
    }

    fn pieces(&self, l1: L1Index, at: u64) -> Pieces<'a> {
        let len = self.layout.header.geometry().table_size_bytes();
        // A table in the partial tail ends with the file; the rest of it reads as zeros.
        let file_end = self.layout.file_len.div_ceil(8).saturating_mul(8);
        let end = at.saturating_add(len).min(file_end);
        Pieces { storage: self.storage, l1, start: at, at, end, data_end: at }
    }
}

/// The parts of one table that may hold entries other than 0, in order.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    storage: &'a dyn Storage,
    l1: L1Index,
    start: u64,
    at: u64,
    end: u64,
    /// Up to here the storage is known to hold data.
    data_end: u64,
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece, CheckError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.data_end
            && let Err(error) = self.skip_hole()
        {
            self.at = self.end;
            return Some(Err(error));
        }
        if self.at >= self.end {
            return None;
        }
        let len = (self.data_end.min(self.end) - self.at).min(PIECE_BYTES);
        let piece = Piece {
            l1: self.l1,
            first: (self.at - self.start) / 8,
            at: self.at,
            len: usize::try_from(len).expect("a piece has at most 256 KiB"),
        };
        self.at += len;
        Some(Ok(piece))
    }
}

impl Pieces<'_> {
    /// Moves on to the next byte that may be data. Holes that do not end with an entry are cut.
    fn skip_hole(&mut self) -> Result<(), CheckError> {
        while self.at < self.end && self.at >= self.data_end {
            let run = self
                .storage
                .run_at(self.at)
                .map_err(|source| read_error(self.at..self.end, source))?;
            if run.kind == RunKind::Hole && run.len >= 8 {
                self.at = self.at.saturating_add(run.len & !7);
            } else {
                let end = self.at.saturating_add(run.len.max(8));
                self.data_end = end.checked_next_multiple_of(8).unwrap_or(self.end);
            }
        }
        Ok(())
    }
}

/// Memory for one piece, used again and again.
#[derive(Debug, Default)]
pub(crate) struct PieceBuffer(Vec<TableEntry>);

impl PieceBuffer {
    /// Reads the entries of `piece`; entries that the end of the file cuts off end in zeros.
    pub(crate) fn read(
        &mut self,
        tables: &Tables<'_>,
        piece: &Piece,
    ) -> Result<&mut [TableEntry], CheckError> {
        let count = piece.len / 8;
        if self.0.len() < count {
            self.0.resize(count, TableEntry::new_zeroed());
        }
        let entries = &mut self.0[..count];
        let bytes = entries.as_mut_bytes();
        let there = tables.layout.file_len.saturating_sub(piece.at);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(bytes.len());
        read(tables.storage, &mut bytes[..there], piece.at)?;
        bytes[there..].fill(0);
        Ok(entries)
    }
}

/// Reads exactly `buf`.
pub(crate) fn read(storage: &dyn Storage, buf: &mut [u8], at: u64) -> Result<(), CheckError> {
    let end = at.saturating_add(buf.len() as u64);
    storage.read_at(buf, at).map_err(|source| read_error(at..end, source))
}

fn read_error(range: Range<u64>, source: std::io::Error) -> CheckError {
    CheckError::Read { at: HostOffset::new(range.start), len: range.end - range.start, source }
}
