//! One image of a chain: its open file, its format, and what its header says about the next one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use qed_core::{LockPolicy, OpenError, RawFile, ReadContext, ReadOnlyImage, VirtualDisk};
use qed_io::{FileIdentity, FileOptions, FileStorage, ImageLock, Storage};
use qed_layout::{ReadError, read_backing_name, read_stored_format};
use qed_spec::{BackingName, Features, Header, HeaderError, SuperblockError};

use super::error::ChainError;
use super::format::ImageFormat;
use super::gate::OpenedBacking;
use super::recognise::{Recognised, has_magic_of};
use crate::qcow2::{
    Qcow2Header, Qcow2Image, Qcow2Options, Qcow2SnapshotSelector, UnknownFeature, Unsupported,
};

/// An image file that is open and perhaps locked, and whose header has been read.
#[derive(Debug, Clone)]
pub struct Layer {
    path: PathBuf,
    storage: Arc<FileStorage>,
    header: LayerHeader,
    is_recognised: bool,
    backing: Option<NamedBacking>,
    unknown: Vec<UnknownFeature>,
    unsupported: Unsupported,
}

/// The header of an image, by its format.
#[derive(Debug, Clone)]
pub enum LayerHeader {
    /// Raw images have none.
    Raw,
    /// The header of a QED image.
    Qed(Header),
    /// The header of a QCOW2 image.
    Qcow2(Box<Qcow2Header>),
}

/// How the format of an image is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatSource {
    /// Somebody said so: the caller, or the image above. The magic may still speak against it.
    Stated(ImageFormat),
    /// It is what the first and last bytes look like, if that is a format that is read here. That is
    /// for images that a person named; below them see [`TrustMagic`](crate::chain::TrustMagic).
    Magic,
}

/// A backing file as an image names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedBacking {
    name: Vec<u8>,
    format: Result<Option<Vec<u8>>, SuperblockError>,
}

impl Layer {
    /// Opens the file at `path` for reading, takes its lock if `lock` says so, and reads its header.
    ///
    /// # Errors
    /// What is wrong with the file, its lock, its format or its header.
    pub fn open(
        path: &Path,
        format: FormatSource,
        options: FileOptions,
        lock: LockPolicy,
    ) -> Result<Self, ChainError> {
        Self::open_resolved(path, path, format, options, lock, Unsupported::Refused)
    }

    /// As [`Layer::open`] for the file that `path` was resolved to.
    pub(super) fn open_resolved(
        path: &Path,
        resolved: &Path,
        format: FormatSource,
        options: FileOptions,
        lock: LockPolicy,
        unsupported: Unsupported,
    ) -> Result<Self, ChainError> {
        let storage = FileStorage::open(resolved, options)
            .map_err(|source| ChainError::Open { path: path.to_path_buf(), source })?;
        if lock == LockPolicy::Take {
            storage
                .lock(ImageLock::READ)
                .map_err(|source| ChainError::Lock { path: path.to_path_buf(), source })?;
        }
        Self::read(path, Arc::new(storage), format, unsupported)
    }

    /// The image in a file that is open, known as `path`; takes no lock.
    ///
    /// # Errors
    /// What is wrong with the format or the header.
    pub fn from_storage(
        path: &Path,
        storage: Arc<FileStorage>,
        format: FormatSource,
    ) -> Result<Self, ChainError> {
        Self::read(path, storage, format, Unsupported::Refused)
    }

    /// As [`Layer::from_storage`], also for an image that needs what is not supported. It is to be
    /// shown, as the images below it are: as a disk it does not open.
    ///
    /// # Errors
    /// What else is wrong with the format or the header.
    pub fn described(
        path: &Path,
        storage: Arc<FileStorage>,
        format: FormatSource,
    ) -> Result<Self, ChainError> {
        Self::read(path, storage, format, Unsupported::Shown)
    }

    fn read(
        path: &Path,
        storage: Arc<FileStorage>,
        format: FormatSource,
        unsupported: Unsupported,
    ) -> Result<Self, ChainError> {
        let reading = || ChainError::reading(path.to_path_buf());
        let (format, is_recognised) = match format {
            FormatSource::Magic => match Recognised::of(&*storage).map_err(reading())? {
                Recognised::Readable(format) => (format, true),
                Recognised::Foreign(format) => {
                    return Err(ChainError::Foreign { path: path.to_path_buf(), format });
                }
            },
            FormatSource::Stated(format) => {
                if !has_magic_of(format, &*storage).map_err(reading())? {
                    return Err(ChainError::NotInFormat { path: path.to_path_buf(), format });
                }
                (format, false)
            }
        };
        let Headed { header, backing, unknown } = read_header(path, &storage, format, unsupported)?;
        let path = path.to_path_buf();
        Ok(Self { path, storage, header, is_recognised, backing, unknown, unsupported })
    }

    /// The path it was opened by: for a backing file the name above it, seen from where the
    /// program runs.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> ImageFormat {
        match self.header {
            LayerHeader::Raw => ImageFormat::Raw,
            LayerHeader::Qed(_) => ImageFormat::Qed,
            LayerHeader::Qcow2(_) => ImageFormat::Qcow2,
        }
    }

    /// Whether the format was not stated but recognised.
    #[must_use]
    pub fn is_recognised(&self) -> bool {
        self.is_recognised
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &LayerHeader {
        &self.header
    }

    /// What is done with an image below this one that needs what is not supported.
    pub(super) fn unsupported(&self) -> Unsupported {
        self.unsupported
    }

    /// Incompatible features that are not supported; a layer with any was made to be shown.
    #[must_use]
    pub fn unknown_features(&self) -> &[UnknownFeature] {
        &self.unknown
    }

    /// The file.
    #[must_use]
    pub fn storage(&self) -> &Arc<FileStorage> {
        &self.storage
    }

    /// Which file it is, whatever its name.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.storage.identity()
    }

    /// The backing file name as the image has it.
    #[must_use]
    pub fn backing_name(&self) -> Option<BackingName<'_>> {
        self.backing.as_ref().and_then(|backing| BackingName::new(&backing.name).ok())
    }

    /// The backing file's format as the image has it, in no particular encoding; none also where
    /// what it has breaks a rule.
    #[must_use]
    pub fn backing_format(&self) -> Option<&[u8]> {
        self.stated_backing_format().ok().flatten()
    }

    /// The backing file's format as the image states it.
    ///
    /// # Errors
    /// What is stored breaks a rule.
    pub(super) fn stated_backing_format(&self) -> Result<Option<&[u8]>, ChainError> {
        match self.backing.as_ref().map(|backing| &backing.format) {
            Some(Ok(format)) => Ok(format.as_deref()),
            Some(Err(source)) => {
                Err(ChainError::StoredFormat { path: self.path.clone(), source: *source })
            }
            None => Ok(None),
        }
    }

    /// Opens the virtual disk over `below`, what the image's backing file shows.
    pub(super) fn open_over(
        &self,
        below: Option<Arc<dyn VirtualDisk>>,
        snapshot: Option<&Qcow2SnapshotSelector>,
        cache_limit_bytes: u64,
    ) -> Result<Arc<dyn VirtualDisk>, ChainError> {
        let path = || self.path.clone();
        if snapshot.is_some() && self.format() != ImageFormat::Qcow2 {
            return Err(ChainError::NoSnapshots { path: path(), format: self.format() });
        }
        let gate = OpenedBacking::new(self.backing_name(), below);
        let storage = Arc::<FileStorage>::clone(&self.storage);
        let lock = LockPolicy::None;
        Ok(match self.header {
            LayerHeader::Raw => {
                Arc::new(RawFile::open(storage).map_err(ChainError::reading(path()))?)
            }
            LayerHeader::Qed(_) => {
                let context = ReadContext { gate: &gate, lock, cache_limit_bytes };
                let opened = ReadOnlyImage::open(storage, &context);
                Arc::new(opened.map_err(|source| ChainError::Qed { path: path(), source })?)
            }
            LayerHeader::Qcow2(_) => {
                let snapshot = snapshot.cloned();
                let options = Qcow2Options { gate: &gate, lock, cache_limit_bytes, snapshot };
                let opened = Qcow2Image::open(storage, &options);
                Arc::new(opened.map_err(|source| ChainError::Qcow2 { path: path(), source })?)
            }
        })
    }
}

/// What the header of an image says.
struct Headed {
    header: LayerHeader,
    backing: Option<NamedBacking>,
    unknown: Vec<UnknownFeature>,
}

fn read_header(
    path: &Path,
    storage: &FileStorage,
    format: ImageFormat,
    unsupported: Unsupported,
) -> Result<Headed, ChainError> {
    match format {
        ImageFormat::Raw => {
            Ok(Headed { header: LayerHeader::Raw, backing: None, unknown: Vec::new() })
        }
        ImageFormat::Qed => {
            let (header, unknown) = read_qed_header(path, storage, unsupported)?;
            let backing = read_qed_backing(path, storage, &header)?;
            Ok(Headed { header: LayerHeader::Qed(header), backing, unknown })
        }
        ImageFormat::Qcow2 => {
            let failed = |source| ChainError::Qcow2 { path: path.to_path_buf(), source };
            let header = Qcow2Header::read_as(storage, unsupported).map_err(failed)?;
            let backing = header.backing_name().map(|name| NamedBacking {
                name: name.as_bytes().to_vec(),
                format: Ok(header.backing_format().map(<[u8]>::to_vec)),
            });
            let unknown = header.unknown_features();
            Ok(Headed { header: LayerHeader::Qcow2(Box::new(header)), backing, unknown })
        }
    }
}

fn read_qed_header(
    path: &Path,
    storage: &FileStorage,
    unsupported: Unsupported,
) -> Result<(Header, Vec<UnknownFeature>), ChainError> {
    let header = match (qed_core::read_header(storage), unsupported) {
        (Err(OpenError::Header(HeaderError::UnsupportedFeature { .. })), Unsupported::Shown) => {
            qed_core::describe_header(storage)
        }
        (header, _) => header.map(|header| (header, Features::empty())),
    };
    let (header, unknown) = header.map_err(|source| match source {
        OpenError::Header(source) => ChainError::QedHeader { path: path.to_path_buf(), source },
        source => ChainError::Qed { path: path.to_path_buf(), source },
    })?;
    let feature = |bit: Features| bit.first_unsupported(Features::empty());
    let unknown = (0..u64::BITS)
        .filter_map(|bit| feature(unknown.intersection(Features::from_bits_retain(1 << bit))))
        .map(|(bit, name)| UnknownFeature { bit, name: name.map(str::to_owned) });
    Ok((header, unknown.collect()))
}

fn read_qed_backing(
    path: &Path,
    storage: &FileStorage,
    header: &Header,
) -> Result<Option<NamedBacking>, ChainError> {
    let io = |error: ReadError| ChainError::reading(path.to_path_buf())(error.source);
    let Some(name) = read_backing_name(storage, header).map_err(io)? else {
        return Ok(None);
    };
    let checked = BackingName::new(&name)
        .map_err(|source| ChainError::QedBackingName { path: path.to_path_buf(), source })?;
    let format = if header.features().contains(Features::BACKING_FORMAT_NO_PROBE) {
        Ok(Some(ImageFormat::Raw.name().as_bytes().to_vec()))
    } else {
        read_stored_format(storage, header, checked)
            .map_err(io)?
            .map(|it| it.map(String::into_bytes))
    };
    Ok(Some(NamedBacking { name, format }))
}
