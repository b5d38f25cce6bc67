//! The disks that are served, by name.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use thiserror::Error;

use super::protocol::ServerHandle;
use super::quiet::Quiet;
use crate::device::{BlockDevice, DeviceError, Shrink, TakeOver};

/// The longest export name in bytes, and the longest of any other string that a client sends.
pub const MAX_NAME_BYTES: usize = 4096;

/// How far the last compaction of a disk's image has come, in bytes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Another is to begin.
    pub(super) is_wanted: AtomicBool,
    moved: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    pub(super) fn has_come_to(&self, moved: u64, total: u64) {
        self.moved.store(moved, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Bytes that were moved, and those that are to be moved in all.
    pub(super) fn now(&self) -> (u64, u64) {
        (self.moved.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// A disk under a name.
#[derive(Debug)]
pub struct Export {
    name: Vec<u8>,
    device: Arc<dyn BlockDevice>,
    servers: Mutex<Vec<Weak<dyn ServerHandle>>>,
    pub(super) compaction: Progress,
    logged: Quiet,
}

/// Why a set of exports cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExportNameError {
    /// A name that no client could ask for.
    #[error("an export name has {len} bytes, and {MAX_NAME_BYTES} is the most")]
    TooLong {
        /// Bytes of the name.
        len: usize,
    },
    /// Two disks under one name.
    #[error("two exports have the name '{name}'")]
    Twice {
        /// The name, bytes that are not text escaped.
        name: String,
    },
}

impl Export {
    /// A disk under a name; the empty name is what a client asks for that names none.
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>, device: Arc<dyn BlockDevice>) -> Self {
        let (compaction, logged) = (Progress::default(), Quiet::default());
        Self { name: name.into(), device, servers: Mutex::default(), compaction, logged }
    }

    /// What clients call it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The name as text, bytes that are not text escaped.
    #[must_use]
    pub fn shown_name(&self) -> String {
        self.name.escape_ascii().to_string()
    }

    /// The disk.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// As [`BlockDevice::resize`], and tells all servers of the export, also the one that calls.
    ///
    /// # Errors
    /// As there.
    pub fn resize(&self, new_size: u64, shrink: Shrink) -> Result<(), DeviceError> {
        self.change(|| self.device.resize(new_size, shrink))
    }

    /// As [`BlockDevice::activate`], and tells all servers of the export if the disk has another size
    /// than it had.
    ///
    /// # Errors
    /// As there.
    pub fn activate(&self, take_over: TakeOver) -> Result<(), DeviceError> {
        self.change(|| self.device.activate(take_over))
    }

    /// Makes a change after which the size may be another; one at a time, so that the last one told is
    /// the one that is.
    fn change(&self, change: impl FnOnce() -> Result<(), DeviceError>) -> Result<(), DeviceError> {
        let servers = self.servers();
        let before = self.device.size();
        change()?;
        if self.device.size() != before {
            servers.iter().filter_map(Weak::upgrade).for_each(|server| server.resized(self));
        }
        Ok(())
    }

    /// From now on a server is told of another size.
    pub(super) fn is_served_by(&self, server: &Arc<dyn ServerHandle>) {
        self.servers().push(Arc::downgrade(server));
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Weak<dyn ServerHandle>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an error of the disk is to be logged now: a client can ask for the same one as often
    /// as it likes.
    pub(crate) fn may_log(&self) -> bool {
        self.logged.may_log()
    }
}

/// What is served, in the order in which it is listed; a copy names the same disks.
#[derive(Debug, Default, Clone)]
pub struct Exports(Vec<Arc<Export>>);

impl Exports {
    /// The exports in the order in which they are listed.
    ///
    /// # Errors
    /// A name that is too long or comes twice.
    pub fn new(exports: Vec<Export>) -> Result<Self, ExportNameError> {
        for (index, export) in exports.iter().enumerate() {
            let name = &export.name;
            if name.len() > MAX_NAME_BYTES {
                return Err(ExportNameError::TooLong { len: name.len() });
            }
            if exports[..index].iter().any(|other| other.name == *name) {
                return Err(ExportNameError::Twice { name: export.shown_name() });
            }
        }
        Ok(Self(exports.into_iter().map(Arc::new).collect()))
    }

    /// The export that a client asks for; the empty name finds the only one too.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Arc<Export>> {
        let named = self.0.iter().find(|export| export.name == name);
        named.or_else(|| self.only().filter(|_| name.is_empty()))
    }

    /// The only one; none if there are several.
    #[must_use]
    pub fn only(&self) -> Option<&Arc<Export>> {
        match &self.0[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Export>> {
        self.0.iter()
    }
}
