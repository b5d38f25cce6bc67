//! Opening an image in compat mode: whether its last writer kept the dirty bitmap, and what that
//! says about the tables.

use qed_io::Storage;
use qed_spec::{
    AutoclearFeatures, DirtyBitmap, DirtyBitmapError, Features, Header, HostOffset, ImageUuid,
    SectionType, Superblock, SuperblockChoice,
};

use crate::durability::dirty_bits::{Marks, read_marks};
use crate::error::{ImageError, IoAction, OpenError};
use crate::head::sector::HeaderSector;
use crate::head::superblock::OpenSuperblock;
use crate::map::tables::Foreign;

/// What the superblock of an image in compat mode says.
#[derive(Debug)]
pub(crate) struct Compat {
    uuid: ImageUuid,
    superblock: OpenSuperblock,
    bitmap: DirtyBitmap,
    /// The bitmap was kept up by the last writer; else `bitmap` is where a new one goes.
    is_kept: bool,
}

impl Compat {
    /// What the current superblock says.
    ///
    /// # Errors
    /// A header area without room for a bitmap.
    // spec: QED-DIRTY-08
    pub(crate) fn parse(
        choice: &SuperblockChoice<'_>,
        current: &Superblock<'_>,
        header: &Header,
    ) -> Result<Self, OpenError> {
        let stored = stored_bitmap(current, header);
        let bitmap = match stored {
            Some(bitmap) => bitmap,
            None => new_bitmap(header)?,
        };
        let superblock = OpenSuperblock::after(choice, current);
        Ok(Self { uuid: current.uuid(), superblock, bitmap, is_kept: stored.is_some() })
    }

    pub(crate) fn uuid(&self) -> ImageUuid {
        self.uuid
    }

    /// The bitmap, if the last writer kept it up.
    pub(crate) fn kept_bitmap(&self) -> Option<DirtyBitmap> {
        self.is_kept.then_some(self.bitmap)
    }

    /// How many tables the bitmap marks.
    pub(crate) fn marked_tables(&self, storage: &dyn Storage) -> Result<u64, ImageError> {
        let Some(bitmap) = self.kept_bitmap() else { return Ok(0) };
        Ok(read_marks(storage, &bitmap)?.iter().map(|byte| u64::from(byte.count_ones())).sum())
    }

    /// Whether another program may have written the image since the bitmap was last kept up.
    pub(crate) fn wants_full_check(&self) -> bool {
        !self.is_kept
    }

    /// What the tables of an image that was not closed are believed with, once the marked ones
    /// were checked; none where that does not suffice.
    // spec: QED-DIRTY-07, QED-DIRTY-09
    pub(crate) fn after_crash(&self, storage: &dyn Storage) -> Result<Option<Foreign>, ImageError> {
        if !self.is_kept {
            return Ok(None);
        }
        let marks = read_marks(storage, &self.bitmap)?;
        let any = marks.iter().any(|byte| *byte != 0);
        Ok(any.then_some(Foreign { marks, bitmap: self.bitmap }))
    }

    /// The autoclear bits that stay set.
    pub(crate) fn kept_bits(&self) -> AutoclearFeatures {
        if self.is_kept { AutoclearFeatures::TABLE_DIRTY } else { AutoclearFeatures::empty() }
    }

    /// The marks of an image that ends at `end`; where the bitmap was not kept up a new one begins.
    // spec: QED-DIRTY-06
    pub(crate) fn into_marks(
        self,
        storage: &dyn Storage,
        sector: &mut HeaderSector,
        end: u64,
    ) -> Result<Marks, ImageError> {
        if self.is_kept {
            return Marks::read(storage, self.bitmap, self.superblock, end);
        }
        let marks = Marks::begin(storage, self.bitmap, self.superblock, end)?;
        sector.write_fields(storage, |fields| {
            fields.autoclear_features |= AutoclearFeatures::TABLE_DIRTY;
        })?;
        storage.flush().map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)))?;
        Ok(marks)
    }
}

/// The bitmap that the section names, if it is to be believed.
// spec: QED-SB-14
pub(crate) fn stored_bitmap(current: &Superblock<'_>, header: &Header) -> Option<DirtyBitmap> {
    let section = current.section(SectionType::TABLE_DIRTY)?;
    let autoclear = header.fields().autoclear_features;
    let is_active = SectionType::TABLE_DIRTY.is_active(Features::empty(), autoclear);
    DirtyBitmap::parse(section.payload(), header).ok().filter(|_| is_active)
}

/// Where a bitmap goes in an image that has room for one.
fn new_bitmap(header: &Header) -> Result<DirtyBitmap, DirtyBitmapError> {
    let bitmap = DirtyBitmap::of_new_image(header.geometry(), 0);
    DirtyBitmap::parse(&bitmap.encode(), header)
}
