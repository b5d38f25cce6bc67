//! The typed sections of a superblock: their types, and a walk over them without allocation.

use core::fmt;

use crate::features::{AutoclearFeatures, Features};
use crate::parse::{self, RawSection};
use crate::raw::{RawSuperblock, SECTIONS_LEN_BYTES};
use crate::superblock::error::SuperblockError;

/// What the payload of a section means. Any number is legal; few have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionType(u32);

/// One section of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    kind: SectionType,
    at: u32,
    payload: &'a [u8],
}

/// Iterates over the sections of one superblock in ascending order of type.
///
/// Made by [`crate::Superblock::sections`], after every section was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sections<'a> {
    /// Bytes of the sections not given yet.
    rest: &'a [u8],
    /// Bytes of the sections given already.
    before: usize,
}

// spec: QED-SB-08
impl SectionType {
    /// The consistency mode of the image.
    pub const MODE: Self = Self(1);
    /// The format of the backing file: [`crate::StoredBackingFormat`].
    pub const BACKING_FORMAT: Self = Self(2);
    /// Place and state of the journal.
    pub const JOURNAL: Self = Self(3);
    /// End of the image on a block device: [`crate::PhysicalSize`].
    pub const PHYSICAL_SIZE: Self = Self(4);
    /// Place of the per-table dirty bitmap, and its epoch size.
    pub const TABLE_DIRTY: Self = Self(5);
    /// Place of the stored freelist.
    pub const FREELIST: Self = Self(6);
    /// Roots of the internal snapshots.
    pub const SNAPSHOTS: Self = Self(7);
    /// Place of the encryption header.
    pub const ENCRYPTION: Self = Self(8);
    /// The codec of compressed clusters.
    pub const CODEC: Self = Self(9);
    /// Record of a conversion in place.
    pub const CONVERSION: Self = Self(10);
    /// Who has the image open for writing: [`crate::ImageOwner`].
    pub const OWNER: Self = Self(11);

    /// The type with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The name the specification gives it, if it does.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::MODE => Some("MODE"),
            Self::BACKING_FORMAT => Some("BACKING_FORMAT"),
            Self::JOURNAL => Some("JOURNAL"),
            Self::PHYSICAL_SIZE => Some("PHYSICAL_SIZE"),
            Self::TABLE_DIRTY => Some("TABLE_DIRTY"),
            Self::FREELIST => Some("FREELIST"),
            Self::SNAPSHOTS => Some("SNAPSHOTS"),
            Self::ENCRYPTION => Some("ENCRYPTION"),
            Self::CODEC => Some("CODEC"),
            Self::CONVERSION => Some("CONVERSION"),
            Self::OWNER => Some("OWNER"),
            _ => None,
        }
    }

    /// Whether a section of this type may be believed in an image with these feature bits.
    ///
    /// False for a type without a name. An autoclear bit makes a section a hint, no more: another
    /// program may have appended to the image and left the bit set.
    // spec: QED-SB-14
    #[must_use]
    pub const fn is_active(self, features: Features, autoclear: AutoclearFeatures) -> bool {
        match self {
            Self::MODE | Self::BACKING_FORMAT => true,
            Self::JOURNAL => {
                autoclear.contains(AutoclearFeatures::JOURNAL)
                    || features.contains(Features::JOURNAL_ACTIVE)
            }
            Self::PHYSICAL_SIZE => autoclear.contains(AutoclearFeatures::PHYSICAL_SIZE),
            Self::TABLE_DIRTY => autoclear.contains(AutoclearFeatures::TABLE_DIRTY),
            Self::FREELIST => autoclear.contains(AutoclearFeatures::FREELIST),
            Self::SNAPSHOTS => features.contains(Features::SNAPSHOTS),
            Self::ENCRYPTION => features.contains(Features::ENCRYPTED),
            Self::CODEC => features.contains(Features::COMPRESSED),
            Self::CONVERSION => {
                autoclear.contains(AutoclearFeatures::CONVERSION_UNDO)
                    || features.contains(Features::CONVERSION_HOLD)
            }
            Self::OWNER => autoclear.contains(AutoclearFeatures::OWNED),
            _ => false,
        }
    }
}

impl<'a> Section<'a> {
    /// What the payload means.
    #[must_use]
    pub const fn kind(&self) -> SectionType {
        self.kind
    }

    /// Where the payload starts, in bytes from the start of the superblock.
    #[must_use]
    pub const fn at(&self) -> u32 {
        self.at
    }

    /// The payload without its padding.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl<'a> Sections<'a> {
    /// The sections in `bytes`, which hold nothing else.
    ///
    /// # Errors
    /// The first section that breaks a rule.
    // spec: QED-SB-05, QED-SB-06, QED-SB-07
    pub(crate) fn checked(bytes: &'a [u8]) -> Result<Self, SuperblockError> {
        let all = Self { rest: bytes, before: 0 };
        let mut walk = all;
        let mut previous = None;
        while !walk.rest.is_empty() {
            let at = position(walk.before);
            let section = walk.step()?;
            let kind = section.kind;
            if let Some(previous) = previous.filter(|previous| *previous >= kind) {
                return Err(SuperblockError::SectionOrder { at, kind, previous });
            }
            previous = Some(kind);
        }
        Ok(all)
    }

    /// The next section; there must be bytes left.
    fn step(&mut self) -> Result<Section<'a>, SuperblockError> {
        let at = position(self.before);
        let (rest, RawSection { head, payload, padding }) =
            parse::section(self.rest).map_err(|_| SuperblockError::SectionTruncated { at })?;
        let payload_from = self.before.saturating_add(SECTION_HEAD_LEN_BYTES);
        let padding_from = payload_from.saturating_add(payload.len());
        if let Some(index) = padding.iter().position(|byte| *byte != 0) {
            let at = position(padding_from.saturating_add(index));
            return Err(SuperblockError::Padding { at });
        }
        self.rest = rest;
        self.before = padding_from.saturating_add(padding.len());
        let kind = SectionType(head.kind.get());
        Ok(Section { kind, at: position(payload_from), payload })
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Section<'a>;

    fn next(&mut self) -> Option<Section<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.step().expect("`checked` has walked these bytes"))
    }
}

impl fmt::Display for SectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => self.0.fmt(f),
        }
    }
}

/// Bytes before the payload of a section.
pub(crate) const SECTION_HEAD_LEN_BYTES: usize = 8;

/// Byte `offset` of the sections as a position in the superblock.
pub(crate) fn position(offset: usize) -> u32 {
    const FIRST: usize = size_of::<RawSuperblock>() - SECTIONS_LEN_BYTES;
    u32::try_from(offset.saturating_add(FIRST)).expect("at most the length of a superblock")
}
