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
    while let Some((first, values)) = entries.next_piece()? {
        for (index, value) in (first..).zip(values) {
            let meaning = if is_l1 {
                l1_meaning(value, geometry, layout.file_len)
            } else {
                l2_meaning(value, geometry, layout.file_len)
            };
            if let Some(run) = &mut last
                && run.goes_on_with(meaning, value)
            {
                run.count += 1;
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
            last = Some(Run { first: index, count: 1, meaning, value, step });
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

impl<'a> Entries<'a> {
    /// The table at byte `table`, which lies inside the file.
    pub(super) fn of(storage: &'a dyn Storage, table: u64, geometry: Geometry) -> Self {
        Self { storage, table, at: 0, len: geometry.table_size_bytes() }
    }

    /// The next values and the index of the first of them.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<(u64, Vec<u64>)>> {
        if self.at >= self.len {
            return Ok(None);
        }
        let (first, len) = (self.at / 8, PIECE_LEN.min(self.len - self.at));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let at = self.table + self.at;
        let run = self.storage.run_at(at)?;
        if run.kind == RunKind::Data || run.len < len {
            self.storage.read_at(&mut bytes, at)?;
        }
        self.at += len;
        let values = bytes
            .chunks_exact(8)
            .map(|value| u64::from_le_bytes(value.try_into().expect("chunks of eight bytes")));
        Ok(Some((first, values.collect())))
    }
}
