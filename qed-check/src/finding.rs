//! What a check can find: the kinds with their permanent numbers, and the places they name.
//!
//! Owns the vocabulary only; how a finding is come by, and how it is mended, is decided elsewhere.

use core::fmt;

use qed_spec::{HostOffset, L1Index, L2Index};

/// How much a finding matters, in the order of `qemu-img check`'s exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Worth knowing; neither data nor space is at stake.
    Note,
    /// Space is wasted, no harm to data.
    Leak,
    /// Data may be wrong, or a write may destroy other data.
    Corruption,
}

macro_rules! finding_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $class:ident, $can_repair:literal, $rule:literal;)*) => {
        /// One rule that an image can break. The numbers are permanent and never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum FindingKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl FindingKind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The permanent number.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// How much it matters.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// Whether [`crate::repair`] mends it.
            #[must_use]
            pub const fn can_repair(self) -> bool {
                match self { $(Self::$name => $can_repair,)* }
            }

            /// The broken rule in words that follow the place and the value.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $(Self::$name => $rule,)* }
            }
        }
    };
}

finding_kinds! {
    /// An L1 entry is neither 0 nor cluster-aligned.
    L1Unaligned = 101, Corruption, true, "is not cluster-aligned";
    /// An L1 entry names a table that ends past the end of the file.
    L1PastEnd = 102, Corruption, true, "names a table that ends past the end of the file";
    /// An L1 entry names a table whose last cluster is cut off by the end of the file.
    L1InPartialTail = 103, Corruption, true, "names a table whose last cluster is cut off by the end of the file";
    /// An L1 entry names a table that starts in the header area.
    L1IntoHeader = 104, Corruption, true, "names a table in the header area";
    /// An L1 entry names a table that overlaps the L1 table.
    L1IntoL1Table = 105, Corruption, true, "names a table that overlaps the L1 table";
    /// An L1 entry names the same table as an earlier one.
    L1SharedTable = 106, Corruption, true, "names a table that an earlier L1 entry names";
    /// An L1 entry names a table that overlaps that of an earlier one.
    L1OverlapsTable = 107, Corruption, true, "names a table that overlaps the table of an earlier L1 entry";
    /// An L1 entry lies past the end of the virtual disk.
    L1BeyondImage = 108, Leak, true, "lies past the end of the virtual disk";
    /// An L2 entry is neither 0, 1 nor cluster-aligned.
    L2Unaligned = 201, Corruption, true, "is not cluster-aligned";
    /// An L2 entry names a cluster past the end of the file.
    L2PastEnd = 202, Corruption, true, "names a cluster past the end of the file";
    /// An L2 entry names a cluster that is cut off by the end of the file.
    L2InPartialTail = 203, Corruption, true, "names a cluster that is cut off by the end of the file";
    /// An L2 entry names a cluster of the header area.
    L2IntoHeader = 204, Corruption, true, "names a cluster of the header area";
    /// An L2 entry names a cluster of the L1 table.
    L2IntoL1Table = 205, Corruption, true, "names a cluster of the L1 table";
    /// An L2 entry names a cluster of an L2 table.
    L2IntoL2Table = 206, Corruption, true, "names a cluster of an L2 table";
    /// An L2 entry names the same data cluster as an earlier one.
    L2Duplicate = 207, Corruption, true, "names a cluster that an earlier L2 entry names";
    /// An L2 entry that is not 0 lies past the end of the virtual disk.
    L2BeyondImage = 208, Leak, true, "lies past the end of the virtual disk";
    /// Whole clusters at the end of the file that nothing names, in an image that is classic: in others
    /// they are free space, [`crate::Statistics::free_clusters`], and no finding.
    LeakAtEnd = 301, Leak, true, "at the end of the file: no table names them";
    /// Whole clusters inside the file that nothing names, of a classic image.
    LeakInside = 302, Leak, false, "no table names them";
    /// Bytes after the last whole cluster that nothing names.
    UnusedPartialTail = 303, Note, true, "part of a cluster at the end of the file: no table names it";
}

/// One thing found: which rule, where, what value, and what else is involved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The rule that is broken.
    pub kind: FindingKind,
    /// Where it is broken.
    pub place: Place,
    /// The 64-bit value of the table entry; 0 where the place is no table entry.
    pub value: u64,
    /// For a table or cluster that is claimed twice, or lies in metadata: who claimed it first.
    pub first: Option<Place>,
}

/// A place in the image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The header area, clusters 0 to `header_size`.
    HeaderArea,
    /// The L1 table as a whole.
    L1Table,
    /// A slot of the L1 table; for [`Finding::first`] also the L2 table that it names.
    L1Slot {
        /// The slot.
        l1: L1Index,
        /// Where its eight bytes lie.
        at: HostOffset,
    },
    /// A slot of an L2 table.
    L2Slot {
        /// The slot of the L1 table that names the L2 table.
        l1: L1Index,
        /// The slot of the L2 table.
        l2: L2Index,
        /// Where its eight bytes lie.
        at: HostOffset,
    },
    /// Clusters of the file, as a run.
    Clusters {
        /// The first byte.
        at: HostOffset,
        /// How many clusters, from 1; the last one may be cut off by the end of the file.
        count: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if matches!(self.place, Place::L1Slot { .. } | Place::L2Slot { .. }) {
            write!(f, " holds {:#x}: it {}", self.value, self.kind.rule())?;
        } else {
            write!(f, ": {}", self.kind.rule())?;
        }
        match self.first {
            Some(first) => write!(f, ", first claimed by {first}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderArea => write!(f, "the header area"),
            Self::L1Table => write!(f, "the L1 table"),
            Self::L1Slot { l1, at } => write!(f, "{l1} at {at}"),
            Self::L2Slot { l1, l2, at } => write!(f, "{l1}.{l2} at {at}"),
            Self::Clusters { at, count: 1 } => write!(f, "1 cluster at {at}"),
            Self::Clusters { at, count } => write!(f, "{count} clusters at {at}"),
        }
    }
}
