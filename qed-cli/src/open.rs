//! Opening image files: names, stated or recognised formats, locks, and errors that say which file.
//!
//! The one place where the program opens an image. A format is recognised by magic for reading
//! only; what is written has its format stated.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use qed_convert::Qcow2Header;
use qed_core::{
    BackingFile, BackingGate, BackingRequest, GateError, Image, LockPolicy, ReadContext,
    ReadOnlyImage, RecoveryPolicy, WriteContext,
};
use qed_io::{Access, FileOptions, FileStorage, ImageLock, LockError, OpenError, Storage};
use qed_spec::RawHeader;

use crate::args::{CacheMode, Format};
use crate::failure::{io_error_text, shown};
use crate::names::path_of;

const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// How an image file is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenHow {
    pub(crate) access: Access,
    /// `-U`: no lock is taken.
    pub(crate) unlocked: bool,
    pub(crate) cache: CacheMode,
}

impl OpenHow {
    /// For reading; `-U` takes no lock.
    pub(crate) fn read(unlocked: bool) -> Self {
        Self { access: Access::ReadOnly, unlocked, cache: CacheMode::Cached }
    }

    /// For writing, which always takes the lock.
    pub(crate) const WRITE: Self =
        Self { access: Access::ReadWrite, unlocked: false, cache: CacheMode::Cached };
}

/// An open image file.
#[derive(Debug)]
pub(crate) struct ImageFile {
    pub(crate) storage: Arc<FileStorage>,
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// The format was not stated but seen in the first bytes.
    pub(crate) recognised: bool,
}

impl ImageFile {
    /// Opens and locks the file; a format that is not stated is recognised by its magic.
    pub(crate) fn open(name: &OsStr, format: Option<&OsStr>, how: OpenHow) -> anyhow::Result<Self> {
        Self::try_open(name, format, how).with_context(|| could_not_open(name))
    }

    /// As [`ImageFile::open`], with errors that leave it to the caller to say what was opened.
    pub(crate) fn try_open(
        name: &OsStr,
        format: Option<&OsStr>,
        how: OpenHow,
    ) -> anyhow::Result<Self> {
        let stated = format.map(Format::parse_driver).transpose()?;
        let path = path_of(name)?;
        let storage = open_file(&path, how)?;
        let format = match stated {
            Some(format) => reject_other_magic(&storage, format)?,
            None => recognise(&storage)?,
        };
        Ok(Self { storage, path, format, recognised: stated.is_none() })
    }

    /// The file as a storage for the libraries.
    pub(crate) fn shared(&self) -> Arc<dyn Storage> {
        Arc::<FileStorage>::clone(&self.storage)
    }

    /// Whether `path` names this very file.
    pub(crate) fn is_same_file(&self, path: &Path) -> bool {
        let identity = self.storage.identity();
        std::fs::metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (identity.device, identity.inode))
    }

    /// Bytes of the virtual disk; the backing file is not opened.
    pub(crate) fn virtual_size(&self) -> anyhow::Result<u64> {
        let size = match self.format {
            Format::Raw => {
                let len = self.storage.len()?;
                len.checked_next_multiple_of(512).unwrap_or(len)
            }
            Format::Qed => self.metadata_of_qed()?.image_size(),
            Format::Qcow2 => Qcow2Header::read(&*self.storage)?.image_size(),
        };
        Ok(size)
    }

    /// The QED image without its backing file.
    pub(crate) fn metadata_of_qed(&self) -> anyhow::Result<ReadOnlyImage> {
        let context = ReadContext::new(&LeaveBacking, LockPolicy::None);
        Ok(ReadOnlyImage::open(self.shared(), &context)?)
    }

    /// The QED image for writing; one that was not closed is recovered first.
    pub(crate) fn writable_qed(&self, gate: &dyn BackingGate) -> anyhow::Result<Image> {
        let recover = |storage: &dyn Storage| Ok(qed_check::recover(storage)?);
        let recovery = RecoveryPolicy::Run(&recover);
        Ok(Image::open(self.shared(), &WriteContext::new(gate, LockPolicy::None, recovery))?)
    }
}

/// What a failed open begins with.
pub(crate) fn could_not_open(name: &OsStr) -> String {
    format!("Could not open '{}'", shown(name))
}

/// The format that an image to be changed has: stated, never guessed.
pub(crate) fn stated_format(name: &OsStr, format: Option<&OsStr>) -> anyhow::Result<Format> {
    if let Some(format) = format {
        return Format::parse_driver(format).with_context(|| could_not_open(name));
    }
    let seen = ImageFile::open(name, None, OpenHow::read(true))?.format.name();
    bail!(
        "The format of '{name}' must be stated to change it: its first bytes say {seen}, so -f {seen} may be right",
        name = shown(name)
    )
}

/// Opens an image by path and takes its lock.
fn open_file(path: &Path, how: OpenHow) -> anyhow::Result<Arc<FileStorage>> {
    if path.as_os_str().is_empty() {
        bail!("The 'file' block driver requires a file name");
    }
    let direct = how.cache == CacheMode::Direct;
    let storage = FileStorage::open(path, FileOptions { access: how.access, direct })
        .map_err(|error| file_error(path, "open", error))?;
    if !how.unlocked {
        let lock = match how.access {
            Access::ReadOnly => ImageLock::READ,
            Access::ReadWrite => ImageLock::WRITE,
        };
        storage.lock(lock).map_err(|error| lock_error(path, error))?;
    }
    Ok(Arc::new(storage))
}

/// Why a file was not opened or created, in `qemu-img`'s words where it has some.
pub(crate) fn file_error(path: &Path, verb: &str, error: OpenError) -> anyhow::Error {
    match error {
        OpenError::Io(error) => {
            anyhow!("Could not {verb} '{}': {}", shown(path), io_error_text(&error))
        }
        OpenError::Refused { found: qed_io::RefusedKind::Directory } if verb == "create" => {
            anyhow!("Could not create '{}': Is a directory", shown(path))
        }
        OpenError::Refused { .. } => {
            anyhow!("'file' driver requires '{}' to be a regular file", shown(path))
        }
        OpenError::Lock(error) => lock_error(path, error),
        other => other.into(),
    }
}

fn lock_error(path: &Path, error: LockError) -> anyhow::Error {
    let text = error.to_string();
    match error {
        LockError::Held { .. } => anyhow!(
            "{}\nIs another process using the image [{}]?",
            text.replacen("failed", "Failed", 1),
            shown(path)
        ),
        other => other.into(),
    }
}

fn magic(storage: &dyn Storage) -> anyhow::Result<[u8; 4]> {
    let mut magic = [0; 4];
    if storage.len()? >= magic.len() as u64 {
        storage.read_at(&mut magic, 0)?;
    }
    Ok(magic)
}

fn recognise(storage: &FileStorage) -> anyhow::Result<Format> {
    Ok(match magic(storage)? {
        RawHeader::MAGIC => Format::Qed,
        QCOW2_MAGIC => Format::Qcow2,
        _ => Format::Raw,
    })
}

/// Magic never chooses a stated format, but it can speak against it.
fn reject_other_magic(storage: &FileStorage, format: Format) -> anyhow::Result<Format> {
    let magic = magic(storage)?;
    match format {
        Format::Qed if magic != RawHeader::MAGIC => bail!("Image not in QED format"),
        Format::Qcow2 if magic != QCOW2_MAGIC => bail!("Image is not in qcow2 format"),
        format => Ok(format),
    }
}

/// Opens an image as if it had no backing file, for looking at its metadata.
pub(crate) struct LeaveBacking;

impl BackingGate for LeaveBacking {
    fn open_backing(
        &self,
        _request: BackingRequest<'_>,
    ) -> Result<Option<Arc<dyn BackingFile>>, GateError> {
        Ok(None)
    }
}
