//! A file that is being made: one that is given up half way is removed again, if it is ours.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use qed_io::{Existing, FileKind, FileStorage, ImageLock, NewFileOptions, Storage};

use crate::args::{CacheMode, Format};
use crate::failure::{shown, unsupported};
use crate::names::path_of;
use crate::open::file_error;

/// An output file. Until [`NewFile::keep`], dropping it removes the file if this program made it.
#[derive(Debug)]
pub(crate) struct NewFile {
    storage: Arc<FileStorage>,
    path: PathBuf,
    cache: CacheMode,
    kept: bool,
}

impl NewFile {
    /// Creates the file, or locks and then empties an existing one.
    pub(crate) fn create(name: &OsStr, cache: CacheMode) -> anyhow::Result<Self> {
        let path = path_of(name)?;
        let options = NewFileOptions {
            existing: Existing::Truncate,
            lock: ImageLock::WRITE,
            direct: cache == CacheMode::Direct,
        };
        let storage = FileStorage::create(&path, options)
            .map_err(|error| file_error(&path, "create", error))?;
        Ok(Self { storage: Arc::new(storage), path, cache, kept: false })
    }

    /// Makes the file as long as a raw disk of `size` bytes. A block device has its length: it is to
    /// be large enough, and loses the start of what it held, which could be taken for its format.
    pub(crate) fn set_raw_len(&self, size: u64) -> anyhow::Result<()> {
        if self.storage.kind() == FileKind::Regular {
            return Ok(self.storage.set_len(size)?);
        }
        let len = self.storage.len()?;
        if size > len {
            bail!("Cannot grow device files: the device has {len} bytes");
        }
        Ok(self.storage.write_zeroes(0..len.min(512))?)
    }

    /// Refuses a block device, of which nothing has been changed yet.
    pub(crate) fn refuse_device(&self, format: Format) -> anyhow::Result<()> {
        match self.storage.kind() {
            FileKind::Regular => Ok(()),
            FileKind::BlockDevice => {
                Err(unsupported(format_args!("a new {format} image on a block device")))
            }
        }
    }

    /// The open file, locked for writing.
    pub(crate) fn storage(&self) -> &Arc<FileStorage> {
        &self.storage
    }

    /// The file as a storage for the libraries.
    pub(crate) fn shared(&self) -> Arc<dyn Storage> {
        Arc::<FileStorage>::clone(&self.storage)
    }

    /// The file is complete; its name is durable when this returns, but in [`CacheMode::Unsafe`].
    pub(crate) fn keep(mut self) -> anyhow::Result<()> {
        self.kept = true;
        if self.storage.was_created() && self.cache != CacheMode::Unsafe {
            sync_folder(&self.path)
                .with_context(|| format!("Could not sync the folder of '{}'", shown(&self.path)))?;
        }
        Ok(())
    }

    /// What happens to the file if it is given up now, for the user.
    pub(crate) fn fate(&self) -> String {
        let path = shown(&self.path);
        if self.storage.was_created() {
            format!("the incomplete output file '{path}' is removed")
        } else {
            format!("the output file '{path}' is incomplete")
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Under the lock, so that nobody else makes the file meanwhile; what has its name now may be
        // another's.
        if !self.kept && self.storage.was_created() && self.storage.is_at(&self.path) {
            // An error is being reported already; a file that stays is named by it.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}
