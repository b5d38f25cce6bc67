//! Table entries, read piece by piece and shown as runs of one kind.

use std::io;

use qed_io::{RunKind, Storage};
use qed_spec::{Geometry, L1Entry, L2Entry};

use super::areas::{Area, AreaKind};
use super::layout::Layout;

/// Bytes read at a time.
pub(super) const PIECE_LEN: u64 = 64 << 10;

/// Entries of a table that follow each other and say the same, or name clusters in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Index of the first entry.
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) meaning: Meaning,
    /// The value of the first entry.
    pub(super) value: u64,
    /// What the value grows by from entry to entry.
    step: u64,
}

/// What the entries of a run say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Unallocated,
    Zero,
    Table,
    Data,
    /// A table or cluster that is not inside the file.
    PastEnd,
    /// Neither a special value nor aligned.
    Invalid,
}

impl Meaning {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unallocated => "unallocated",
            Self::Zero => "zero",
            Self::Table => "l2_table",
            Self::Data => "data",
            Self::PastEnd => "past_end_of_file",
            Self::Invalid => "invalid",
        }
    }
}

/// Calls `show` for the runs of a table; other areas have none.
pub(super) fn for_each(
    storage: &dyn Storage,
    layout: &Layout,
    area: &Area,
    mut show: impl FnMut(Run) -> io::Result<()>,
) -> anyhow::Result<()> {
    let is_l1 = match area.kind {
        AreaKind::L1Table => true,
        AreaKind::L2Table(_) => false,
        _ => return Ok(()),
    };
    let Some(geometry) = layout.geometry else { return Ok(()) };
    let mut last: Option<Run> = None;
    let mut entries = Entries::of(storage, area.start, geometry);
    while let Some(piece) = entries.next_piece()? {
        let (first, values, count) = match &piece {
            // All of a hole is one entry, as often as it is there.
            Piece::Hole { first, count } => (*first, &[0][..], *count),
            Piece::Values { first, values } => (*first, &values[..], 1),
        };
        for (index, &value) in (first..).zip(values) {
            let meaning = if is_l1 {
                l1_meaning(value, geometry, layout.file_len)
            } else {
                l2_meaning(value, geometry, layout.file_len)
            };
            if let Some(run) = &mut last
                && run.goes_on_with(meaning, value)
            {
                run.count += count;
                continue;
            }
            if let Some(run) = last.take() {
                show(run)?;
            }
            let step = match meaning {
                Meaning::Data => geometry.cluster_size_bytes(),
                Meaning::Table => geometry.table_size_bytes(),
                _ => 0,
            };
            last = Some(Run { first: index, count, meaning, value, step });
        }
    }
    last.map_or(Ok(()), show)?;
    Ok(())
}

impl Run {
    fn goes_on_with(&self, meaning: Meaning, value: u64) -> bool {
        let next = self.step.checked_mul(self.count).and_then(|sum| self.value.checked_add(sum));
        self.meaning == meaning && next == Some(value)
    }
}

fn l1_meaning(value: u64, geometry: Geometry, file_len: u64) -> Meaning {
    match L1Entry::decode(value, geometry) {
        Ok(L1Entry::Unallocated) => Meaning::Unallocated,
        Ok(L1Entry::Table(_)) => {
            let end = value.checked_add(geometry.table_size_bytes());
            if end.is_some_and(|end| end <= file_len) { Meaning::Table } else { Meaning::PastEnd }
        }
        Err(_) => Meaning::Invalid,
    }
}

fn l2_meaning(value: u64, geometry: Geometry, file_len: u64) -> Meaning {
    match L2Entry::decode(value, geometry) {
        Ok(L2Entry::Unallocated) => Meaning::Unallocated,
        Ok(L2Entry::Zero) => Meaning::Zero,
        Ok(L2Entry::Data(_)) if value < file_len => Meaning::Data,
        Ok(L2Entry::Data(_)) => Meaning::PastEnd,
        Err(_) => Meaning::Invalid,
    }
}

/// The entries of one table, read front to back.
pub(super) struct Entries<'a> {
    storage: &'a dyn Storage,
    table: u64,
    at: u64,
    len: u64,
}

/// Entries that follow each other.
pub(super) enum Piece {
    /// This many from the first are 0: nothing is stored there, so nothing is read, however large
    /// the table claims to be.
    Hole { first: u64, count: u64 },
    /// The values from the first on.
    Values { first: u64, values: Vec<u64> },
}

impl<'a> Entries<'a> {
    /// The table at byte `table`, which lies inside the file.
    pub(super) fn of(storage: &'a dyn Storage, table: u64, geometry: Geometry) -> Self {
        Self { storage, table, at: 0, len: geometry.table_size_bytes() }
    }

    /// The next piece; none at the end of the table.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        if self.at >= self.len {
            return Ok(None);
        }
        let (first, at, left) = (self.at / 8, self.table + self.at, self.len - self.at);
        let run = self.storage.run_at(at)?;
        let hole = run.len.min(left) / PIECE_LEN * PIECE_LEN;
        if run.kind == RunKind::Hole && hole > 0 {
            self.at += hole;
            return Ok(Some(Piece::Hole { first, count: hole / 8 }));
        }
        let mut bytes = vec![0; usize::try_from(PIECE_LEN.min(left)).unwrap_or(0)];
        self.storage.read_at(&mut bytes, at)?;
        self.at += bytes.len() as u64;
        let values = bytes
            .chunks_exact(8)
            .map(|value| u64::from_le_bytes(value.try_into().expect("chunks of eight bytes")));
        Ok(Some(Piece::Values { first, values: values.collect() }))
    }
}
