//! A writable image: opening it, what it holds beyond the read-only view, and closing it.

pub(crate) mod amend;
pub(crate) mod consistency;
pub(crate) mod extents;
mod io;
pub(crate) mod read_only;
pub(crate) mod request;
pub(crate) mod resize;
mod set_backing;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qed_io::{ImageLock, Storage};
use qed_spec::{AutoclearFeatures, Features, HostOffset};

use crate::durability::lock::{Turn, TurnGuard};
use crate::durability::log::{JournalKeeper, replay_journal};
use crate::error::{ImageError, IoAction, OpenError};
use crate::head::mode::{Mode, is_active};
use crate::head::sector::HeaderSector;
use crate::image::read_only::{ReadOnlyImage, storage_len};
use crate::image::request::Request;
use crate::map::tables::{Foreign, Vetting};
use crate::options::{LockPolicy, ReadContext, RecoveryPolicy, WriteContext};
use crate::space::alloc::Allocator;
use crate::space::claims::InFlight;
use crate::space::streams::Runs;

/// A QED image open for reading and writing, by any number of threads.
///
/// Everything of [`ReadOnlyImage`] is there too. See the crate's example.
#[derive(Debug)]
pub struct Image {
    pub(crate) view: ReadOnlyImage,
    pub(crate) writer: Writer,
}

/// What only a writable image has.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) alloc: Allocator,
    pub(crate) runs: Runs,
    pub(crate) in_flight: InFlight,
    /// L1 slots that are not in the file yet, and their values. Held while a table is allocated.
    pending_l1: Mutex<BTreeMap<u64, u64>>,
    /// Held by whoever writes tables or the header.
    turn: Mutex<Turn>,
    /// Of an image in journal mode.
    pub(crate) keeper: Option<JournalKeeper>,
    /// A flush failed, or panicked: no more writes.
    pub(crate) stopped: AtomicBool,
    closed: AtomicBool,
}

impl Writer {
    pub(crate) fn turn(&self) -> TurnGuard<'_> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        TurnGuard::new(turn, &self.stopped)
    }

    pub(crate) fn pending_l1(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.pending_l1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Image {
    /// Opens the QED image in `storage` for writing.
    ///
    /// The lock is taken before the header is read. An image that was not closed cleanly goes
    /// through the recovery policy first. Autoclear bits that this crate does not know are cleared
    /// durably before it returns.
    ///
    /// # Errors
    /// As [`ReadOnlyImage::open`], and [`OpenError::NeedsRecovery`], a recovery that failed,
    /// a superblock without a current copy, and tables that break a rule: every L1 slot is checked
    /// here.
    // spec: QED-FEAT-01, QED-FEAT-03, QED-CONS-01
    pub fn open(storage: Arc<dyn Storage>, context: &WriteContext<'_>) -> Result<Self, OpenError> {
        if context.lock == LockPolicy::Take {
            storage.lock(ImageLock::WRITE)?;
        }
        let Opened { mut sector, mode, foreign } = Opened::read(&storage, context.recovery)?;
        let kept = match &mode {
            Mode::Classic => AutoclearFeatures::empty(),
            Mode::Compat(compat) => compat.kept_bits(),
            Mode::Journal(found) => found.kept_bits(),
        };
        clear_autoclear(&*storage, &mut sector, kept)?;
        let file_len = storage_len(&*storage)?;
        let (mut marks, mut journal, mut keeper) = (None, None, None);
        match mode {
            Mode::Classic => {}
            Mode::Compat(compat) => {
                marks = Some(compat.into_marks(&*storage, &mut sector, file_len)?);
            }
            Mode::Journal(found) => {
                let (opened, its_keeper) = found.open(&storage, &mut sector)?;
                (journal, keeper) = (Some(Box::new(opened)), Some(its_keeper));
            }
        }
        let alloc = Allocator::new(&*storage, sector.header().geometry(), file_len);
        let runs = Runs::new(sector.header().geometry());
        let read = ReadContext {
            gate: context.gate,
            lock: context.lock,
            cache_limit_bytes: context.cache_limit_bytes,
        };
        let view = ReadOnlyImage::with_sector(
            storage,
            sector,
            file_len,
            &read,
            Vetting::All { foreign, journal },
        )?;
        Ok(Self {
            view,
            writer: Writer {
                alloc,
                runs,
                in_flight: InFlight::default(),
                pending_l1: Mutex::default(),
                turn: Mutex::new(Turn::new(marks)),
                keeper,
                stopped: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            },
        })
    }

    /// Begins a request whose data I/O the caller does itself.
    ///
    /// While it lives the virtual disk keeps its size and clusters keep their places; waits only
    /// while the disk is being resized. Hold one for a short time, and use no other method of the
    /// image on the same thread meanwhile: a waiting resize goes before new requests.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use qed_core::*;
    /// # use qed_io::{MemoryStorage, Storage};
    /// # use qed_spec::GuestOffset;
    /// # let storage = Arc::new(MemoryStorage::default());
    /// # create(&*storage, &CreateOptions::new(1 << 30))?;
    /// # let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    /// # let image = Image::open(storage.clone(), &context)?;
    /// let data = [7; 512];
    /// let request = image.request();
    /// match request.prepare(GuestOffset::new(4096), 512)? {
    ///     Prepared::InPlace { host, .. } => storage.write_at(&data, host.get())?,
    ///     Prepared::Allocating(allocation) => {
    ///         storage.write_at(&data, allocation.host().get())?;
    ///         allocation.commit()?;
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn request(&self) -> Request<&Self> {
        Request::new(self)
    }

    /// As [`Image::request`], but none while the image changes its size or a change waits for
    /// requests to end. For who keeps many requests in flight from one thread.
    #[must_use]
    pub fn try_request(&self) -> Option<Request<&Self>> {
        Request::try_new(self)
    }

    /// Flushes, clears the mark that asks for a check and gives back what the file has beyond the
    /// image.
    ///
    /// Dropping an image does the same and cannot report what failed.
    ///
    /// # Errors
    /// As [`Image::flush`]. The image is closed all the same; the mark stays if anything failed.
    pub fn close(&self) -> Result<(), ImageError> {
        self.writer.closed.store(true, Ordering::Release);
        self.settle()
    }

    pub(crate) fn check_writable(&self) -> Result<(), ImageError> {
        if self.writer.stopped.load(Ordering::Acquire) {
            return Err(ImageError::WritesStopped);
        }
        Ok(())
    }

    /// What every step of a write begins with: makes room in the cache when too much is dirty.
    ///
    /// The caller may hold a request and claims: a flush waits for neither.
    pub(crate) fn begin_write(&self) -> Result<(), ImageError> {
        self.check_writable()?;
        if !self.view.tables.cache.is_crowded() {
            return Ok(());
        }
        let mut turn = self.writer.turn();
        // Whoever had the turn may have made the room.
        if self.view.tables.cache.is_crowded() { self.flush_in_turn(&mut turn) } else { Ok(()) }
    }
}

impl Deref for Image {
    type Target = ReadOnlyImage;

    fn deref(&self) -> &ReadOnlyImage {
        &self.view
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !self.writer.closed.load(Ordering::Acquire)
            && !self.writer.stopped.load(Ordering::Acquire)
        {
            // Nobody is left to hear of a failure; the mark then stays in the file.
            drop(self.settle());
        }
    }
}

/// What is known of an image before its tables are read.
struct Opened {
    sector: HeaderSector,
    mode: Mode,
    /// Only marked tables were checked after a crash.
    foreign: Option<Foreign>,
}

impl Opened {
    /// Reads the header and the superblock, with a recovery in between if one is needed.
    // spec: QED-CONS-01, QED-DIRTY-07, QED-DIRTY-08, QED-JRN-22
    fn read(storage: &Arc<dyn Storage>, policy: RecoveryPolicy<'_>) -> Result<Self, OpenError> {
        let (mut sector, mut mode) = read_header(&**storage)?;
        if is_active(sector.header()) {
            if let RecoveryPolicy::Refuse = policy {
                return Err(OpenError::NeedsRecovery);
            }
            replay_journal(storage)?;
            (sector, mode) = read_header(&**storage)?;
        }
        let crashed = sector.header().features().contains(Features::NEED_CHECK);
        if !crashed && !wants_full_check(&mode) {
            return Ok(Self { sector, mode, foreign: None });
        }
        let foreign = match &mode {
            Mode::Compat(compat) if crashed => compat.after_crash(&**storage)?,
            _ => None,
        };
        recover(&**storage, policy)?;
        let (sector, mode) = read_header(&**storage)?;
        if sector.header().features().contains(Features::NEED_CHECK) {
            return Err(OpenError::StillDirty);
        }
        // A recovery that read all tables has cleared the bit.
        let foreign = foreign.filter(|_| !wants_full_check(&mode));
        Ok(Self { sector, mode, foreign })
    }
}

fn wants_full_check(mode: &Mode) -> bool {
    matches!(mode, Mode::Compat(compat) if compat.wants_full_check())
}

fn read_header(storage: &dyn Storage) -> Result<(HeaderSector, Mode), OpenError> {
    let file_len = storage_len(storage)?;
    let sector = HeaderSector::read(storage, file_len)?;
    let mode = Mode::read(storage, sector.header(), file_len)?;
    Ok((sector, mode))
}

/// Runs the recovery hook.
fn recover(storage: &dyn Storage, policy: RecoveryPolicy<'_>) -> Result<(), OpenError> {
    match policy {
        RecoveryPolicy::Refuse => Err(OpenError::NeedsRecovery),
        RecoveryPolicy::Run(hook) => hook(storage).map_err(OpenError::Recovery),
    }
}

/// Clears the autoclear bits but those of structures that are kept up, and what keeps a conversion
/// from being written over, durably.
// spec: QED-FEAT-03, QED-CONV-03
fn clear_autoclear(
    storage: &dyn Storage,
    sector: &mut HeaderSector,
    kept: AutoclearFeatures,
) -> Result<(), ImageError> {
    let header = sector.header();
    let is_held = header.features().contains(Features::CONVERSION_HOLD);
    if kept.contains(header.fields().autoclear_features) && !is_held {
        return Ok(());
    }
    sector.write_fields(storage, |fields| {
        fields.autoclear_features &= kept;
        fields.features.remove(Features::CONVERSION_HOLD);
    })?;
    storage.flush().map_err(ImageError::io(IoAction::Flush, HostOffset::new(0)))
}
