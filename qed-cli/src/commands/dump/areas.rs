//! The areas of an image file, by name.

use std::fmt;

use qed_spec::L1Index;

/// A stretch of the file with one meaning; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    /// First byte.
    pub(super) start: u64,
    /// Byte after the last.
    pub(super) end: u64,
    pub(super) kind: AreaKind,
}

/// What an area is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AreaKind {
    Header,
    BackingName,
    SuperblockA,
    SuperblockB,
    Anchor,
    /// The marks of tables that a crash sets in doubt.
    DirtyBitmap,
    /// The ring of the journal.
    Journal,
    /// The rest of the header area; whether it is all zero.
    HeaderUnused {
        zero: bool,
    },
    L1Table,
    /// The table of this L1 entry.
    L2Table(L1Index),
    /// Whole clusters of guest data, one at the end of the file perhaps cut off.
    Data,
    /// Clusters that no table names.
    Unreferenced,
    /// What cannot be told, since the header breaks a rule.
    Unknown,
}

impl AreaKind {
    /// The name that the JSON form uses.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::BackingName => "backing_filename",
            Self::SuperblockA => "superblock_a",
            Self::SuperblockB => "superblock_b",
            Self::Anchor => "anchor",
            Self::DirtyBitmap => "dirty_bitmap",
            Self::Journal => "journal",
            Self::HeaderUnused { .. } => "header_unused",
            Self::L1Table => "l1_table",
            Self::L2Table(_) => "l2_table",
            Self::Data => "data",
            Self::Unreferenced => "unreferenced",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for AreaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderUnused { zero: true } => f.write_str("header_unused, all zero"),
            Self::HeaderUnused { zero: false } => f.write_str("header_unused, not all zero"),
            Self::L2Table(l1) => write!(f, "l2_table of {l1}"),
            other => f.write_str(other.name()),
        }
    }
}
