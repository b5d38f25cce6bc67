//! What the caller states to create or open an image, and how it is done.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use qed_convert::chain::{Chain, ChainOptions, FormatSource, ImageFormat, Layer, TrustMagic};
use qed_core::{
    BackingFormat, BackingGate, CreateBacking, CreateOptions, DEFAULT_CACHE_LIMIT_BYTES,
    DEFAULT_RING_LEN_BYTES, DiscardMode, Keeps, Layout, LockPolicy, Ownership, PendingLost,
    ReadContext, ReadOnlyImage, RecoveryPolicy, RefuseBacking, WriteContext, header_area,
};
use qed_io::{Access, Existing, FileOptions, FileStorage, Growth, ImageLock, Storage};
use qed_spec::Geometry;

use crate::error::Error;
use crate::image::Image;
use crate::new_file::{NewFile, random_identity};
use crate::owner::Owner;

/// How an image is created or opened; made by [`Image::options`].
///
/// Unless something else is stated, no backing file is opened, an image that was not closed cleanly is
/// not opened for writing, locks are taken, and a new image is one in compat mode with clusters of
/// 64 KiB.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options<'a> {
    backing: Backing<'a>,
    recovers: bool,
    access: Access,
    direct: bool,
    lock: LockPolicy,
    cache_limit_bytes: u64,
    discard: DiscardMode,
    keeps: Keeps,
    shared: bool,
    takes_over: bool,
    mode: Mode,
    cluster_size: u32,
    table_size: u32,
    over: Option<CreateBacking>,
}

/// Makes an image consistent that was not closed, as [`Options::recover`] does; for a caller that opens
/// one with `qed-core` itself.
pub const RECOVER: RecoveryPolicy<'static> = RecoveryPolicy::Run(&qed_check::recovery_hook);

/// Which backing files are opened. A guest may have written the names.
#[derive(Clone, Copy, Default)]
pub enum Backing<'a> {
    /// None: an image that names one does not open.
    #[default]
    Refuse,
    /// Those that lie in the folder of the image, or below it, once links are resolved, at every level
    /// of the chain; QED, QCOW2 and raw. A format that no image states is what the first bytes say.
    SameFolder,
    /// What the caller's gate opens.
    Gate(&'a dyn BackingGate),
}

/// What a new image does against crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The layout that QEMU makes: after a crash all tables are checked.
    Classic,
    /// After a crash the tables are checked that were being changed.
    #[default]
    Compat,
    /// After a crash a journal is replayed. QEMU opens such an image only if it was closed.
    Journal {
        /// Bytes of the journal: 32 KiB to 1 GiB in steps of 4 KiB.
        len_bytes: u64,
    },
}

impl<'a> Options<'a> {
    pub(crate) fn new() -> Self {
        Self {
            backing: Backing::Refuse,
            recovers: false,
            access: Access::ReadWrite,
            direct: false,
            lock: LockPolicy::Take,
            cache_limit_bytes: DEFAULT_CACHE_LIMIT_BYTES,
            discard: DiscardMode::default(),
            keeps: Keeps::Nothing,
            shared: false,
            takes_over: false,
            mode: Mode::Compat,
            cluster_size: 64 << 10,
            table_size: 4,
            over: None,
        }
    }

    /// Which backing files are opened.
    pub fn backing(mut self, backing: Backing<'a>) -> Self {
        self.backing = backing;
        self
    }

    /// An image that was not closed cleanly is made consistent first, if a crash explains what is in
    /// it; else it does not open.
    pub fn recover(mut self) -> Self {
        self.recovers = true;
        self
    }

    /// Opens for reading only; an image that was not closed is read as it would be after recovery, as
    /// far as its tables go, and stays as it is.
    pub fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        self
    }

    /// Bypasses the page cache (`O_DIRECT`).
    pub fn direct(mut self) -> Self {
        self.direct = true;
        self
    }

    /// Whether the locks are taken that QEMU respects.
    pub fn lock(mut self, lock: LockPolicy) -> Self {
        self.lock = lock;
        self
    }

    /// Bytes of tables that are kept in memory; 32 MiB unless stated.
    pub fn cache_limit(mut self, bytes: u64) -> Self {
        self.cache_limit_bytes = bytes;
        self
    }

    /// What becomes of space that is discarded; later writes use it unless stated.
    pub fn discard(mut self, mode: DiscardMode) -> Self {
        self.discard = mode;
        self
    }

    /// What was written outlives the process, flushed or not, where there is memory for that
    /// ([`crate::Owner`]): the next one that opens the image on this host finds it. For programs that serve
    /// others, who do not know of a process that ends.
    pub fn outlive_process(mut self) -> Self {
        self.keeps = Keeps::Owner;
        self
    }

    /// Other hosts can write the image too, one at a time, and locks may not reach them: what this host
    /// caches of it is not believed, the image names its owner, and one that lost it writes no more once it
    /// reads that. A writer that was cut off is noticed so, not stopped: what it has in flight lands, and to
    /// keep it from writing is the task of whoever manages the hosts. A block device has to be
    /// [`Options::direct`].
    // spec: QED-HAND-06
    pub fn shared(mut self) -> Self {
        (self.shared, self.keeps) = (true, Keeps::Owner);
        self
    }

    pub(crate) fn taking_over(mut self) -> Self {
        self.takes_over = true;
        self
    }

    /// What a new image does against crashes.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// A new image has a journal of 1 MiB.
    pub fn journal(self) -> Self {
        self.mode(Mode::Journal { len_bytes: DEFAULT_RING_LEN_BYTES })
    }

    /// Bytes of a cluster of a new image.
    pub fn cluster_size(mut self, bytes: u32) -> Self {
        self.cluster_size = bytes;
        self
    }

    /// Clusters of each table of a new image.
    pub fn table_size(mut self, clusters: u32) -> Self {
        self.table_size = clusters;
        self
    }

    /// A new image is an overlay of this backing file, by its name as seen from the folder of the image.
    /// Whether that is opened, [`Options::backing`] says.
    pub fn overlay_of(mut self, name: impl Into<Vec<u8>>, format: BackingFormat) -> Self {
        self.over = Some(CreateBacking { name: name.into(), format });
        self
    }

    /// Creates an image of `size` bytes, a multiple of 512, and opens it. Its file is new, and durable
    /// when this returns; if it fails, there is none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::AlreadyExists`]; options that fit no image; the system's; and as
    /// [`Options::open`].
    pub fn create(self, path: impl AsRef<Path>, size: u64) -> Result<Image, Error> {
        let path = path.as_ref();
        let options = self.create_options(size)?;
        // What cannot be written is found before there is a file.
        header_area(&options).map_err(Error::Create)?;
        let file = NewFile::create(path, Existing::Refuse, self.direct)
            .map_err(|source| Error::File { path: path.to_path_buf(), source })?;
        qed_core::create(&**file.storage(), &options).map_err(Error::Create)?;
        let image = self.open_locked(path, Arc::clone(file.storage()))?.with_lock(true);
        file.keep_durably()?;
        Ok(image)
    }

    /// Opens the image at `path`.
    ///
    /// # Errors
    /// What is wrong with the file, the image or a backing file; [`crate::ErrorKind::Locked`] while
    /// somebody else uses it, [`crate::ErrorKind::Dirty`] if it needs recovery and that was not asked
    /// for, [`crate::ErrorKind::Refused`] for a backing file that is not opened.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Image, Error> {
        let path = path.as_ref();
        let options = FileOptions { access: self.access, direct: self.direct };
        let failed = |source| Error::File { path: path.to_path_buf(), source };
        let file = FileStorage::open(path, options).map_err(failed)?;
        if self.lock == LockPolicy::Take {
            let lock = match self.access {
                Access::ReadOnly => ImageLock::READ,
                Access::ReadWrite => ImageLock::WRITE,
            };
            file.lock(lock).map_err(|error| failed(error.into()))?;
        }
        if self.shared {
            forget_what_others_wrote(&file)?;
        }
        let owns_lock = self.lock == LockPolicy::Take;
        Ok(self.open_locked(path, Arc::new(file))?.with_lock(owns_lock))
    }

    /// Opens the image in a storage of the caller, which takes its lock if there is one to take.
    ///
    /// # Errors
    /// As [`Options::open`]; [`Backing::SameFolder`] refuses, since a storage lies in no folder.
    pub fn open_storage(self, storage: Arc<dyn Storage>) -> Result<Image, Error> {
        match self.backing {
            Backing::Refuse | Backing::SameFolder => self.open_by(storage, &RefuseBacking),
            Backing::Gate(gate) => self.open_by(storage, gate),
        }
    }

    fn open_locked(self, path: &Path, file: Arc<FileStorage>) -> Result<Image, Error> {
        let Backing::SameFolder = self.backing else { return self.open_storage(file) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let options = ChainOptions {
            trust_magic: TrustMagic::Near(Vec::new()),
            lock: self.lock,
            confine_to: Some(folder.unwrap_or(Path::new(".")).to_path_buf()),
            file: FileOptions { access: Access::ReadOnly, direct: self.direct },
            cache_limit_bytes: self.cache_limit_bytes,
            ..ChainOptions::default()
        };
        let format = FormatSource::Stated(ImageFormat::Qed);
        let top = Layer::from_storage(path, Arc::clone(&file), format)?;
        let gate = Chain::below(top, &options)?.gate()?;
        self.open_by(file, &gate)
    }

    fn open_by(self, storage: Arc<dyn Storage>, gate: &dyn BackingGate) -> Result<Image, Error> {
        let (lock, cache_limit_bytes) = (LockPolicy::None, self.cache_limit_bytes);
        if self.access == Access::ReadOnly {
            let context = ReadContext { gate, lock, cache_limit_bytes };
            let image = ReadOnlyImage::open(storage, &context).map_err(Error::Open)?;
            return Ok(Image::for_reading(image));
        }
        let recovery = if self.recovers { RECOVER } else { RecoveryPolicy::Refuse };
        let file = FileStorage::of(&*storage);
        let owner = file.map(|file| Owner::of(file, self.keeps)).transpose()?;
        let ownership = owner.as_ref().map(|owner| Ownership {
            shared: self.shared,
            take_over: self.takes_over,
            ..owner.ownership(PendingLost::Refuse)
        });
        let context = WriteContext {
            cache_limit_bytes,
            discard: self.discard,
            ownership: ownership.as_ref(),
            ..WriteContext::new(gate, lock, recovery)
        };
        let image = qed_core::Image::open(storage, &context).map_err(Error::Open)?;
        Ok(Image::for_writing(image))
    }

    fn create_options(&self, image_size: u64) -> Result<CreateOptions, Error> {
        let Self { cluster_size, table_size, .. } = *self;
        let geometry = Geometry::new(cluster_size, table_size)
            .ok_or(Error::Geometry { cluster_size, table_size })?;
        let layout = match self.mode {
            Mode::Classic => Layout::Classic,
            Mode::Compat => Layout::Compat(random_identity()?),
            Mode::Journal { len_bytes } => {
                Layout::Journal { identity: random_identity()?, ring_len_bytes: len_bytes }
            }
        };
        Ok(CreateOptions { geometry, image_size, backing: self.over.clone(), layout })
    }
}

/// Whatever is read from now on is what the storage has.
// spec: QED-HAND-03
fn forget_what_others_wrote(file: &FileStorage) -> Result<(), Error> {
    if file.growth() == Growth::Stale && !file.is_direct() {
        return Err(Error::SharedCached);
    }
    Ok(file.forget_cached(0..u64::MAX)?)
}

impl fmt::Debug for Backing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "Refuse",
            Self::SameFolder => "SameFolder",
            Self::Gate(_) => "Gate",
        })
    }
}
