//! What the superblock names besides the mode, and whether it is believed: the dirty bitmap of compat
//! mode, the journal of journal mode.

use qed_io::Storage;
use qed_journal::JournalSetup;
use qed_layout::{DirtyBits, stored_bitmap};
use qed_spec::{
    AutoclearFeatures, DirtyBitmap, DirtyBitmapError, Header, ImageUuid, JournalRing,
    JournalRingError, SectionType, Superblock,
};

use crate::error::{ImageError, IoAction, OpenError};

/// What the superblock of an image in compat mode says.
#[derive(Debug)]
pub(crate) struct FoundBitmap {
    pub(crate) uuid: ImageUuid,
    pub(crate) bitmap: DirtyBitmap,
    /// The bitmap was kept up by the last writer; else `bitmap` is where a new one goes, and another
    /// program may have written the image since.
    pub(crate) is_kept: bool,
}

impl FoundBitmap {
    /// What the current superblock says.
    ///
    /// # Errors
    /// A header area without room for a bitmap.
    // spec: QED-DIRTY-08
    pub(super) fn parse(current: &Superblock<'_>, header: &Header) -> Result<Self, OpenError> {
        let stored = stored_bitmap(current, header);
        let bitmap = match stored {
            Some(bitmap) => bitmap,
            None => new_bitmap(header)?,
        };
        Ok(Self { uuid: current.uuid(), bitmap, is_kept: stored.is_some() })
    }

    /// The bitmap, if the last writer kept it up.
    pub(crate) fn kept_bitmap(&self) -> Option<DirtyBitmap> {
        self.is_kept.then_some(self.bitmap)
    }

    /// How many tables have a dirty bit.
    pub(crate) fn marked_tables(&self, storage: &dyn Storage) -> Result<u64, ImageError> {
        let Some(bitmap) = self.kept_bitmap() else { return Ok(0) };
        Ok(read_bits(storage, bitmap)?.count())
    }

    /// The autoclear bits that stay set.
    pub(super) fn kept_bits(&self) -> AutoclearFeatures {
        if self.is_kept { AutoclearFeatures::TABLE_DIRTY } else { AutoclearFeatures::empty() }
    }
}

/// What header and superblock say of a journal.
#[derive(Debug)]
pub(crate) struct FoundJournal {
    pub(crate) setup: JournalSetup,
    /// The last writer kept the journal, or left commits in it.
    pub(crate) is_kept: bool,
}

impl FoundJournal {
    /// Reads the section of the current superblock.
    ///
    /// # Errors
    /// No section, or one that names no place for a ring.
    // spec: QED-JRN-01, QED-JRN-02, QED-JRN-31, QED-SB-14
    pub(super) fn parse(current: &Superblock<'_>, header: &Header) -> Result<Self, OpenError> {
        let section = current.section(SectionType::JOURNAL).ok_or(OpenError::NoJournal)?;
        let ring = JournalRing::parse(section.payload(), header)?;
        if stored_bitmap(current, header).is_some_and(|bitmap| ring.overlaps(&bitmap)) {
            let (offset, len_bytes) = (ring.offset(), ring.len_bytes());
            return Err(JournalRingError::Place { offset, len_bytes }.into());
        }
        let setup = JournalSetup {
            ring,
            uuid: current.uuid(),
            epoch: current.epoch(),
            generation: current.generation(),
            geometry: header.geometry(),
            header_area_len_bytes: header.header_area_len_bytes(),
        };
        let (features, autoclear) = (header.features(), header.fields().autoclear_features);
        Ok(Self { setup, is_kept: SectionType::JOURNAL.is_active(features, autoclear) })
    }

    /// The autoclear bits that stay set.
    pub(super) fn kept_bits(&self) -> AutoclearFeatures {
        if self.is_kept { AutoclearFeatures::JOURNAL } else { AutoclearFeatures::empty() }
    }
}

/// The dirty bits in the file.
pub(crate) fn read_bits(
    storage: &dyn Storage,
    bitmap: DirtyBitmap,
) -> Result<DirtyBits, ImageError> {
    DirtyBits::read(storage, bitmap).map_err(ImageError::read(IoAction::ReadHeader))
}

/// Where a bitmap goes in an image that has room for one.
fn new_bitmap(header: &Header) -> Result<DirtyBitmap, DirtyBitmapError> {
    let bitmap = DirtyBitmap::of_new_image(header.geometry(), 0);
    DirtyBitmap::parse(&bitmap.encode(), header)
}
