//! The marks that a crash left in the per-table dirty bitmap.
//!
//! Owns the decision whether they say enough; what is wrong with a marked table is not known here.

use qed_io::Storage;
use qed_spec::{
    AutoclearFeatures, ConsistencyMode, DirtyBitmap, Features, L1Index, SectionType,
    SuperblockChoice,
};

use crate::error::CheckError;
use crate::layout::Layout;
use crate::superblock::read_copies;
use crate::tables::read;

/// The marked tables of an image that was not closed.
#[derive(Debug)]
pub(crate) struct Marks {
    bitmap: DirtyBitmap,
    bytes: Vec<u8>,
}

impl Marks {
    /// The marks of an image with NEED_CHECK; none where all tables have to be checked.
    // spec: QED-DIRTY-07
    pub(crate) fn after_crash(
        storage: &dyn Storage,
        layout: &Layout,
    ) -> Result<Option<Self>, CheckError> {
        let autoclear = layout.header.fields().autoclear_features;
        if !layout.is_dirty() || !autoclear.contains(AutoclearFeatures::TABLE_DIRTY) {
            return Ok(None);
        }
        let Some(bitmap) = stored_bitmap(storage, layout)? else {
            return Ok(None);
        };
        let len = usize::try_from(bitmap.len_bytes()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        read(storage, &mut bytes, bitmap.offset().get())?;
        let any = bytes.iter().any(|byte| *byte != 0);
        Ok(any.then_some(Self { bitmap, bytes }))
    }

    /// Whether the table of a slot is marked.
    // spec: QED-DIRTY-02
    pub(crate) fn contains(&self, l1: L1Index) -> bool {
        self.bitmap.mark_of(l1).is_some_and(|(byte, mask)| {
            let byte = usize::try_from(byte).ok().and_then(|byte| self.bytes.get(byte));
            byte.is_some_and(|byte| byte & mask != 0)
        })
    }

    /// Byte after the last that a table without a mark may name.
    pub(crate) fn epoch_size(&self) -> u64 {
        self.bitmap.epoch_size()
    }

    /// Where the bitmap lies, and its bytes.
    pub(crate) fn place(&self) -> (u64, usize) {
        (self.bitmap.offset().get(), self.bytes.len())
    }
}

/// The bitmap that the current superblock of an image in compat mode names, if there is a valid one.
// spec: QED-MODE-01, QED-DIRTY-07
fn stored_bitmap(
    storage: &dyn Storage,
    layout: &Layout,
) -> Result<Option<DirtyBitmap>, CheckError> {
    let Some([a, b]) = &read_copies(storage, layout)? else {
        return Ok(None);
    };
    let Some((_, current)) = SuperblockChoice::new(a, b).ok().and_then(|it| it.current()) else {
        return Ok(None);
    };
    let mode =
        current.section(SectionType::MODE).map(|mode| ConsistencyMode::parse(mode.payload()));
    if !matches!(mode, Some(Ok(ConsistencyMode::Compat))) {
        return Ok(None);
    }
    let autoclear = layout.header.fields().autoclear_features;
    let is_active = SectionType::TABLE_DIRTY.is_active(Features::empty(), autoclear);
    let section = current.section(SectionType::TABLE_DIRTY).filter(|_| is_active);
    Ok(section.and_then(|section| DirtyBitmap::parse(section.payload(), &layout.header).ok()))
}
