//! What a caller states to open an image. Nothing here has a default that could surprise.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use qed_io::Storage;
use qed_layout::{CrashLeft, Recovered, read_stored_format};
use qed_spec::{BackingName, Features, Header};

use crate::backing::BackingFormat;
use crate::data::disk::{BackingGate, BackingRequest, VirtualDisk};
use crate::error::{ImageError, IoAction, OpenError};
use crate::ownership::Ownership;

/// Bytes of L2 tables kept in memory unless the caller states another limit: 32 MiB map 256 GiB of
/// virtual disk at 64 KiB clusters.
pub const DEFAULT_CACHE_LIMIT_BYTES: u64 = 32 << 20;

/// Whether the image lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockPolicy {
    /// Take it before the header is read; opening fails if it is held.
    Take,
    /// Take none: somebody else guards the image, or the reader accepts changes under it.
    None,
}

/// How an image is opened for reading.
#[derive(Clone, Copy)]
pub struct ReadContext<'a> {
    /// Decides about the backing file.
    pub gate: &'a dyn BackingGate,
    /// Whether the image lock is taken.
    pub lock: LockPolicy,
    /// Bytes of L2 tables kept in memory.
    pub cache_limit_bytes: u64,
}

/// How an image is opened for writing.
#[derive(Clone, Copy)]
pub struct WriteContext<'a> {
    /// Decides about the backing file.
    pub gate: &'a dyn BackingGate,
    /// Whether the image lock is taken.
    pub lock: LockPolicy,
    /// What happens if the image was not closed cleanly.
    pub recovery: RecoveryPolicy<'a>,
    /// Bytes of L2 tables kept in memory; those with entries that are not in the file yet may come
    /// on top, at most as much again while a flush writes them.
    pub cache_limit_bytes: u64,
    /// What becomes of space that the guest gives up.
    pub discard: DiscardMode,
    /// Who opens it; none leaves what a dead process acknowledged and did not flush, as a reboot does.
    pub ownership: Option<&'a Ownership<'a>>,
}

/// What becomes of the space of clusters that the guest discards, or zeroes with
/// [`crate::ZeroMode::Unmap`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum DiscardMode {
    /// Later allocations use it; the file keeps it until then.
    #[default]
    Reuse,
    /// As [`DiscardMode::Reuse`], and the storage is told at once: a file gets a hole, a device a discard.
    PassDown,
    /// The guest's clusters stay where they are.
    Ignore,
}

/// What the recovery hook is: checks and mends the image in a storage that is locked and not open, of
/// which a crash left these tables in doubt, and says what it did. It may check more, never less.
pub type RecoveryHook<'a> =
    dyn Fn(&dyn Storage, &CrashLeft) -> Result<Recovered, Box<dyn Error + Send + Sync>> + 'a;

/// What opening for writing does with an image that was not closed cleanly.
#[derive(Clone, Copy)]
pub enum RecoveryPolicy<'a> {
    /// Fails with [`OpenError::NeedsRecovery`].
    Refuse,
    /// Runs the hook on the locked storage before any table is read.
    Run(&'a RecoveryHook<'a>),
}

impl<'a> ReadContext<'a> {
    /// The context with the default cache limit.
    #[must_use]
    pub fn new(gate: &'a dyn BackingGate, lock: LockPolicy) -> Self {
        Self { gate, lock, cache_limit_bytes: DEFAULT_CACHE_LIMIT_BYTES }
    }
}

impl<'a> WriteContext<'a> {
    /// The context with the default cache limit.
    #[must_use]
    pub fn new(gate: &'a dyn BackingGate, lock: LockPolicy, recovery: RecoveryPolicy<'a>) -> Self {
        Self {
            gate,
            lock,
            recovery,
            cache_limit_bytes: DEFAULT_CACHE_LIMIT_BYTES,
            discard: DiscardMode::Reuse,
            ownership: None,
        }
    }
}

impl fmt::Debug for RecoveryPolicy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "Refuse",
            Self::Run(_) => "Run",
        })
    }
}

/// Asks the gate for the backing file that `header` names.
// spec: QED-BACK-05
pub(crate) fn open_backing(
    gate: &dyn BackingGate,
    storage: &dyn Storage,
    header: &Header,
    name: Option<&[u8]>,
) -> Result<Option<Arc<dyn VirtualDisk>>, OpenError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let name = BackingName::new(name)?;
    let format = if header.features().contains(Features::BACKING_FORMAT_NO_PROBE) {
        BackingFormat::Raw
    } else {
        let stored = read_stored_format(storage, header, name);
        let stored = stored.map_err(ImageError::read(IoAction::ReadHeader))?;
        // One that breaks a rule states nothing.
        stored.ok().flatten().map_or(BackingFormat::Unstated, BackingFormat::Named)
    };
    gate.open_backing(BackingRequest { name, format })
        .map_err(|source| OpenError::Gate { name: name.to_string(), source })
}
