//! Where the log of one image is kept: a folder in memory that nobody else can write, and a name that says
//! which file the image is.
//!
//! Decides what of a folder and a file is trusted. Knows nothing of what a log says.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use qed_io::{FileStorage, SharedWords};
use qed_spec::PendingBinding;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdir, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use thiserror::Error;

use crate::log::{PendingLog, SLOTS, words_of};

/// Where the system tells its boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which file an image is, so that a log of another one is not taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// Device and inode, or the number of a block device and 0.
    pub file: [u64; 2],
    /// When it was made, seconds and nanoseconds since 1970; zeros where that is not known.
    pub birth: [u64; 2],
}

/// Why there is no place for a log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// A folder, or a file in it, belongs to others, or others may write it.
    #[error("'{path}' is not this user's alone")]
    NotOurs {
        /// The folder or file.
        path: String,
    },
    /// What the system says to a folder or file.
    #[error("'{path}'")]
    Io {
        /// The folder or file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The place of the log of one image. A clone is the same place.
#[derive(Debug, Clone)]
pub struct LogPlace {
    kept: Kept,
    id: FileId,
    /// Slots of a new log, and the number of its first record.
    shape: (u32, u64),
}

#[derive(Clone)]
enum Kept {
    /// In a folder, under a name.
    File { folder: Arc<OwnedFd>, path: PathBuf, name: String },
    /// In memory of this process, which outlives an image and not the process.
    Own(Arc<Mutex<Option<SharedWords>>>),
}

impl PlaceError {
    /// The system does not tell its boot, without which no log is believed.
    #[must_use]
    pub fn no_boot(source: io::Error) -> Self {
        Self::Io { path: BOOT_ID.to_owned(), source }
    }
}

impl FileId {
    /// Of the file that holds an image.
    #[must_use]
    pub fn of(file: &FileStorage) -> Self {
        let (identity, (secs, nanos)) = (file.identity(), file.birth().unwrap_or_default());
        Self { file: [identity.device, identity.inode], birth: [secs, nanos] }
    }
}

impl LogPlace {
    /// The place of the log of a file in a folder that is there.
    ///
    /// # Errors
    /// A folder that is not this user's alone.
    pub fn in_folder(folder: &Path, file: &FileStorage) -> Result<Self, PlaceError> {
        let id = FileId::of(file);
        let how = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = open(folder, how, Mode::empty());
        let opened = opened.map_err(|error| io_error(folder, error.into()))?;
        check_is_ours(&opened, folder, FileType::Directory)?;
        let name = format!("{:x}-{:x}.pending", id.file[0], id.file[1]);
        Ok(Self {
            kept: Kept::File { folder: Arc::new(opened), path: folder.to_owned(), name },
            id,
            shape: (SLOTS, 1),
        })
    }

    /// As [`LogPlace::in_folder`], in a folder that is made where its parent is there, and in which a log
    /// can be kept: an image is not opened first and then found to be without one.
    ///
    /// # Errors
    /// A folder that is not in memory, or that is not this user's alone.
    pub fn make_in(folder: &Path, file: &FileStorage) -> Result<Self, PlaceError> {
        let is_new = match mkdir(folder, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(io_error(folder, error.into())),
        };
        let place = Self::in_folder(folder, file)?;
        // Of full size: memory that is short is found here.
        place.make(words_of(SLOTS), ".try").inspect_err(|_| {
            if is_new {
                // One that is in use by now stays.
                let _ = std::fs::remove_dir(folder);
            }
        })?;
        place.unlink(".try");
        Ok(place)
    }

    /// A place in memory of this process, for a test that ends an image as a dead process does.
    #[must_use]
    pub fn own(id: FileId) -> Self {
        Self { kept: Kept::Own(Arc::default()), id, shape: (SLOTS, 1) }
    }

    /// As [`LogPlace::own`], of logs with so many slots, the first record of which has this number: one
    /// that is used again after a few records.
    #[cfg(feature = "test-utils")]
    #[must_use]
    pub fn own_small(id: FileId, slots: u32, first: u64) -> Self {
        Self { shape: (slots, first), ..Self::own(id) }
    }

    /// The words of the log as they are now: what a process leaves that dies now. None without a log, and
    /// of one in a folder.
    #[cfg(feature = "test-utils")]
    #[must_use]
    pub fn words(&self) -> Option<Vec<u64>> {
        let Kept::Own(own) = &self.kept else { return None };
        let own = own.lock().unwrap_or_else(PoisonError::into_inner);
        let load =
            |word: &std::sync::atomic::AtomicU64| word.load(std::sync::atomic::Ordering::Acquire);
        own.as_ref().map(|words| words.iter().map(load).collect())
    }

    /// Another log, of these words, in memory that nobody else has; or none. Not in a folder.
    #[cfg(feature = "test-utils")]
    pub fn put(&self, words: Option<&[u64]>) {
        let Kept::Own(own) = &self.kept else { return };
        let stored = words.map(|words| {
            let stored = SharedWords::own(words.len());
            for (word, value) in stored.iter().zip(words) {
                word.store(*value, std::sync::atomic::Ordering::Release);
            }
            stored
        });
        *own.lock().unwrap_or_else(PoisonError::into_inner) = stored;
    }

    /// Slots of a new log.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.shape.0
    }

    /// Which file the image is.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The log that is there; none where there is none, or what is there is no log.
    ///
    /// # Errors
    /// A file that others may have written.
    pub fn find(&self) -> Result<Option<PendingLog>, PlaceError> {
        let words = match &self.kept {
            Kept::Own(words) => words.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Kept::File { folder, path, name } => {
                let how = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let path = path.join(name);
                let file = match openat(folder, &**name, how, Mode::empty()) {
                    Ok(file) => file,
                    Err(Errno::NOENT) => return Ok(None),
                    Err(error) => return Err(io_error(&path, error.into())),
                };
                check_is_ours(&file, &path, FileType::RegularFile)?;
                let len = File::from(file.try_clone().map_err(|error| io_error(&path, error))?);
                let len = len.metadata().map_err(|error| io_error(&path, error))?.size();
                // Of a length that no log has it is none, whatever memory it would take.
                let most = words_of(SLOTS) as u64 * 8;
                match usize::try_from(len / 8) {
                    Ok(words) if words >= words_of(1) && len <= most => {
                        let mapped = SharedWords::map(&file, words);
                        Some(mapped.map_err(|error| io_error(&path, error))?)
                    }
                    _ => None,
                }
            }
        };
        Ok(words.and_then(|words| PendingLog::open(words, self.clone())))
    }

    /// A new log in the place of any other; it is whole once it has its name.
    ///
    /// # Errors
    /// No memory for it, or no right.
    pub fn create(&self, binding: PendingBinding, file_len: u64) -> Result<PendingLog, PlaceError> {
        const NEW: &str = ".new";
        let words = self.make(words_of(binding.slots), NEW)?;
        let log =
            PendingLog::create(words.clone(), binding, (file_len, self.shape.1), self.clone());
        match &self.kept {
            Kept::Own(own) => *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(words),
            Kept::File { folder, path, name } => {
                let renamed = renameat(folder, format!("{name}{NEW}"), folder, &**name);
                renamed.map_err(|error| io_error(&path.join(name), error.into()))?;
            }
        }
        Ok(log)
    }

    /// Takes the log away.
    pub(crate) fn remove(&self) {
        match &self.kept {
            Kept::Own(words) => *words.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Kept::File { .. } => self.unlink(""),
        }
    }

    /// Gives the log another name, in the place of an older one.
    pub(crate) fn set_aside(&self) {
        if let Kept::File { folder, name, .. } = &self.kept {
            // Where that fails the next log takes its name.
            let _ = renameat(folder, &**name, folder, format!("{name}.lost"));
        } else {
            self.remove();
        }
    }

    /// Words under the name of the log and `suffix`, all zero.
    fn make(&self, words: usize, suffix: &str) -> Result<SharedWords, PlaceError> {
        let Kept::File { folder, path, name } = &self.kept else {
            return Ok(SharedWords::own(words));
        };
        let name = format!("{name}{suffix}");
        let path = path.join(&name);
        // What a process left that died here.
        self.unlink(suffix);
        let how = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder, &name, how, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(|error| io_error(&path, error.into()))?;
        SharedWords::map(&file, words).map_err(|error| {
            self.unlink(suffix);
            io_error(&path, error)
        })
    }

    fn unlink(&self, suffix: &str) {
        if let Kept::File { folder, name, .. } = &self.kept {
            // One that is not there is away; one that cannot go is found by who makes the next.
            let _ = unlinkat(folder, format!("{name}{suffix}"), AtFlags::empty());
        }
    }
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.kept, f)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, name, .. } => write!(f, "{}", path.join(name).display()),
            Self::Own(_) => f.write_str("in this process"),
        }
    }
}

/// The boot of this host, which every start of the system makes anew.
///
/// # Errors
/// A system that does not tell.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string(BOOT_ID)?;
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    let id = u128::from_str_radix(&digits, 16).map(u128::to_be_bytes);
    id.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

// spec: QED-PEND-06
fn check_is_ours(fd: &OwnedFd, path: &Path, kind: FileType) -> Result<(), PlaceError> {
    let found = fstat(fd).map_err(|error| io_error(path, error.into()))?;
    let is_kind = FileType::from_raw_mode(found.st_mode) == kind;
    // A folder may be read by others, as service managers make them.
    let (others, has_one_name) = match kind {
        FileType::Directory => (0o022, true),
        _ => (0o077, found.st_nlink == 1),
    };
    let is_ours = found.st_uid == qed_io::effective_user() && found.st_mode & others == 0;
    if is_kind && has_one_name && is_ours {
        return Ok(());
    }
    Err(PlaceError::NotOurs { path: path.display().to_string() })
}

fn io_error(path: &Path, source: io::Error) -> PlaceError {
    PlaceError::Io { path: path.display().to_string(), source }
}
