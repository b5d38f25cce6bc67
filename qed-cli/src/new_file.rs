//! A file that is being made, in the words of `qemu-img`.

use std::ffi::OsStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use qed_io::{Existing, FileKind, FileStorage, Storage};

use crate::args::CacheMode;
use crate::failure::shown;
use crate::names::path_of;
use crate::open::file_error;

/// An output file, which is removed if it is dropped before [`NewFile::keep`] and this program made it.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: qed::NewFile,
    cache: CacheMode,
}

impl NewFile {
    /// Creates the file, or locks and then empties an existing one.
    pub(crate) fn create(name: &OsStr, cache: CacheMode) -> anyhow::Result<Self> {
        let path = path_of(name)?;
        let file = qed::NewFile::create(&path, Existing::Truncate, cache == CacheMode::Direct)
            .map_err(|error| file_error(&path, "create", error))?;
        Ok(Self { file, cache })
    }

    /// Makes the file as long as a raw disk of `size` bytes. A block device has its length: it is to
    /// be large enough, and loses the start of what it held, which could be taken for its format.
    pub(crate) fn set_raw_len(&self, size: u64) -> anyhow::Result<()> {
        if self.storage().kind() == FileKind::Regular {
            return Ok(self.storage().set_len(size)?);
        }
        let len = self.storage().len()?;
        if size > len {
            bail!("Cannot grow device files: the device has {len} bytes");
        }
        Ok(self.storage().write_zeroes(0..len.min(512))?)
    }

    /// The open file, locked for writing.
    pub(crate) fn storage(&self) -> &Arc<FileStorage> {
        self.file.storage()
    }

    /// The file as a storage for the libraries.
    pub(crate) fn shared(&self) -> Arc<dyn Storage> {
        Arc::<FileStorage>::clone(self.storage())
    }

    /// The file is complete; its name is durable when this returns, but in [`CacheMode::Unsafe`].
    pub(crate) fn keep(self) -> anyhow::Result<()> {
        if self.cache == CacheMode::Unsafe {
            self.file.keep();
            return Ok(());
        }
        let path = shown(self.file.path());
        let kept = self.file.keep_durably();
        kept.with_context(|| format!("Could not sync the folder of '{path}'"))
    }

    /// What happens to the file if it is given up now, for the user.
    pub(crate) fn fate(&self) -> String {
        let path = shown(self.file.path());
        if self.storage().was_created() {
            format!("the incomplete output file '{path}' is removed")
        } else {
            format!("the output file '{path}' is incomplete")
        }
    }
}
