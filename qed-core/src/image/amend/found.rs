//! The superblock and sector 0 of a closed image, as they are found and then rewritten. Knows no
//! order of steps.

use qed_io::Storage;
use qed_spec::{
    ANCHOR_LEN_BYTES, Anchor, ConsistencyMode, Epoch, Generation, HostOffset, JournalRing,
    SectionType, SuperblockBuilder, SuperblockCopy, SuperblockFull,
};

use crate::error::{ImageError, IoAction, OpenError};
use crate::head::create::Identity;
use crate::head::sector::HeaderSector;
use crate::head::sector::storage_len;
use crate::head::superblock::{OpenSuperblock, SuperblockBytes};
use crate::image::amend::Wanted;

/// What a closed image says of itself.
pub(super) struct Found {
    pub(super) sector: HeaderSector,
    /// None in a classic image.
    pub(super) mode: Option<ConsistencyMode>,
    /// None where no copy is valid.
    pub(super) superblock: Option<FoundSuperblock>,
    /// The length of the ring, in journal mode.
    ring_len_bytes: Option<u64>,
}

/// The current superblock.
pub(super) struct FoundSuperblock {
    /// Where it lies.
    pub(super) copy: SuperblockCopy,
    open: OpenSuperblock,
    epoch: Epoch,
    generation: Generation,
}

impl Found {
    /// Reads an image that opens for writing and was closed.
    pub(super) fn read(storage: &dyn Storage) -> Result<Self, OpenError> {
        let file_len = storage_len(storage)?;
        let sector = HeaderSector::read(storage, file_len)?;
        let mut found = Self { sector, mode: None, superblock: None, ring_len_bytes: None };
        let header = *found.sector.header();
        let Some(bytes) = SuperblockBytes::read(storage, &header, file_len)? else {
            return Ok(found);
        };
        let choice = bytes.choose()?;
        let Some((copy, current)) = choice.current() else {
            return Ok(found);
        };
        found.superblock = Some(FoundSuperblock {
            copy,
            open: OpenSuperblock::after(&choice, &current),
            epoch: current.epoch(),
            generation: current.generation(),
        });
        if let Some(mode) = current.section(SectionType::MODE) {
            found.mode = Some(ConsistencyMode::parse(mode.payload())?);
        }
        if let Some(section) = current.section(SectionType::JOURNAL)
            && found.mode == Some(ConsistencyMode::Journal)
        {
            found.ring_len_bytes =
                Some(JournalRing::parse(section.payload(), &header)?.len_bytes());
        }
        Ok(found)
    }

    /// Whether the image is as wanted.
    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        self.mode == Some(wanted.mode)
            && self.ring_len_bytes == wanted.ring.map(|ring| ring.len_bytes())
    }

    /// Writes a superblock without a mode, of an image that has none: it stays classic. What an
    /// anchor says of the backing file goes with it, as the anchor is not read any more where there
    /// is room for superblocks.
    // spec: QED-SB-12, QED-SB-18
    pub(super) fn write_first_superblock(
        &mut self,
        storage: &dyn Storage,
        identity: Identity,
    ) -> Result<(), ImageError> {
        let mut open = OpenSuperblock::first(identity.uuid, identity.epoch);
        let anchor = self.anchor(storage)?;
        let anchor = anchor.as_ref().and_then(|bytes| Anchor::parse(bytes).ok());
        let stored = anchor.and_then(|anchor| anchor.backing_format);
        let generation = open.write(storage, |builder| match &stored {
            Some(stored) => builder.set_backing_format(stored),
            None => Ok(()),
        })?;
        let copy = SuperblockCopy::A;
        self.superblock = Some(FoundSuperblock { copy, open, epoch: identity.epoch, generation });
        Ok(())
    }

    /// Writes the next superblock, in an epoch of its own.
    pub(super) fn write_superblock(
        &mut self,
        storage: &dyn Storage,
        change: impl FnOnce(&mut SuperblockBuilder) -> Result<(), SuperblockFull>,
    ) -> Result<(), ImageError> {
        let superblock = self.superblock.as_mut().expect("an image without one gets its first");
        let epoch = superblock.epoch.after(superblock.generation);
        superblock.open.write(storage, |builder| {
            builder.set_epoch(epoch);
            change(builder)
        })?;
        Ok(())
    }

    /// Makes all that was written durable.
    pub(super) fn flush(&mut self, storage: &dyn Storage) -> Result<(), ImageError> {
        storage.flush().map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)))
    }

    /// The bytes of the anchor, where there may be one.
    fn anchor(&self, storage: &dyn Storage) -> Result<Option<[u8; ANCHOR_LEN_BYTES]>, ImageError> {
        if !Anchor::fits(self.sector.header()) {
            return Ok(None);
        }
        let (mut bytes, at) = ([0; ANCHOR_LEN_BYTES], Anchor::OFFSET);
        storage.read_at(&mut bytes, at.get()).map_err(ImageError::io(IoAction::ReadHeader, at))?;
        Ok(Some(bytes))
    }
}
