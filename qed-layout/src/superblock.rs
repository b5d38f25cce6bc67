//! The two copies of the extension superblock as bytes, and the choice between them. What its sections
//! mean is asked of qed-spec.

use qed_io::Storage;
use qed_spec::{
    ChooseError, DirtyBitmap, Features, Header, HostOffset, SUPERBLOCK_LEN_BYTES, SectionType,
    Superblock, SuperblockChoice, SuperblockCopy,
};

use crate::error::{ReadError, read};

/// The bytes of both copies.
#[derive(Debug, Clone)]
pub struct SuperblockBytes([[u8; SUPERBLOCK_LEN_BYTES]; 2]);

impl SuperblockBytes {
    /// Reads both copies from the header area; `None` where it has no room for them.
    ///
    /// # Errors
    /// The storage's.
    // spec: QED-SB-01
    pub fn read(storage: &dyn Storage, header: &Header) -> Result<Option<Self>, ReadError> {
        if !SuperblockCopy::both_fit(header) {
            return Ok(None);
        }
        Self::read_at(storage, [SuperblockCopy::A, SuperblockCopy::B].map(SuperblockCopy::offset))
            .map(Some)
    }

    /// Reads both copies from places of their own, as an anchor names them.
    ///
    /// # Errors
    /// The storage's.
    pub fn read_at(storage: &dyn Storage, places: [HostOffset; 2]) -> Result<Self, ReadError> {
        let mut copies = [[0; SUPERBLOCK_LEN_BYTES]; 2];
        for (at, bytes) in places.into_iter().zip(&mut copies) {
            read(storage, bytes, at.get())?;
        }
        Ok(Self(copies))
    }

    /// The copies as they lie in the file, valid or not.
    pub fn copies(&self) -> impl Iterator<Item = (SuperblockCopy, &[u8; SUPERBLOCK_LEN_BYTES])> {
        [SuperblockCopy::A, SuperblockCopy::B].into_iter().zip(&self.0)
    }

    /// The choice between the copies.
    ///
    /// # Errors
    /// Copies between which there is no choice: the image is not written, and neither is believed.
    // spec: QED-SB-04, QED-SB-10
    pub fn choose(&self) -> Result<SuperblockChoice<'_>, ChooseError> {
        let [a, b] = &self.0;
        SuperblockChoice::new(a, b)
    }
}

/// The dirty bitmap that `current` names, if the last writer of the image kept it up.
// spec: QED-SB-14
#[must_use]
pub fn stored_bitmap(current: &Superblock<'_>, header: &Header) -> Option<DirtyBitmap> {
    let section = current.section(SectionType::TABLE_DIRTY)?;
    let autoclear = header.fields().autoclear_features;
    let is_active = SectionType::TABLE_DIRTY.is_active(Features::empty(), autoclear);
    DirtyBitmap::parse(section.payload(), header).ok().filter(|_| is_active)
}
