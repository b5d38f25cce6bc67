//! A file that is being made: one that is given up half way is removed again, if it is ours. And what
//! tells a new image from all others.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qed_core::Identity;
use qed_io::{Existing, FileStorage, ImageLock, NewFileOptions, OpenError};
use qed_spec::{Epoch, ImageUuid};

/// An output file, locked for writing. Until [`NewFile::keep`], dropping it removes the file if it was
/// not there before.
#[derive(Debug)]
pub struct NewFile {
    storage: Arc<FileStorage>,
    path: PathBuf,
    is_kept: bool,
}

impl NewFile {
    /// Creates the file, or locks and then empties an existing one if `existing` says so. `direct`
    /// bypasses the page cache.
    ///
    /// # Errors
    /// As [`FileStorage::create`].
    pub fn create(
        path: impl Into<PathBuf>,
        existing: Existing,
        direct: bool,
    ) -> Result<Self, OpenError> {
        let path = path.into();
        let options = NewFileOptions { existing, lock: ImageLock::WRITE, direct };
        let storage = Arc::new(FileStorage::create(&path, options)?);
        Ok(Self { storage, path, is_kept: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    #[must_use]
    pub fn storage(&self) -> &Arc<FileStorage> {
        &self.storage
    }

    /// Keeps the file whatever happens from here on. The name of a new one is durable only after
    /// [`NewFile::keep_durably`].
    pub fn keep(mut self) {
        self.is_kept = true;
    }

    /// Keeps the file, and makes the name of a new one durable.
    ///
    /// # Errors
    /// Those of the system, about the folder; the file is kept all the same.
    pub fn keep_durably(self) -> io::Result<()> {
        let (path, was_created) = (self.path.clone(), self.storage.was_created());
        self.keep();
        let folder = match path.parent() {
            _ if !was_created => return Ok(()),
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Under the lock, so that nobody else makes the file meanwhile; what has its name now may be
        // another's.
        if !self.is_kept && self.storage.was_created() && self.storage.is_at(&self.path) {
            // An error is being reported already.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// What tells a new image from all others: random bytes of the system.
///
/// # Errors
/// The system has none.
pub fn random_identity() -> io::Result<Identity> {
    let (mut uuid, mut epoch) = ([0; 16], [0; 8]);
    getrandom::fill(&mut uuid).map_err(io::Error::other)?;
    getrandom::fill(&mut epoch).map_err(io::Error::other)?;
    Ok(Identity { uuid: ImageUuid::new(uuid), epoch: Epoch::new(u64::from_le_bytes(epoch)) })
}
