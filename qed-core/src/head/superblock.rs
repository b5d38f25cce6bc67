//! The extension superblock of an open image: read once, then written to the copy that is not
//! current. Knows nothing of what its sections mean.

use qed_io::Storage;
use qed_layout::SuperblockBytes;
use qed_spec::{
    Epoch, Generation, Header, ImageUuid, SUPERBLOCK_LEN_BYTES, Superblock, SuperblockBuilder,
    SuperblockChoice, SuperblockCopy, SuperblockFull,
};

use crate::error::{ImageError, IoAction};

/// The superblock that an open image has, and where its next one goes.
#[derive(Debug)]
pub(crate) struct OpenSuperblock {
    uuid: ImageUuid,
    builder: SuperblockBuilder,
    next: Option<(SuperblockCopy, Generation)>,
}

/// Reads both copies; `None` where the image has no room for them.
pub(crate) fn read_copies(
    storage: &dyn Storage,
    header: &Header,
) -> Result<Option<SuperblockBytes>, ImageError> {
    SuperblockBytes::read(storage, header).map_err(ImageError::read(IoAction::ReadHeader))
}

impl OpenSuperblock {
    /// Goes on from the current copy of `choice`, which was durable when the image was opened.
    pub(crate) fn after(choice: &SuperblockChoice<'_>, current: &Superblock<'_>) -> Self {
        let (uuid, builder) = (current.uuid(), SuperblockBuilder::from_superblock(current));
        Self { uuid, builder, next: choice.next_write() }
    }

    /// The first superblock of an image whose copies are both zeroed: nothing is written yet.
    pub(crate) fn first(uuid: ImageUuid, epoch: Epoch) -> Self {
        Self {
            uuid,
            builder: SuperblockBuilder::new(uuid, epoch),
            next: Some((SuperblockCopy::A, Generation::FIRST)),
        }
    }

    /// The image's, and the generation of the next write; none where no more can be written.
    pub(crate) fn identity(&self) -> (ImageUuid, Option<Generation>) {
        (self.uuid, self.next.map(|(_, generation)| generation))
    }

    /// Whether the current copy of `found` is what was written last.
    pub(crate) fn is_current_in(&self, found: &SuperblockBytes) -> bool {
        let Some((copy, last)) = self.next.and_then(|(copy, next)| {
            Some((copy.other(), Generation::new(next.get().checked_sub(1)?)?))
        }) else {
            return true;
        };
        let is_it = |(at, bytes): (SuperblockCopy, &[u8; SUPERBLOCK_LEN_BYTES])| {
            at == copy && *bytes == self.builder.encode(last)
        };
        let current = found.choose().ok().and_then(|choice| Some(choice.current()?.0));
        current == Some(copy) && found.copies().any(is_it)
    }

    /// Writes the superblock with any change; the generation that was written. Durable after a flush,
    /// and not to be called again before it.
    ///
    /// A write that fails may be tried again: it spoils only the copy that is not current.
    // spec: QED-SB-11
    pub(crate) fn write(
        &mut self,
        storage: &dyn Storage,
        change: impl FnOnce(&mut SuperblockBuilder) -> Result<(), SuperblockFull>,
    ) -> Result<Generation, ImageError> {
        let (copy, generation) = self.next.ok_or(ImageError::SuperblockFull)?;
        let mut builder = self.builder.clone();
        change(&mut builder).map_err(|_| ImageError::SuperblockFull)?;
        let at = copy.offset();
        storage
            .write_at(&builder.encode(generation), at.get())
            .map_err(ImageError::io(IoAction::WriteHeader, at))?;
        self.builder = builder;
        self.next = generation.next().map(|generation| (copy.other(), generation));
        Ok(generation)
    }
}
