//! What an image says of itself: sector 0 and the extension superblock, behind one lock.
//!
//! The only owner that writes either, and the one way to make them durable. It also knows whether the
//! image may still be written: a failed flush leaves nobody to say what the file holds. Knows no
//! table, no mode and no order of steps; the metadata lock is not its lock, so that a commit leader
//! and a checkpoint may write here too.

mod backing_name;
pub(crate) mod closed;
pub(crate) mod consistency;
pub(crate) mod create;
pub(crate) mod mode;
mod ownership;
pub(crate) mod physical_size;
pub(crate) mod sections;
pub(crate) mod sector;
mod still_ours;
pub(crate) mod superblock;
pub(crate) mod writing;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qed_io::Storage;
use qed_pending::PendingLog;
use qed_spec::{
    AutoclearFeatures, Features, Generation, Header, HeaderFields, HostOffset, SectionType,
    SuperblockBuilder, SuperblockFull,
};

use crate::error::{ImageError, IoAction};
use crate::head::sector::HeaderSector;
use crate::head::superblock::OpenSuperblock;
use crate::head::writing::Writing;

/// The head of an open image.
#[derive(Debug)]
pub(crate) struct Head {
    storage: Arc<dyn Storage>,
    state: Mutex<State>,
    /// Bytes of the virtual disk, as the header has them.
    image_size: AtomicU64,
    /// How often the superblock was written, and how many of these writes are durable.
    superblock_writes: AtomicU64,
    durable_writes: AtomicU64,
    writing: Writing,
    /// Is told of superblocks and of a flush that failed.
    log: Option<Arc<PendingLog>>,
    /// Another host may take the image, and no lock says so.
    looks_before_writes: bool,
}

#[derive(Debug)]
struct State {
    sector: HeaderSector,
    /// Of a writable image in compat or journal mode.
    superblock: Option<OpenSuperblock>,
    backing_name: Option<Vec<u8>>,
}

impl Head {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        sector: HeaderSector,
        superblock: Option<OpenSuperblock>,
        backing_name: Option<Vec<u8>>,
    ) -> Self {
        Self {
            storage,
            image_size: AtomicU64::new(sector.header().image_size()),
            state: Mutex::new(State { sector, superblock, backing_name }),
            superblock_writes: AtomicU64::new(0),
            durable_writes: AtomicU64::new(0),
            writing: Writing::default(),
            log: None,
            looks_before_writes: false,
        }
    }

    /// From here on the pending log says what superblock the image has; not while it is shared.
    pub(crate) fn keep_log(&mut self, log: Arc<PendingLog>) {
        log.superblock_is(self.identity().1);
        self.log = Some(log);
    }

    /// The pending log of the image, if it has one.
    pub(crate) fn log(&self) -> Option<&PendingLog> {
        self.log.as_deref()
    }

    /// UUID and generation of the superblock that was written last; zeros where there is none.
    pub(crate) fn identity(&self) -> ([u8; 16], u64) {
        identity(self.state().superblock.as_ref())
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Whether the image may be written.
    pub(crate) fn writing(&self) -> &Writing {
        &self.writing
    }

    /// The header as it is in the file.
    pub(crate) fn header(&self) -> Header {
        *self.state().sector.header()
    }

    pub(crate) fn image_size(&self) -> u64 {
        self.image_size.load(Ordering::Acquire)
    }

    pub(crate) fn backing_name(&self) -> Option<Vec<u8>> {
        self.state().backing_name.clone()
    }

    pub(crate) fn need_check(&self) -> bool {
        self.state().sector.header().features().contains(Features::NEED_CHECK)
    }

    /// Whether the file may hold another header than this one, since a write of it failed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.state().sector.is_in_doubt()
    }

    /// Replaces fields of the header by one write of sector 0; durable after a flush.
    pub(crate) fn update(&self, change: impl FnOnce(&mut HeaderFields)) -> Result<(), ImageError> {
        let mut state = self.state();
        self.still_ours_in(&state)?;
        state.sector.write_fields(&*self.storage, change)
    }

    /// Sets or clears NEED_CHECK, or writes the sector for the sake of a write of it that failed;
    /// whether it was written.
    // spec: QED-CONS-03
    pub(crate) fn set_need_check(&self, on: bool) -> Result<bool, ImageError> {
        let mut state = self.state();
        let sector = &state.sector;
        let is_on = sector.header().features().contains(Features::NEED_CHECK);
        if is_on == on && !sector.is_in_doubt() {
            return Ok(false);
        }
        let change = |fields: &mut HeaderFields| fields.features.set(Features::NEED_CHECK, on);
        self.still_ours_in(&state)?;
        state.sector.write_fields(&*self.storage, change)?;
        Ok(true)
    }

    /// Commits another size of the virtual disk; durable when it returns.
    pub(crate) fn set_image_size(&self, new_size: u64) -> Result<(), ImageError> {
        self.update(|fields| fields.image_size = new_size)?;
        self.sync()?;
        self.image_size.store(new_size, Ordering::Release);
        Ok(())
    }

    /// Clears the autoclear bits but those of structures that are kept up, and what keeps a conversion
    /// from being written over, durably.
    // spec: QED-FEAT-03, QED-CONV-03
    pub(crate) fn clear_autoclear(&self, kept: AutoclearFeatures) -> Result<(), ImageError> {
        let header = self.header();
        let is_held = header.features().contains(Features::CONVERSION_HOLD);
        if kept.contains(header.fields().autoclear_features) && !is_held {
            return Ok(());
        }
        self.update(|fields| {
            fields.autoclear_features &= kept;
            fields.features.remove(Features::CONVERSION_HOLD);
        })?;
        self.sync()
    }

    /// Whether there is a superblock that this image keeps up.
    pub(crate) fn has_superblock(&self) -> bool {
        self.state().superblock.is_some()
    }

    /// Writes the superblock with another payload for one section; durable after a flush.
    pub(crate) fn set_section(&self, kind: SectionType, payload: &[u8]) -> Result<(), ImageError> {
        self.change_superblock(|builder| builder.set_section(kind, payload)).map(drop)
    }

    /// Writes the next superblock; the generation that was written. Durable after a flush. Where the
    /// write before is not known to be durable that is flushed first, since this one spoils the copy
    /// before it.
    // spec: QED-SB-11
    pub(crate) fn change_superblock(
        &self,
        change: impl FnOnce(&mut SuperblockBuilder) -> Result<(), SuperblockFull>,
    ) -> Result<Generation, ImageError> {
        let mut state = self.state();
        if self.is_unsettled() {
            self.sync()?;
        }
        self.still_ours_in(&state)?;
        let superblock = state.superblock.as_mut().ok_or(ImageError::SuperblockFull)?;
        // Step "note superblock".
        if let Some((log, next)) = self.log.as_ref().zip(superblock.identity().1) {
            log.superblock_is(next.get());
        }
        let generation = superblock.write(&*self.storage, change)?;
        self.superblock_writes.fetch_add(1, Ordering::AcqRel);
        Ok(generation)
    }

    /// Whether the last write of the superblock is not known to be durable.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.superblock_writes.load(Ordering::Acquire)
            != self.durable_writes.load(Ordering::Acquire)
    }

    /// Makes all that was written to the file durable; a failure ends all writing.
    // spec: QED-RW-07
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        // What is written from here on this flush may miss.
        let written = self.superblock_writes.load(Ordering::Acquire);
        self.storage.flush().map_err(|error| {
            self.flush_failed();
            ImageError::io(IoAction::Flush, HostOffset::new(0))(error)
        })?;
        self.durable_writes.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }

    /// A flush of the storage failed, so nobody knows what the file holds: ends all writing, and the next
    /// process hears of it.
    pub(crate) fn flush_failed(&self) {
        self.writing.stop();
        if let Some(log) = &self.log {
            log.stop();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// UUID and generation of the superblock that was written last; zeros where there is none.
pub(crate) fn identity(superblock: Option<&OpenSuperblock>) -> ([u8; 16], u64) {
    superblock.map_or_else(Default::default, |superblock| {
        let (uuid, next) = superblock.identity();
        // The one before the next; the last of all where there is none.
        (*uuid.as_bytes(), next.map_or(u64::MAX, |next| next.get() - 1))
    })
}
