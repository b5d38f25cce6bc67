//! The extension superblock of an open image: read once, then written to the copy that is not
//! current. Knows nothing of what its sections mean.

use qed_io::Storage;
use qed_spec::{
    Epoch, Generation, Header, ImageUuid, SUPERBLOCK_LEN_BYTES, Superblock, SuperblockBuilder,
    SuperblockChoice, SuperblockCopy, SuperblockFull,
};

use crate::error::{ImageError, IoAction, OpenError};

/// The bytes of both copies.
pub(crate) struct SuperblockBytes([[u8; SUPERBLOCK_LEN_BYTES]; 2]);

/// The superblock that an open image has, and where its next one goes.
#[derive(Debug)]
pub(crate) struct OpenSuperblock {
    builder: SuperblockBuilder,
    next: Option<(SuperblockCopy, Generation)>,
}

impl SuperblockBytes {
    /// Reads both copies; none where the image has no room for them.
    // spec: QED-SB-01
    pub(crate) fn read(
        storage: &dyn Storage,
        header: &Header,
        file_len: u64,
    ) -> Result<Option<Self>, ImageError> {
        let end = SuperblockCopy::B.offset().get() + SUPERBLOCK_LEN_BYTES as u64;
        if !SuperblockCopy::both_fit(header) || file_len < end {
            return Ok(None);
        }
        let mut copies = [[0; SUPERBLOCK_LEN_BYTES]; 2];
        for (copy, bytes) in [SuperblockCopy::A, SuperblockCopy::B].into_iter().zip(&mut copies) {
            let at = copy.offset();
            storage.read_at(bytes, at.get()).map_err(ImageError::io(IoAction::ReadHeader, at))?;
        }
        Ok(Some(Self(copies)))
    }

    /// The choice between the copies.
    ///
    /// # Errors
    /// Copies between which there is no choice: the image is not written.
    // spec: QED-SB-04, QED-SB-10
    pub(crate) fn choose(&self) -> Result<SuperblockChoice<'_>, OpenError> {
        let [a, b] = &self.0;
        Ok(SuperblockChoice::new(a, b)?)
    }
}

impl OpenSuperblock {
    /// Goes on from the current copy of `choice`, which was durable when the image was opened.
    pub(crate) fn after(choice: &SuperblockChoice<'_>, current: &Superblock<'_>) -> Self {
        Self { builder: SuperblockBuilder::from_superblock(current), next: choice.next_write() }
    }

    /// The first superblock of an image whose copies are both zeroed: nothing is written yet.
    pub(crate) fn first(uuid: ImageUuid, epoch: Epoch) -> Self {
        Self {
            builder: SuperblockBuilder::new(uuid, epoch),
            next: Some((SuperblockCopy::A, Generation::FIRST)),
        }
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
