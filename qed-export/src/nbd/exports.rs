//! The disks that a server has, by name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::wire::transmission;
use crate::device::BlockDevice;

/// The longest export name, and the longest of any other string that a client sends.
pub const MAX_NAME_BYTES: usize = 4096;

/// How long nothing is logged of what clients can bring about after something was.
const QUIET: Duration = Duration::from_secs(10);

/// When something was last logged that clients can bring about as often as they like.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<Option<Instant>>);

impl Quiet {
    /// Whether it may be logged now; remembers that it is.
    pub(super) fn may_log(&self) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = logged.is_none_or(|last| now.duration_since(last) >= QUIET);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }
}

/// How far the last compaction of a disk's image has come, in bytes.
#[derive(Debug, Default)]
pub(super) struct Progress {
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
    pub(super) device: Box<dyn BlockDevice>,
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
    pub fn new(name: impl Into<Vec<u8>>, device: Box<dyn BlockDevice>) -> Self {
        let (compaction, logged) = (Progress::default(), Quiet::default());
        Self { name: name.into(), device, compaction, logged }
    }

    /// What clients call it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether an error of the disk is to be logged now: a client can ask for the same one as often
    /// as it likes.
    pub(super) fn may_log(&self) -> bool {
        self.logged.may_log()
    }

    /// What a client is told that it may send.
    ///
    /// Several connections see one disk: a flush on any of them covers the writes of all.
    pub(super) fn transmission_flags(&self, has_structured_replies: bool) -> u16 {
        use transmission::*;
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE;
        flags |= if self.device.is_read_only() {
            READ_ONLY
        } else {
            SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
        };
        if has_structured_replies { flags | SEND_DF } else { flags }
    }
}

/// The exports of one server.
#[derive(Debug, Default)]
pub struct Exports(Vec<Export>);

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
                return Err(ExportNameError::Twice { name: name.escape_ascii().to_string() });
            }
        }
        Ok(Self(exports))
    }

    /// The export that a client asks for; the empty name finds the only one too.
    pub(super) fn find(&self, name: &[u8]) -> Option<&Export> {
        let only = match &self.0[..] {
            [only] if name.is_empty() => Some(only),
            _ => None,
        };
        self.0.iter().find(|export| export.name == name).or(only)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.0.iter()
    }

    pub(super) fn into_devices(self) -> impl Iterator<Item = (Vec<u8>, Box<dyn BlockDevice>)> {
        self.0.into_iter().map(|export| (export.name, export.device))
    }
}
