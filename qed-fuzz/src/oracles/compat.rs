//! What the superblock of an image says about its consistency, worked out from its bytes.
//!
//! Shares nothing with the code that believes it but header and superblock, which have oracles of their own.

use qed_check::{Class, Finding, FindingKind, Place};
use qed_spec::{Features, Header, SectionType, SuperblockChoice, SuperblockCopy};

use crate::oracles::journal::place_of_bitmap;
use crate::sparse::SparseContent;

/// How an image keeps its tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As the base format says.
    Classic,
    /// With marks of the tables that are being changed; none where nobody kept them up.
    Compat(Option<Vec<u8>>),
    /// In a way that nobody may write.
    Unknown,
}

impl Kept {
    /// Reads the superblock of an image that has a legal header and no journal.
    pub(crate) fn of(content: &SparseContent) -> Self {
        let first = content.bytes(0..content.len().min(512));
        let header = Header::parse(&first, content.len(), Features::CLASSIC);
        let header = header.expect("the header was legal before");
        if !SuperblockCopy::both_fit(&header) {
            return Self::Classic;
        }
        let [a, b] = [8192, 12288].map(|at| content.bytes(at..at + 4096));
        let Ok(choice) = SuperblockChoice::new(&a, &b) else { return Self::Unknown };
        let Some((_, superblock)) = choice.current() else { return Self::Classic };
        let payload = |kind| superblock.section(kind).map(|section| section.payload());
        match payload(SectionType::MODE) {
            None => Self::Classic,
            Some([1, 0, 0, 0]) => {
                let is_kept = header.fields().autoclear_features.bits() & 1 << 32 != 0;
                let payload = payload(SectionType::TABLE_DIRTY).filter(|_| is_kept);
                let place = payload.and_then(|payload| place_of_bitmap(&header, payload));
                Self::Compat(place.map(|(start, end)| content.bytes(start..end)))
            }
            Some(_) => Self::Unknown,
        }
    }

    /// Whether the superblock of such an image names a consistency mode, so that the next writer uses what
    /// nothing names.
    // spec: QED-CHK-02
    pub(crate) fn frees_space(content: &SparseContent) -> bool {
        let first = content.bytes(0..content.len().min(512));
        let header = Header::parse(&first, content.len(), Features::CLASSIC);
        if !SuperblockCopy::both_fit(&header.expect("the header was legal before")) {
            return false;
        }
        let [a, b] = [8192, 12288].map(|at| content.bytes(at..at + 4096));
        let Ok(choice) = SuperblockChoice::new(&a, &b) else { return false };
        let mode = choice.current().and_then(|(_, current)| current.section(SectionType::MODE));
        mode.is_some_and(|mode| matches!(mode.payload(), [1 | 2, 0, 0, 0]))
    }

    /// Whether all tables are checked before the image is written, whatever NEED_CHECK says.
    // spec: QED-DIRTY-08
    pub(crate) fn wants_check(&self) -> bool {
        *self == Self::Compat(None)
    }

    /// Whether any table is marked: those without a mark need not be looked at then.
    pub(crate) fn is_marked(&self) -> bool {
        matches!(self, Self::Compat(Some(marks)) if marks.iter().any(|byte| *byte != 0))
    }

    /// Whether a check after a crash may pass by what a full check finds: it is about a table
    /// without its mark, while another one has its, or about clusters that no table names.
    // spec: QED-DIRTY-07
    pub(crate) fn leaves(&self, finding: &Finding) -> bool {
        let Self::Compat(Some(marks)) = self else { return false };
        let is_unmarked = |place: &Place| match place {
            Place::L1Slot { l1, .. } | Place::L2Slot { l1, .. } => {
                let byte = usize::try_from(l1.get() / 8).ok().and_then(|at| marks.get(at));
                byte.is_none_or(|byte| byte >> (l1.get() % 8) & 1 == 0)
            }
            _ => false,
        };
        let is_unnamed =
            finding.kind.class() == Class::Leak || finding.kind == FindingKind::UnusedPartialTail;
        self.is_marked()
            && (is_unnamed
                || is_unmarked(&finding.place)
                || finding.first.as_ref().is_some_and(is_unmarked))
    }
}
