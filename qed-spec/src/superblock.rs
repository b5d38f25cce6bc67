//! One copy of the extension superblock: validated bytes to meaning.
//!
//! Knows neither where a copy lies nor which of two is current: that is `copies.rs`. Payloads of
//! sections stay bytes here; a section gets a type of its own with the feature that uses it.

pub(crate) mod anchor;
pub(crate) mod backing_format;
pub(crate) mod builder;
pub(crate) mod copies;
pub(crate) mod dirty_bitmap;
pub(crate) mod error;
pub(crate) mod mode;
pub(crate) mod owner;
pub(crate) mod physical_size;
pub(crate) mod section;

use core::fmt;
use core::num::NonZeroU64;

use crate::backing_name::BackingName;
use crate::crc::crc32c_of_block;
use crate::len::wide;
use crate::parse;
use crate::raw::{RawSuperblock, SECTIONS_LEN_BYTES};
use backing_format::StoredBackingFormat;
use error::SuperblockError;
use section::{Section, SectionType, Sections};

/// One copy of the superblock that keeps every rule of the specification.
///
/// Borrows the bytes it was parsed from. Sections of unknown types are kept and can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock<'a> {
    generation: Generation,
    uuid: ImageUuid,
    epoch: Epoch,
    sections: Sections<'a>,
}

/// The number of a superblock write: the copy with the higher one is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

/// The identity of an image, 16 bytes in the order they have on disk.
// spec: QED-SB-17
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageUuid([u8; 16]);

/// A random number that separates what this run wrote from what an earlier one left behind.
// spec: QED-SB-17
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl<'a> Superblock<'a> {
    /// Parses the copy at the front of `bytes`, of which it uses the first 4096.
    ///
    /// # Errors
    /// The first rule that is broken. A damaged copy of any version breaks the rule of the
    /// checksum, so [`SuperblockError::Version`] means an intact copy of another version.
    // spec: QED-SB-02, QED-SB-03, QED-SB-04
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SuperblockError> {
        let (_, raw) = parse::leaf::<RawSuperblock>(bytes)
            .map_err(|_| SuperblockError::Truncated { found: wide(bytes.len()) })?;
        if raw.magic != RawSuperblock::MAGIC {
            return Err(SuperblockError::Magic { found: raw.magic });
        }
        let (stored, computed) = (raw.crc32c.get(), checksum(raw));
        if stored != computed {
            return Err(SuperblockError::Checksum { stored, computed });
        }
        if raw.version.get() != RawSuperblock::VERSION {
            return Err(SuperblockError::Version { found: raw.version.get() });
        }
        let generation =
            Generation::new(raw.generation.get()).ok_or(SuperblockError::Generation)?;
        Ok(Self {
            generation,
            uuid: ImageUuid(raw.uuid),
            epoch: Epoch(raw.epoch.get()),
            sections: sections(raw)?,
        })
    }

    /// The number of the write that made this copy.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The identity of the image.
    #[must_use]
    pub const fn uuid(&self) -> ImageUuid {
        self.uuid
    }

    /// The random number of the current run.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All sections in ascending order of type, those of unknown types too.
    ///
    /// Whether one may be believed depends on the feature bits: see [`SectionType::is_active`].
    #[must_use]
    pub const fn sections(&self) -> Sections<'a> {
        self.sections
    }

    /// The section of this type, whatever the feature bits say.
    #[must_use]
    pub fn section(&self, kind: SectionType) -> Option<Section<'a>> {
        self.sections().find(|section| section.kind() == kind)
    }

    /// The format that is stored for the backing file `name`; none where nothing is stored or
    /// what is stored describes another name.
    ///
    /// # Errors
    /// [`SuperblockError::BackingFormat`] when the section breaks a rule.
    // spec: QED-SB-15
    pub fn backing_format(
        &self,
        name: BackingName<'_>,
    ) -> Result<Option<&'a str>, SuperblockError> {
        let Some(section) = self.section(SectionType::BACKING_FORMAT) else {
            return Ok(None);
        };
        StoredBackingFormat::parse(section.payload())
            .map(|stored| stored.format_of(name))
            .map_err(|error| SuperblockError::BackingFormat { at: section.at(), error })
    }
}

impl Generation {
    /// The generation of the first superblock an image gets.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The generation with this number; none for 0.
    // spec: QED-SB-09
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The generation of the next write; none after the last, numbers never start again.
    // spec: QED-SB-09
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl ImageUuid {
    /// The identity with these bytes; any are legal.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes in the order they have on disk.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Epoch {
    /// The epoch with this number; any is legal.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The epoch that follows this one in an image whose current superblock is of `generation`.
    ///
    /// As good as random, for callers without random numbers: generations never come twice, so an
    /// epoch that the image had before comes again no sooner than by chance.
    // spec: QED-SB-17
    #[must_use]
    pub const fn after(self, generation: Generation) -> Self {
        // The finaliser of SplitMix64 (Steele, Lea, Flood 2014), a permutation of 64 bits.
        let mut mixed = self.0 ^ generation.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Self(if mixed == self.0 { mixed.wrapping_add(1) } else { mixed })
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ImageUuid {
    /// Writes the usual form `00112233-4455-6677-8899-aabbccddeeff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The checksum that a copy with these bytes must carry.
pub(crate) fn checksum(raw: &RawSuperblock) -> u32 {
    crc32c_of_block(zerocopy::IntoBytes::as_bytes(raw))
}

/// The sections of a copy, every one checked.
// spec: QED-SB-05, QED-SB-06, QED-SB-07
fn sections(raw: &RawSuperblock) -> Result<Sections<'_>, SuperblockError> {
    let len = raw.sections_len.get();
    let fault = SuperblockError::SectionsLength { found: len };
    let used = usize::try_from(len).map_err(|_| fault)?;
    if !used.is_multiple_of(8) || used > SECTIONS_LEN_BYTES {
        return Err(fault);
    }
    let (used, tail) = raw.sections.split_at(used);
    let sections = Sections::checked(used)?;
    match tail.iter().position(|byte| *byte != 0) {
        Some(position) => Err(SuperblockError::Padding {
            at: section::position(used.len().saturating_add(position)),
        }),
        None => Ok(sections),
    }
}
