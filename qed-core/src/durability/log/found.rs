//! The journal that the superblock of an image names, before anything of it is read.

use std::sync::{Arc, Mutex};

use qed_io::Storage;
use qed_journal::{Journal, JournalSetup};
use qed_spec::{
    AutoclearFeatures, Header, HostOffset, JournalRing, JournalRingError, JournalSequence,
    SectionType, Superblock, SuperblockChoice,
};

use crate::durability::log::{ImageOwner, JournalKeeper};
use crate::error::{ImageError, IoAction, OpenError};
use crate::head::compat::stored_bitmap;
use crate::head::sector::HeaderSector;
use crate::head::superblock::OpenSuperblock;

/// What header and superblock say of a journal.
#[derive(Debug)]
pub(crate) struct FoundJournal {
    setup: JournalSetup,
    superblock: OpenSuperblock,
    /// The last writer kept the journal, or left commits in it.
    is_kept: bool,
}

impl FoundJournal {
    /// Reads the section of the current superblock.
    ///
    /// # Errors
    /// No section, or one that names no place for a ring.
    // spec: QED-JRN-01, QED-JRN-02, QED-JRN-31, QED-SB-14
    pub(crate) fn parse(
        choice: &SuperblockChoice<'_>,
        current: &Superblock<'_>,
        header: &Header,
    ) -> Result<Self, OpenError> {
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
        let is_kept = SectionType::JOURNAL.is_active(features, autoclear);
        Ok(Self { setup, superblock: OpenSuperblock::after(choice, current), is_kept })
    }

    pub(crate) fn setup(&self) -> &JournalSetup {
        &self.setup
    }

    /// Whether the last writer kept the journal, or left commits in it.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The autoclear bits that stay set.
    pub(crate) fn kept_bits(&self) -> AutoclearFeatures {
        if self.is_kept { AutoclearFeatures::JOURNAL } else { AutoclearFeatures::empty() }
    }

    /// The journal of an image without commits; where another program wrote the image since, or the
    /// numbers of its blocks run out, one that begins anew.
    pub(crate) fn open(
        mut self,
        storage: &Arc<dyn Storage>,
        sector: &mut HeaderSector,
    ) -> Result<(Journal, JournalKeeper), OpenError> {
        if !self.is_kept || self.setup.ring.is_running_out() {
            self.begin_anew(&**storage, sector)?;
        }
        let journal = Journal::open_clean(storage.clone(), &self.setup)?;
        Ok((journal, JournalKeeper::new(self.superblock)))
    }

    /// Runs `act` with the image as the journal's owner.
    pub(super) fn with_owner<R>(
        self,
        storage: &dyn Storage,
        sector: HeaderSector,
        act: impl FnOnce(&ImageOwner<'_>) -> R,
    ) -> R {
        let (sector, superblock) = (Mutex::new(sector), Mutex::new(self.superblock));
        act(&ImageOwner { storage, sector: &sector, superblock: &superblock })
    }

    /// An empty ring in the place of the old one, in an epoch of its own: no block that is there
    /// counts. Durable when it returns.
    // spec: QED-SB-12, QED-SB-17
    fn begin_anew(
        &mut self,
        storage: &dyn Storage,
        sector: &mut HeaderSector,
    ) -> Result<(), OpenError> {
        let flush = || storage.flush().map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)));
        let JournalSetup { ring, epoch, generation, .. } = self.setup;
        let epoch = epoch.after(generation);
        let ring = JournalRing::new(ring.offset(), ring.len_bytes(), JournalSequence::FIRST)?;
        let generation = self.superblock.write(storage, |builder| {
            builder.set_epoch(epoch);
            builder.set_section(SectionType::JOURNAL, &ring.encode())
        })?;
        flush()?;
        self.superblock.settle();
        sector.write_fields(storage, |fields| {
            fields.autoclear_features |= AutoclearFeatures::JOURNAL;
        })?;
        flush()?;
        self.setup = JournalSetup { ring, epoch, generation, ..self.setup };
        Ok(())
    }
}
