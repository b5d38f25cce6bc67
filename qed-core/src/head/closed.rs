//! The head of an image that nobody has open: sector 0 and the superblock as they are found, and then
//! rewritten when the image gets another layout. Knows no order of steps.

use qed_io::Storage;
use qed_spec::{
    Anchor, ConsistencyMode, Epoch, Generation, HostOffset, JournalRing, SectionType,
    SuperblockBuilder, SuperblockCopy, SuperblockFull,
};

use crate::error::{ImageError, IoAction, OpenError};
use crate::head::create::Identity;
use crate::head::sector::HeaderSector;
use crate::head::sector::storage_len;
use crate::head::superblock::{OpenSuperblock, read_copies};

/// What a closed image says of itself.
pub(crate) struct ClosedHead {
    pub(crate) sector: HeaderSector,
    /// None in a classic image.
    pub(crate) mode: Option<ConsistencyMode>,
    /// None where no copy is valid.
    pub(crate) superblock: Option<FoundSuperblock>,
    /// The length of the ring, in journal mode.
    ring_len_bytes: Option<u64>,
}

/// The current superblock.
pub(crate) struct FoundSuperblock {
    /// Where it lies.
    pub(crate) copy: SuperblockCopy,
    open: OpenSuperblock,
    /// Written since the last flush, so the copy before is still needed.
    is_unsettled: bool,
    epoch: Epoch,
    generation: Generation,
}

impl ClosedHead {
    /// Reads an image that opens for writing and was closed.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Self, OpenError> {
        let file_len = storage_len(storage)?;
        let sector = HeaderSector::read(storage, file_len)?;
        let mut found = Self { sector, mode: None, superblock: None, ring_len_bytes: None };
        let header = *found.sector.header();
        let Some(bytes) = read_copies(storage, &header)? else {
            return Ok(found);
        };
        let choice = bytes.choose()?;
        let Some((copy, current)) = choice.current() else {
            return Ok(found);
        };
        found.superblock = Some(FoundSuperblock {
            copy,
            open: OpenSuperblock::after(&choice, &current),
            is_unsettled: false,
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

    /// Whether the image is in this mode, with a ring of this length.
    pub(crate) fn is(&self, mode: ConsistencyMode, ring_len_bytes: Option<u64>) -> bool {
        self.mode == Some(mode) && self.ring_len_bytes == ring_len_bytes
    }

    /// Writes a superblock without a mode, of an image that has none: it stays classic. What an
    /// anchor says of the backing file goes with it, as the anchor is not read any more where there
    /// is room for superblocks.
    // spec: QED-SB-12, QED-SB-18
    pub(crate) fn write_first_superblock(
        &mut self,
        storage: &dyn Storage,
        identity: Identity,
    ) -> Result<(), ImageError> {
        let mut open = OpenSuperblock::first(identity.uuid, identity.epoch);
        let anchor = qed_layout::read_anchor(storage, self.sector.header());
        let anchor = anchor.map_err(ImageError::read(IoAction::ReadHeader))?;
        let anchor = anchor.as_ref().and_then(|bytes| Anchor::parse(bytes).ok());
        let stored = anchor.and_then(|anchor| anchor.backing_format);
        let generation = open.write(storage, |builder| match &stored {
            Some(stored) => builder.set_backing_format(stored),
            None => Ok(()),
        })?;
        let copy = SuperblockCopy::A;
        let (epoch, is_unsettled) = (identity.epoch, true);
        self.superblock = Some(FoundSuperblock { copy, open, is_unsettled, epoch, generation });
        Ok(())
    }

    /// Writes the next superblock, in an epoch of its own.
    pub(crate) fn write_superblock(
        &mut self,
        storage: &dyn Storage,
        change: impl FnOnce(&mut SuperblockBuilder) -> Result<(), SuperblockFull>,
    ) -> Result<(), ImageError> {
        let superblock = self.superblock.as_mut().expect("an image without one gets its first");
        debug_assert!(!superblock.is_unsettled, "the current copy is durable before the other");
        superblock.is_unsettled = true;
        let epoch = superblock.epoch.after(superblock.generation);
        superblock.open.write(storage, |builder| {
            builder.set_epoch(epoch);
            change(builder)
        })?;
        Ok(())
    }

    /// Zeroes bytes of the header area.
    pub(crate) fn zero(
        &self,
        storage: &dyn Storage,
        at: HostOffset,
        len: u64,
    ) -> Result<(), ImageError> {
        let zeroed = storage.write_zeroes(at.get()..at.get() + len);
        zeroed.map_err(ImageError::io(IoAction::WriteHeader, at))
    }

    /// Writes an empty ring.
    pub(crate) fn format_ring(
        &self,
        storage: &dyn Storage,
        ring: &JournalRing,
    ) -> Result<(), ImageError> {
        let formatted = qed_journal::format(storage, ring);
        formatted.map_err(ImageError::io(IoAction::WriteHeader, ring.offset()))
    }

    /// Makes all that was written durable.
    pub(crate) fn flush(&mut self, storage: &dyn Storage) -> Result<(), ImageError> {
        storage.flush().map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)))?;
        if let Some(superblock) = &mut self.superblock {
            superblock.is_unsettled = false;
        }
        Ok(())
    }
}
