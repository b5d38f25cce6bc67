//! Opening an image for writing, in stages: locked, recovered, its head settled, its tables validated.

use std::sync::Arc;

use qed_io::{ImageLock, Storage};
use qed_layout::{Checked, CrashLeft};
use qed_spec::{AutoclearFeatures, Features};

use crate::change::Pending;
use crate::data::DataPath;
use crate::durability::Durability;
use crate::durability::dirty_bits::DirtyBits;
use crate::durability::log::open::open as open_log;
use crate::durability::log::recovery::replay_journal;
use crate::error::{ImageError, IoAction, OpenError};
use crate::head::mode::{FoundHead, Mode, is_active};
use crate::head::physical_size::{OnDevice, RecordedEnd};
use crate::head::sector::storage_len;
use crate::image::Image;
use crate::image::adopt::Inheritance;
use crate::map::l1::L1Table;
use crate::map::tables::{Tables, Validation};
use crate::options::{LockPolicy, RecoveryPolicy, WriteContext, open_backing};
use crate::space::Space;
use crate::space::device::DeviceEnd;
use crate::space::owner::{ForeignLimit, SpaceMap};

impl Image {
    /// Opens the QED image in `storage` for writing.
    ///
    /// The lock is taken before the header is read. An image that was not closed cleanly goes
    /// through the recovery policy first. Autoclear bits that this crate does not know are cleared
    /// durably before it returns. What a process acknowledged that died is made durable, where it kept a
    /// pending log and the caller says who it is ([`crate::Ownership`]).
    ///
    /// # Errors
    /// As [`crate::ReadOnlyImage::open`], and [`OpenError::NeedsRecovery`], a recovery that failed,
    /// a superblock without a current copy, and tables that break a rule: every L1 slot is checked
    /// here.
    // spec: QED-FEAT-01, QED-FEAT-03, QED-CONS-01
    pub fn open(storage: Arc<dyn Storage>, context: &WriteContext<'_>) -> Result<Self, OpenError> {
        if context.lock == LockPolicy::Take {
            storage.lock(ImageLock::WRITE)?;
        }
        let inherited = Inheritance::find(&*storage, context.ownership)?;
        inherited.before_recovery(&*storage)?;
        let Recovered { head, foreign } = Recovered::read(&storage, context.recovery)?;
        let backing_name = head.sector.read_backing_name(&*storage)?;
        let file_len = storage_len(&*storage)?;
        let device = OnDevice::of(&*storage, file_len, head.physical_size);
        let (head, mode) = head.into_head(storage.clone(), backing_name);
        let kept = device.map_or(AutoclearFeatures::empty(), OnDevice::kept_bits);
        head.clear_autoclear(mode.kept_bits() | kept | inherited.kept_bits())?;
        let recorded = device.filter(|_| head.has_superblock()).map(RecordedEnd::new);
        let durability = match mode {
            Mode::Classic => Durability::home(None, None),
            Mode::Compat(found) => {
                let bits = DirtyBits::open(&found, &head, file_len)?;
                Durability::home(Some(bits), recorded)
            }
            Mode::Journal(found) => Durability::journal(open_log(found, &head)?, recorded),
        };
        let (header, name) = (head.header(), head.backing_name());
        let backing = open_backing(context.gate, &*storage, &header, name.as_deref())?;
        let l1 = L1Table::read(&*storage, &header)?;
        let tables = l1.all_tables(file_len).map_err(ImageError::from)?;
        let limit = context.cache_limit_bytes;
        let owner = SpaceMap::for_writing(&header, file_len, tables, foreign, limit);
        let owner = match device {
            Some(found) => owner.on_device(DeviceEnd::new(found.believed, file_len)),
            None => owner,
        };
        let owner = Arc::new(owner);
        let journal = durability.journal_to_read();
        let image = Self {
            map: Tables::new(storage.clone(), l1, limit, journal, owner.clone(), Validation::Eager),
            space: Space::new(storage.clone(), header.geometry(), file_len, owner, context.discard),
            data: DataPath::new(storage, backing, name.is_some()),
            pending: Pending::default(),
            durability,
            head,
        };
        image.inherit(inherited, context.ownership)
    }
}

/// An image that needs no recovery, or has had it.
struct Recovered {
    head: FoundHead,
    /// Only tables with a dirty bit were checked after a crash.
    foreign: Option<ForeignLimit>,
}

impl Recovered {
    /// Reads the header and the superblock, with a recovery in between if one is needed.
    // spec: QED-CONS-01, QED-DIRTY-07, QED-DIRTY-08, QED-JRN-22
    fn read(storage: &Arc<dyn Storage>, policy: RecoveryPolicy<'_>) -> Result<Self, OpenError> {
        let mut head = FoundHead::read(&**storage)?;
        if is_active(head.header()) {
            if let RecoveryPolicy::Refuse = policy {
                return Err(OpenError::NeedsRecovery);
            }
            replay_journal(storage)?;
            head = FoundHead::read(&**storage)?;
        }
        let crashed = head.header().features().contains(Features::NEED_CHECK);
        if !crashed && !head.mode.wants_full_check() {
            return Ok(Self { head, foreign: None });
        }
        let RecoveryPolicy::Run(hook) = policy else {
            return Err(OpenError::NeedsRecovery);
        };
        let left = CrashLeft::read(&**storage, head.header());
        let left = left.map_err(ImageError::read(IoAction::ReadHeader))?;
        let done = hook(&**storage, &left).map_err(OpenError::Recovery)?;
        let head = FoundHead::read(&**storage)?;
        let foreign = match (done.checked, left) {
            (Checked::AllTables, _) => None,
            (Checked::DirtyTables, CrashLeft::DirtyTables(bits)) => Some(ForeignLimit(bits)),
            (Checked::DirtyTables, CrashLeft::AllTables) => {
                // The next open is to ask for a check again, and so is any other program.
                let (head, _) = head.into_head(storage.clone(), None);
                head.set_need_check(true)?;
                head.sync()?;
                return Err(OpenError::StillDirty);
            }
        };
        if head.header().features().contains(Features::NEED_CHECK) {
            return Err(OpenError::StillDirty);
        }
        Ok(Self { head, foreign })
    }
}
