//! Opening and creating files, and taking over open ones.
//!
//! Owns the options and the checks that come before a `FileStorage` exists; does no I/O on the
//! contents but cutting a locked target to nothing.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::direct::{Alignment, DirectIo};
use super::flushes::Flushes;
use super::space::Space;
use super::{FileIdentity, FileStorage};
use crate::lock::{ByteLocks, Claim, ImageLock, LockError};
use crate::storage::Storage;

/// What a direct transfer is aligned to where the kernel does not say: a page, which is a multiple
/// of every sector size that disks have.
const SAFE_ALIGNMENT: u32 = 4096;
/// The largest alignment that is believed; no device asks for more than a few pages.
const MAX_ALIGNMENT: u32 = 1024 * 1024;
/// How often a file to be made may vanish before it is locked.
const MAX_ATTEMPTS: u32 = 100;

/// Whether a storage may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reading only; every change fails with `PermissionDenied`.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// How to open a file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileOptions {
    /// What it is opened for.
    pub access: Access,
    /// Whether to bypass the page cache (`O_DIRECT`).
    ///
    /// Transfers of any offset, length and buffer are still allowed: what the kernel would refuse
    /// is copied and, for writes of part of a sector, read first. While a write that ends inside a
    /// sector past the end of the file is under way, and after a crash in that moment, the length
    /// may be seen rounded up to the sector; the surplus is zeros.
    pub direct: bool,
}

impl FileOptions {
    /// Reading only, through the page cache.
    pub const READ_ONLY: Self = Self { access: Access::ReadOnly, direct: false };
    /// Reading and writing through the page cache.
    pub const READ_WRITE: Self = Self { access: Access::ReadWrite, direct: false };
}

/// What to do when the file to create exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Existing {
    /// Fail with `AlreadyExists`.
    Refuse,
    /// Use it: take the lock first, then cut a regular file to length 0. A block device keeps its
    /// length and its bytes, and is opened for this storage alone: nobody mounts it meanwhile.
    Truncate,
}

/// How to create a file; it is open for reading and writing afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NewFileOptions {
    /// What to do when it exists already.
    pub existing: Existing,
    /// The image lock to take before anything is changed; it stays held.
    pub lock: ImageLock,
    /// As [`FileOptions::direct`].
    pub direct: bool,
}

/// What a [`FileStorage`] can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    BlockDevice,
}

/// What holds no image: opening it could block, or act on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum RefusedKind {
    /// A directory.
    #[error("directory")]
    Directory,
    /// A FIFO or pipe.
    #[error("pipe")]
    Pipe,
    /// A socket.
    #[error("socket")]
    Socket,
    /// A character device.
    #[error("character device")]
    CharacterDevice,
    /// Anything else that has no bytes of its own.
    #[error("special file")]
    Special,
}

/// Why a file could not become a storage.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system refused; the source says why.
    #[error("the file could not be opened")]
    Io(#[source] io::Error),
    /// Neither a regular file nor a block device.
    #[error("a {found} cannot hold an image")]
    Refused {
        /// What it is.
        found: RefusedKind,
    },
    /// The descriptor was handed over without the right to read.
    #[error("the descriptor is not open for reading")]
    NotReadable,
    /// The descriptor was handed over in append mode, in which writes ignore their offset.
    #[error("the descriptor is in append mode")]
    AppendMode,
    /// The block device to take over is mounted, or part of another device.
    #[error("the device is in use: mounted, or part of another device")]
    DeviceInUse,
    /// The file system or device cannot bypass the page cache.
    #[error("direct I/O is not supported for this file")]
    DirectUnsupported,
    /// The file to create is in use, or cannot be locked; nothing in it was changed.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl FileStorage {
    /// Opens a file that exists; takes no lock.
    ///
    /// # Errors
    /// [`OpenError::Refused`] for what is neither regular file nor block device, without waiting
    /// for another end; [`OpenError::DirectUnsupported`]; else [`OpenError::Io`].
    pub fn open(path: impl AsRef<Path>, options: FileOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // Looking first keeps from opening what acts when it is opened, a tape drive for one.
        kind_of(std::fs::metadata(path).map_err(OpenError::Io)?.file_type())?;
        let write = options.access == Access::ReadWrite;
        let file = how_to_open().write(write).open(path).map_err(OpenError::Io)?;
        Self::opened(file, options.direct)
    }

    /// Creates a file with the permissions that the umask leaves, or takes over an existing one,
    /// and locks it.
    ///
    /// [`FileStorage::was_created`] tells which it was. [`Storage::flush`] makes the contents
    /// durable; the name is durable once the folder is.
    ///
    /// # Errors
    /// [`OpenError::Lock`] and [`OpenError::DeviceInUse`] if the file is in use: an existing one is
    /// unchanged then. Else as [`FileStorage::open`]. A file that this call made and cannot use is removed again.
    pub fn create(path: impl AsRef<Path>, options: NewFileOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        for _ in 0..MAX_ATTEMPTS {
            let (file, was_created) = create_or_find(path, options.existing)?;
            // Whoever holds the claim, or a lock on the new file, has found it meanwhile, and it is
            // theirs.
            let claim = match options.lock {
                ImageLock::NONE => None,
                _ => Some(Claim::take(&file)?),
            };
            let made = match Self::locked(file, was_created, options) {
                // Another took the name away between the finding and the locking.
                Ok(storage) if !storage.is_at(path) => continue,
                locked => locked.and_then(Self::emptied),
            };
            let taken = matches!(made, Err(OpenError::Lock(LockError::Held { .. })));
            if made.is_err() && was_created && !taken {
                // The first error is the one to report.
                let _ = std::fs::remove_file(path);
            }
            drop(claim);
            return made;
        }
        Err(OpenError::Io(io::Error::new(
            io::ErrorKind::Interrupted,
            "the file is made and removed by others all the time",
        )))
    }

    /// Takes over and locks a file that was found or created.
    fn locked(file: File, was_created: bool, options: NewFileOptions) -> Result<Self, OpenError> {
        let mut storage = Self::opened(file, options.direct)?;
        storage.was_created = was_created;
        storage.lock(options.lock)?;
        Ok(storage)
    }

    fn emptied(self) -> Result<Self, OpenError> {
        if self.kind == FileKind::Regular {
            self.set_len(0).map_err(OpenError::Io)?;
        }
        Ok(self)
    }

    /// Whether `path` leads to this very file.
    #[must_use]
    pub fn is_at(&self, path: impl AsRef<Path>) -> bool {
        std::fs::metadata(path).is_ok_and(|found| identity_of(&found, self.kind) == self.identity)
    }

    /// Takes over an open file or descriptor; access and direct I/O are what it was opened with.
    ///
    /// A duplicate of the descriptor that lives on elsewhere shares the image lock.
    ///
    /// # Errors
    /// [`OpenError::NotReadable`], [`OpenError::AppendMode`] and [`OpenError::Refused`] for
    /// descriptors that cannot serve; [`OpenError::DirectUnsupported`]; else [`OpenError::Io`].
    pub fn from_fd(fd: impl Into<OwnedFd>) -> Result<Self, OpenError> {
        let file = File::from(fd.into());
        let flags = rustix::fs::fcntl_getfl(&file).map_err(into_io)?;
        let access = access_of(flags)?;
        let metadata = file.metadata().map_err(OpenError::Io)?;
        let kind = kind_of(metadata.file_type())?;
        let fd = OwnedFd::from(file);
        let direct = if flags.contains(OFlags::DIRECT) {
            Some(DirectIo::new(direct_alignment(fd.as_fd(), kind)?, kind))
        } else {
            None
        };
        let identity = identity_of(&metadata, kind);
        let unit = match kind {
            FileKind::Regular => 1,
            FileKind::BlockDevice => logical_block(fd.as_fd())?,
        };
        Ok(Self {
            fd,
            kind,
            access,
            identity,
            was_created: false,
            direct,
            space: Space::new(unit.into()),
            flushes: Flushes::default(),
            locks: Mutex::new(ByteLocks::new()),
        })
    }

    /// A file that was opened here, with nobody else to share its flags.
    fn opened(file: File, direct: bool) -> Result<Self, OpenError> {
        kind_of(file.metadata().map_err(OpenError::Io)?.file_type())?;
        let flags = rustix::fs::fcntl_getfl(&file).map_err(into_io)?.difference(OFlags::NONBLOCK);
        // Switched on afterwards because a failed `open` with O_DIRECT leaves a created file.
        let wanted = if direct { flags | OFlags::DIRECT } else { flags };
        rustix::fs::fcntl_setfl(&file, wanted).map_err(|errno| match errno {
            Errno::INVAL if direct => OpenError::DirectUnsupported,
            other => into_io(other),
        })?;
        Self::from_fd(file)
    }
}

/// Opening that waits for nobody, should the name have become a pipe since it was looked at.
fn how_to_open() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options.read(true).custom_flags(flags.bits().cast_signed());
    options
}

/// The file and whether it was created.
fn create_or_find(path: &Path, existing: Existing) -> Result<(File, bool), OpenError> {
    match how_to_open().write(true).create_new(true).open(path) {
        Ok(file) => return Ok((file, true)),
        Err(error)
            if existing == Existing::Truncate && error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(OpenError::Io(error)),
    }
    match std::fs::metadata(path) {
        Ok(found) if kind_of(found.file_type())? == FileKind::BlockDevice => {
            return Ok((exclusively(path)?, false));
        }
        Ok(_) => {}
        // A link that leads to no file yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::Io(error)),
    }
    let file = how_to_open().write(true).create(true).truncate(false).open(path);
    Ok((file.map_err(OpenError::Io)?, false))
}

/// A block device that nothing else in the system has for itself: a mount, or a device made of it.
fn exclusively(path: &Path) -> Result<File, OpenError> {
    let mut options = how_to_open();
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::EXCL;
    options.custom_flags(flags.bits().cast_signed());
    options.write(true).open(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => OpenError::DeviceInUse,
        _ => OpenError::Io(error),
    })
}

fn identity_of(metadata: &Metadata, kind: FileKind) -> FileIdentity {
    match kind {
        FileKind::Regular => FileIdentity { device: metadata.dev(), inode: metadata.ino() },
        FileKind::BlockDevice => FileIdentity { device: metadata.rdev(), inode: 0 },
    }
}

fn kind_of(found: FileType) -> Result<FileKind, OpenError> {
    let found = match found {
        _ if found.is_file() => return Ok(FileKind::Regular),
        _ if found.is_block_device() => return Ok(FileKind::BlockDevice),
        _ if found.is_dir() => RefusedKind::Directory,
        _ if found.is_fifo() => RefusedKind::Pipe,
        _ if found.is_socket() => RefusedKind::Socket,
        _ if found.is_char_device() => RefusedKind::CharacterDevice,
        _ => RefusedKind::Special,
    };
    Err(OpenError::Refused { found })
}

fn access_of(flags: OFlags) -> Result<Access, OpenError> {
    if flags.contains(OFlags::APPEND) {
        return Err(OpenError::AppendMode);
    }
    match flags & OFlags::ACCMODE {
        mode if mode == OFlags::RDONLY && !flags.contains(OFlags::PATH) => Ok(Access::ReadOnly),
        mode if mode == OFlags::RDWR => Ok(Access::ReadWrite),
        _ => Err(OpenError::NotReadable),
    }
}

/// What the kernel asks of direct transfers on this file.
fn direct_alignment(fd: BorrowedFd<'_>, kind: FileKind) -> Result<Alignment, OpenError> {
    let alignment = match rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(found)
            if StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN) =>
        {
            Alignment { sector: found.stx_dio_offset_align, memory: found.stx_dio_mem_align }
        }
        // Kernels before 6.1, and file systems that do not say.
        _ if kind == FileKind::BlockDevice => {
            let block = logical_block(fd)?;
            Alignment { sector: block, memory: block }
        }
        _ => Alignment { sector: SAFE_ALIGNMENT, memory: SAFE_ALIGNMENT },
    };
    let believed = |align: u32| align.is_power_of_two() && align <= MAX_ALIGNMENT;
    if believed(alignment.sector) && believed(alignment.memory) {
        Ok(alignment)
    } else {
        Err(OpenError::DirectUnsupported)
    }
}

fn logical_block(device: BorrowedFd<'_>) -> Result<u32, OpenError> {
    rustix::fs::ioctl_blksszget(device).map_err(into_io)
}

fn into_io(errno: Errno) -> OpenError {
    OpenError::Io(errno.into())
}
