//! Opening image files: names, stated or recognised formats, locks, and errors that say which file.
//!
//! The one place where the program opens an image that was named to it; what is below one is
//! `chain`'s. A format that is not stated is recognised by magic; a file without one is raw, and is
//! written only if that is stated.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use qed::{Keeps, Owner, PendingLost};
use qed_convert::chain::{ChainError, FormatSource, Layer, LayerHeader};
use qed_convert::qcow2::{Qcow2Image, Qcow2Options};
use qed_core::{
    BackingGate, DiscardMode, GivenBacking, Image, LockPolicy, Ownership, WriteContext,
};
use qed_io::{Access, FileOptions, FileStorage, ImageLock, LockError, OpenError, Storage};

use crate::args::{CacheMode, Format};
use crate::failure::{io_error_text, shown};
use crate::image_name::ImageName;

/// How long an image may be kept by a writer that is dead, and how often it is looked whether it is.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// How an image file is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenHow {
    pub(crate) access: Access,
    /// `-U`: no lock is taken.
    pub(crate) unlocked: bool,
    pub(crate) cache: CacheMode,
    /// Past what this host caches of the file, which another may have written.
    pub(crate) afresh: bool,
}

impl OpenHow {
    /// For reading; `-U` takes no lock.
    pub(crate) fn read(unlocked: bool) -> Self {
        Self { access: Access::ReadOnly, unlocked, cache: CacheMode::Cached, afresh: false }
    }

    /// For writing, which always takes the lock.
    pub(crate) const WRITE: Self = Self {
        access: Access::ReadWrite,
        unlocked: false,
        cache: CacheMode::Cached,
        afresh: false,
    };

    /// The same for `qed-io`.
    pub(crate) fn file_options(self) -> FileOptions {
        FileOptions { access: self.access, direct: self.cache == CacheMode::Direct }
    }
}

/// The image has a format that is not read here, unless it is a raw disk with such bytes in it.
#[derive(Debug)]
pub(crate) struct ForeignImage {
    /// QEMU's name for the format.
    pub(crate) format: &'static str,
}

impl fmt::Display for ForeignImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format } = self;
        write!(
            f,
            "The image looks like {format}, a format that is not supported; only if it is a raw \
             disk all the same, state that (-f raw)"
        )
    }
}

impl Error for ForeignImage {}

/// Opens and locks an image file and reads its header; a format that is not stated is recognised
/// by its magic, and refused if it is none of ours.
pub(crate) fn open_image(name: &ImageName, how: OpenHow) -> anyhow::Result<Layer> {
    try_open_image(name, how).with_context(|| could_not_open(name.given()))
}

/// As [`open_image`], with errors that leave it to the caller to say what was opened.
pub(crate) fn try_open_image(name: &ImageName, how: OpenHow) -> anyhow::Result<Layer> {
    open_with(Layer::from_storage, name, how)
}

fn open_with(
    read: fn(&Path, Arc<FileStorage>, FormatSource) -> Result<Layer, ChainError>,
    name: &ImageName,
    how: OpenHow,
) -> anyhow::Result<Layer> {
    let format = name.format().map_or(FormatSource::Magic, FormatSource::Stated);
    let storage = open_file(name, how)?;
    let path = name.path();
    let image = read(path, storage, format).map_err(|error| chain_error(path, error))?;
    if how.access == Access::ReadWrite && image.is_recognised() && image.format() == Format::Raw {
        bail!("{WITHOUT_MAGIC} (-f raw)");
    }
    Ok(image)
}

/// As [`open_image`] for reading, also for an image that needs what is not supported: it can be
/// shown, and does not open as a disk.
pub(crate) fn describe_image(name: &ImageName, how: OpenHow) -> anyhow::Result<Layer> {
    open_with(Layer::described, name, how).with_context(|| could_not_open(name.given()))
}

/// Why a raw file is not written; what states the format follows.
pub(crate) const WITHOUT_MAGIC: &str = "The file has no magic of an image format. To change it as \
     raw data, state that it is raw";

/// What a failed open begins with.
pub(crate) fn could_not_open(name: &OsStr) -> String {
    format!("Could not open '{}'", shown(name))
}

/// The format of an image that is to be changed; raw is stated, not guessed.
pub(crate) fn format_to_change(name: &ImageName) -> anyhow::Result<Format> {
    match name.format() {
        Some(format) => Ok(format),
        None => match open_image(name, OpenHow::read(false))?.format() {
            Format::Raw => bail!("{}: {WITHOUT_MAGIC} (-f raw)", could_not_open(name.given())),
            format => Ok(format),
        },
    }
}

/// Opens and locks a file without looking into it.
pub(crate) fn open_file(name: &ImageName, how: OpenHow) -> anyhow::Result<Arc<FileStorage>> {
    let path = name.path();
    if path.as_os_str().is_empty() {
        bail!("The 'file' block driver requires a file name");
    }
    if how.access == Access::ReadWrite && name.is_read_only() {
        bail!("Block node is read-only");
    }
    let storage = open_locked(path, how).map_err(|error| file_error(path, "open", error))?;
    if how.afresh {
        storage.forget_cached(0..u64::MAX)?;
    }
    Ok(Arc::new(storage))
}

/// Opens and locks a file. A writer past the page cache that was killed has it a moment longer than it
/// lives: until the kernel is done with what it had in flight.
fn open_locked(path: &Path, how: OpenHow) -> Result<FileStorage, OpenError> {
    let may_be_left = how.access == Access::ReadWrite && how.cache == CacheMode::Direct;
    let until = Instant::now() + if may_be_left { PATIENCE } else { Duration::ZERO };
    loop {
        match try_open_locked(path, how) {
            Err(OpenError::Lock(LockError::Held { .. }) | OpenError::DeviceInUse)
                if Instant::now() < until =>
            {
                sleep(PAUSE);
            }
            opened => return opened,
        }
    }
}

fn try_open_locked(path: &Path, how: OpenHow) -> Result<FileStorage, OpenError> {
    let storage = FileStorage::open(path, how.file_options())?;
    if !how.unlocked {
        let lock = match how.access {
            Access::ReadOnly => ImageLock::READ,
            Access::ReadWrite => ImageLock::WRITE,
        };
        storage.lock(lock).map_err(OpenError::Lock)?;
    }
    Ok(storage)
}

/// Why the image at `top`, or one below it, was not opened; in `qemu-img`'s words where it has some.
///
/// The caller says that it is about `top`, so only other files are named again.
pub(crate) fn chain_error(top: &Path, error: ChainError) -> anyhow::Error {
    match error {
        ChainError::Open { path, source } => file_error(&path, "open", source),
        ChainError::Lock { path, source } => lock_error(&path, source),
        ChainError::Foreign { path, format } if path == top => ForeignImage { format }.into(),
        ChainError::NotInFormat { path, format: Format::Qed } if path == top => {
            anyhow!("Image not in QED format")
        }
        ChainError::NotInFormat { path, format } if path == top => {
            anyhow!("Image is not in {format} format")
        }
        ChainError::QedHeader { path, source } if path == top => source.into(),
        ChainError::Qed { path, source } if path == top => source.into(),
        ChainError::Qcow2 { path, source } if path == top => source.into(),
        other => other.into(),
    }
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
        OpenError::DeviceInUse => anyhow!("Could not {verb} '{}': {error}", shown(path)),
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

/// The file of an image as a storage for the libraries.
pub(crate) fn storage_of(image: &Layer) -> Arc<dyn Storage> {
    Arc::<FileStorage>::clone(image.storage())
}

/// Whether `path` names the very file of `image`.
pub(crate) fn is_same_file(image: &Layer, path: &Path) -> bool {
    image.storage().is_at(path)
}

/// Bytes of the virtual disk; the backing file is not opened.
pub(crate) fn virtual_size(image: &Layer) -> anyhow::Result<u64> {
    Ok(match image.header() {
        LayerHeader::Raw => {
            let len = image.storage().len()?;
            len.checked_next_multiple_of(512).unwrap_or(len)
        }
        LayerHeader::Qed(header) => header.image_size(),
        LayerHeader::Qcow2(header) => header.image_size(),
    })
}

/// A QCOW2 image as if it had no backing file.
pub(crate) fn open_qcow2_alone(image: &Layer) -> anyhow::Result<Qcow2Image> {
    let options = Qcow2Options::new(&GivenBacking(None), LockPolicy::None);
    Ok(Qcow2Image::open(storage_of(image), &options)?)
}

/// How a QED image is written.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct WriteHow {
    pub(crate) discard: DiscardMode,
    /// Whether what is acknowledged outlives the program.
    pub(crate) keeps: Keeps,
    pub(crate) lost: PendingLost,
    /// Other hosts can write the image, and locks may not reach them.
    pub(crate) shared: bool,
    /// The owner that the image names is gone, or kept from writing.
    pub(crate) take_over: bool,
}

/// A QED image for writing; one that was not closed is recovered first, and gets what a program left that
/// died.
pub(crate) fn writable_qed(
    image: &Layer,
    gate: &dyn BackingGate,
    how: WriteHow,
) -> anyhow::Result<Image> {
    let WriteHow { discard, keeps, lost, shared, take_over } = how;
    let owner = Owner::of(image.storage(), keeps)?;
    if let Some(error) = owner.without_log() {
        // Only a server keeps one, and it logs.
        let error: &dyn Error = error;
        tracing::warn!(
            error,
            "what is not flushed is lost if this server is killed: no pending log"
        );
    }
    let ownership = Ownership { shared, take_over, ..owner.ownership(lost) };
    let context = WriteContext {
        discard,
        ownership: Some(&ownership),
        ..WriteContext::new(gate, LockPolicy::None, qed::RECOVER)
    };
    Ok(Image::open(storage_of(image), &context)?)
}
