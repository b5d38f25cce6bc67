//! The two copies of the extension superblock as bytes, and the choice between them. What its sections
//! mean is asked of qed-spec.

use qed_io::Storage;
use qed_spec::{
    ChooseError, DirtyBitmap, Features, Header, HostOffset, ImageOwner, PhysicalSize,
    SUPERBLOCK_LEN_BYTES, Section, SectionType, Superblock, SuperblockChoice, SuperblockCopy,
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
    let section = active(current, header, SectionType::TABLE_DIRTY)?;
    DirtyBitmap::parse(section.payload(), header).ok()
}

/// Where `current` says that the image ends on a block device, if the last writer kept it up and the
/// section keeps its rules. A hint: another program may have appended since.
// spec: QED-SB-14, QED-DEV-05
#[must_use]
pub fn stored_physical_size(current: &Superblock<'_>, header: &Header) -> Option<PhysicalSize> {
    let section = active(current, header, SectionType::PHYSICAL_SIZE)?;
    PhysicalSize::parse(section.payload(), header).ok()
}

/// Who `current` says has the image, if the last writer kept it up and the section keeps its rules;
/// nobody's token if that one closed the image. A hint: another program may have kept the bit.
// spec: QED-SB-14, QED-HAND-02
#[must_use]
pub fn stored_owner(current: &Superblock<'_>, header: &Header) -> Option<ImageOwner> {
    let section = active(current, header, SectionType::OWNER)?;
    ImageOwner::parse(section.payload()).ok()
}

/// The section of this type, if its autoclear bit is set.
fn active<'a>(current: &Superblock<'a>, header: &Header, kind: SectionType) -> Option<Section<'a>> {
    let autoclear = header.fields().autoclear_features;
    current.section(kind).filter(|_| kind.is_active(Features::empty(), autoclear))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use qed_spec::{Epoch, Generation, ImageUuid, SuperblockBuilder};

    use super::*;
    use crate::tests::header;

    // spec-test: QED-SB-14, QED-DEV-05
    #[test]
    fn a_physical_size_is_believed_with_its_bit_and_its_rules_kept() {
        const PHYSICAL_SIZE: u64 = 1 << 34;
        let size = PhysicalSize::new(9 * 4096, 10 * 4096, &header(0, 0)).unwrap();
        let good = size.encode();
        let cases = [
            (Some(&good[..]), PHYSICAL_SIZE, Some(size)),
            (Some(&good[..]), PHYSICAL_SIZE - 1, None),
            (None, PHYSICAL_SIZE, None),
            (Some(&good[..15]), PHYSICAL_SIZE, None),
            (Some(&[0; 16]), PHYSICAL_SIZE, None),
        ];
        for (payload, autoclear, expected) in cases {
            let found =
                stored(SectionType::PHYSICAL_SIZE, payload, autoclear, stored_physical_size);
            assert_eq!(found, expected, "{payload:?} {autoclear:#x}");
        }
    }

    // spec-test: QED-SB-14, QED-HAND-02
    #[test]
    fn an_owner_is_believed_with_its_bit_and_its_rules_kept() {
        const OWNED: u64 = 1 << 37;
        let owner = ImageOwner::new(NonZeroU64::MAX, 7, [3; 16], b"host");
        let good = owner.encode();
        let cases = [
            (Some(&good[..]), OWNED, Some(owner)),
            (Some(&good[..]), !OWNED, None),
            (None, OWNED, None),
            (Some(&good[..47]), OWNED, None),
            (Some(&[0; 48]), OWNED, Some(ImageOwner::NOBODY)),
        ];
        for (payload, autoclear, expected) in cases {
            let found = stored(SectionType::OWNER, payload, autoclear, stored_owner);
            assert_eq!(found, expected, "{payload:?} {autoclear:#x}");
        }
    }

    /// What `read` finds in a superblock with this section, or none, under these autoclear bits.
    fn stored<T>(
        kind: SectionType,
        payload: Option<&[u8]>,
        autoclear: u64,
        read: impl Fn(&Superblock<'_>, &Header) -> Option<T>,
    ) -> Option<T> {
        let mut builder = SuperblockBuilder::new(ImageUuid::new([5; 16]), Epoch::new(5));
        if let Some(payload) = payload {
            builder.set_section(kind, payload).unwrap();
        }
        let bytes = builder.encode(Generation::FIRST);
        read(&Superblock::parse(&bytes).unwrap(), &header(0, autoclear))
    }
}
