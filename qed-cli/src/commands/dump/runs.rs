//! Table entries, read piece by piece and shown as runs of one kind.

use std::io;

use qed_io::Storage;
use qed_layout::{PieceBuffer, TableReader};
use qed_spec::{Geometry, HostOffset, L1Entry, L2Entry};

use super::areas::{Area, AreaKind};
use super::layout::Layout;

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
    let meaning: fn(u64, Geometry, u64) -> Meaning = match area.kind {
        AreaKind::L1Table => l1_meaning,
        AreaKind::L2Table(_) => l2_meaning,
        _ => return Ok(()),
    };
    let Some(geometry) = layout.geometry else { return Ok(()) };
    let mut last: Option<Run> = None;
    let mut add = |first: u64, value, count| {
        let meaning = meaning(value, geometry, layout.file_len);
        match &mut last {
            Some(run) if run.goes_on_with(meaning, value) => run.count += count,
            _ => {
                let step = match meaning {
                    Meaning::Data => geometry.cluster_size_bytes(),
                    Meaning::Table => geometry.table_size_bytes(),
                    _ => 0,
                };
                let run = Run { first, count, meaning, value, step };
                last.replace(run).map_or(Ok(()), &mut show)?;
            }
        }
        io::Result::Ok(())
    };
    let mut next = 0;
    let reader = TableReader::new(storage, layout.file_len, geometry.table_size_bytes());
    reader.for_each(
        reader.pieces(HostOffset::new(area.start)),
        &mut PieceBuffer::default(),
        |slot, value| {
            // What is left out is 0, however large the table claims to be.
            if next < slot {
                add(next, 0, slot - next)?;
            }
            next = slot + 1;
            anyhow::Ok(add(slot, value, 1)?)
        },
    )?;
    if next < geometry.table_entries() {
        add(next, 0, geometry.table_entries() - next)?;
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
