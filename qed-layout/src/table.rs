//! Reading tables: in bounded pieces, holes skipped, never a whole table in memory.
//!
//! Knows where a table lies but not what is right or wrong about its entries.

use std::ops::Range;

use qed_io::{RunKind, Storage};
use qed_spec::{HostOffset, TableEntry};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::{ReadError, read};

/// Bytes of one read: large enough to hide a call's cost, small enough for a processor's cache.
const PIECE_BYTES: u64 = 256 << 10;

/// Reads tables of one length from one file.
#[derive(Debug, Clone, Copy)]
pub struct TableReader<'a> {
    storage: &'a dyn Storage,
    file_len: u64,
    table_len: u64,
}

/// A run of entries of one table, small enough to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The slot of the table that the piece starts with.
    pub first: u64,
    /// Byte of the file that it starts with.
    pub at: u64,
    /// Bytes that the file has of it; the last entry is there in part if 8 does not divide them.
    pub len: usize,
}

impl<'a> TableReader<'a> {
    /// Of tables of `table_len` bytes, a multiple of 8, in a file of `file_len` bytes.
    #[must_use]
    pub const fn new(storage: &'a dyn Storage, file_len: u64, table_len: u64) -> Self {
        Self { storage, file_len, table_len }
    }

    /// The table at `table` in pieces. One that the end of the file cuts off ends with the file: the
    /// rest of it reads as zeros.
    #[must_use]
    pub fn pieces(&self, table: HostOffset) -> Pieces<'a> {
        self.pieces_from(table, 0)
    }

    /// As [`TableReader::pieces`], from the slot `first` on.
    #[must_use]
    pub fn pieces_from(&self, table: HostOffset, first: u64) -> Pieces<'a> {
        let start = table.get();
        let end = start.saturating_add(self.table_len).min(self.file_len);
        let at = start.saturating_add(first * 8);
        Pieces { storage: self.storage, start, at, end, data_end: at }
    }

    /// Calls `each` with the number and value of every slot of `pieces` that is not 0, in order.
    ///
    /// # Errors
    /// The storage's, and those of `each`.
    pub fn for_each<E: From<ReadError>>(
        &self,
        pieces: Pieces<'_>,
        buffer: &mut PieceBuffer,
        mut each: impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for piece in pieces {
            let piece = piece?;
            for (slot, entry) in (piece.first..).zip(buffer.read(self.storage, &piece)?) {
                if entry.get() != 0 {
                    each(slot, entry.get())?;
                }
            }
        }
        Ok(())
    }
}

/// The parts of one table, or of another range of the file, that may hold anything but zeros, in order.
#[derive(Debug)]
pub struct Pieces<'a> {
    storage: &'a dyn Storage,
    start: u64,
    at: u64,
    end: u64,
    /// Up to here the storage is known to hold data.
    data_end: u64,
}

impl<'a> Pieces<'a> {
    /// Of a range that lies inside the file; what begins with a multiple of 8 is cut between slots.
    #[must_use]
    pub const fn of(storage: &'a dyn Storage, range: Range<u64>) -> Self {
        Self { storage, start: range.start, at: range.start, end: range.end, data_end: range.start }
    }

    /// Moves on to the next byte that may be data. Holes that do not end with an entry are cut.
    fn skip_hole(&mut self) -> Result<(), ReadError> {
        while self.at < self.end && self.at >= self.data_end {
            let run = self
                .storage
                .run_at(self.at)
                .map_err(|source| ReadError::new(self.at..self.end, source))?;
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

impl Iterator for Pieces<'_> {
    type Item = Result<Piece, ReadError>;

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
            first: (self.at - self.start) / 8,
            at: self.at,
            len: usize::try_from(len).expect("a piece has at most 256 KiB"),
        };
        self.at += len;
        Some(Ok(piece))
    }
}

/// Memory for one piece, used again and again.
#[derive(Debug, Default)]
pub struct PieceBuffer(Vec<TableEntry>);

impl PieceBuffer {
    /// Reads the entries of `piece`; one that the end of the file cuts off ends in zeros.
    ///
    /// # Errors
    /// The storage's.
    pub fn read(
        &mut self,
        storage: &dyn Storage,
        piece: &Piece,
    ) -> Result<&mut [TableEntry], ReadError> {
        let count = piece.len.div_ceil(8);
        if self.0.len() < count {
            self.0.resize(count, TableEntry::new_zeroed());
        }
        let entries = &mut self.0[..count];
        let (there, rest) = entries.as_mut_bytes().split_at_mut(piece.len);
        read(storage, there, piece.at)?;
        rest.fill(0);
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use qed_io::MemoryStorage;

    use super::*;

    #[test]
    fn every_byte_that_is_not_a_hole_comes_once() {
        let mut bytes = vec![0; 300_000];
        for at in [0, 7, 100, 65_535, 65_536, 262_144, 299_992, 299_999] {
            bytes[at] = 1;
        }
        let storage = MemoryStorage::new(bytes.clone());
        let mut buffer = PieceBuffer::default();
        for range in [0..300_000, 8..16, 96..262_208, 299_992..300_000, 299_992..299_999, 8..8] {
            let mut seen = vec![0; 300_008];
            for piece in Pieces::of(&storage, range.clone()) {
                let piece = piece.expect("memory does not fail");
                let entries = buffer.read(&storage, &piece).expect("inside the file");
                let at = usize::try_from(range.start + piece.first * 8).expect("small");
                assert_eq!(piece.at, at as u64);
                seen[at..at + entries.len() * 8].copy_from_slice(entries.as_bytes());
            }
            let range = usize::try_from(range.start).expect("small")
                ..usize::try_from(range.end).expect("small");
            assert!(seen[range.clone()] == bytes[range.clone()], "{range:?}");
            assert!(seen[range.end..].iter().all(|byte| *byte == 0), "{range:?}");
        }
    }

    #[test]
    fn a_table_is_read_from_any_slot_to_the_end_of_the_file() {
        let mut bytes = vec![0; 8 * 100];
        for slot in [3, 40, 99] {
            bytes[slot * 8] = 7;
        }
        bytes.extend([9, 9, 9]);
        let storage = MemoryStorage::new(bytes);
        let reader = TableReader::new(&storage, 803, 8 * 200);
        for (first, expected) in [(0, 4), (4, 3), (99, 2), (100, 1), (101, 0), (200, 0)] {
            let mut found = Vec::new();
            let pieces = reader.pieces_from(HostOffset::new(0), first);
            let read = reader.for_each(pieces, &mut PieceBuffer::default(), |slot, value| {
                found.push((slot, value));
                Ok::<(), ReadError>(())
            });
            read.expect("memory does not fail");
            let all = [(3, 7), (40, 7), (99, 7), (100, 0x09_0909)];
            assert_eq!(found, all[4 - expected..], "from {first}");
        }
    }
}
