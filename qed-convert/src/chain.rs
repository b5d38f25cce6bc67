//! Backing chains: which file and format each image below another has, and opening them all.
//!
//! The format of a backing file is stated by the caller or by the image above, and followed wherever
//! the file lies. One that nobody states is taken from the file's magic only where the caller trusts
//! it: see [`TrustMagic`].

mod error;
mod format;
mod gate;
mod layer;
mod name;
mod recognise;

pub use error::{BackingNameChanged, ChainError};
pub use format::ImageFormat;
pub use gate::OpenedBacking;
pub use layer::{FormatSource, Layer, LayerHeader};
pub use recognise::Recognised;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qed_core::{DEFAULT_CACHE_LIMIT_BYTES, LockPolicy, VirtualDisk};
use qed_io::FileOptions;

use crate::qcow2::Qcow2SnapshotSelector;

/// Backing files below one image that are opened, at most.
pub const MAX_CHAIN_DEPTH: usize = 200;
/// Tables of one image that are kept in memory whatever the length of the chain, in bytes.
const MIN_CACHE_BYTES: u64 = 256 << 10;

/// What a caller states about the images below the top.
#[derive(Debug, Clone)]
pub struct ChainOptions {
    /// Formats of the backing files, the first below the top first. Each is for a level of which
    /// the image above does not state the format, or was itself only recognised.
    pub backing_formats: Vec<ImageFormat>,
    /// Which backing files of unstated format are taken for what their first bytes look like.
    pub trust_magic: TrustMagic,
    /// Whether read locks are taken.
    pub lock: LockPolicy,
    /// The folder that backing files must lie below once links are resolved; none allows all.
    pub confine_to: Option<PathBuf>,
    /// How files are opened.
    pub file: FileOptions,
    /// Bytes of tables kept in memory for the whole chain.
    pub cache_limit_bytes: u64,
}

/// Which backing files of unstated format are taken for what their first bytes look like, at every
/// level of a chain.
///
/// A guest with a raw disk can write any magic and any backing file name on it. So this is for
/// files that no guest owns as a raw disk, or that only lead to files it may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TrustMagic {
    /// None.
    #[default]
    Never,
    /// Those that lie, links resolved, in the folder of the image that names them, in one of these
    /// folders, or below one of those.
    Near(Vec<PathBuf>),
    /// All.
    Always,
}

impl Default for ChainOptions {
    /// Nothing is stated or trusted, locks are taken.
    fn default() -> Self {
        Self {
            backing_formats: Vec::new(),
            trust_magic: TrustMagic::Never,
            lock: LockPolicy::Take,
            confine_to: None,
            // spec: QED-BACK-08
            file: FileOptions::READ_ONLY,
            cache_limit_bytes: DEFAULT_CACHE_LIMIT_BYTES,
        }
    }
}

/// An image and all below it: files open, locked and with their headers read, tables not yet.
///
/// ```no_run
/// use qed_convert::chain::{Chain, ChainOptions, FormatSource, ImageFormat};
///
/// let format = FormatSource::Stated(ImageFormat::Qcow2);
/// let chain = Chain::walk("overlay.qcow2".as_ref(), format, &ChainOptions::default())?;
/// let disk = chain.open(None)?;
/// let mut sector = [0; 512];
/// disk.read_at(&mut sector, 0)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Chain {
    /// The top first; never empty.
    layers: Vec<Layer>,
    cache_limit_bytes: u64,
}

impl Chain {
    /// Opens the image at `path` for reading, and the files below it.
    ///
    /// # Errors
    /// What is wrong with one of the files, or with the names that lead to it.
    pub fn walk(
        path: &Path,
        format: FormatSource,
        options: &ChainOptions,
    ) -> Result<Self, ChainError> {
        Self::below(Layer::open(path, format, options.file, options.lock)?, options)
    }

    /// Opens the files below an image that is open already, perhaps for writing.
    ///
    /// # Errors
    /// What is wrong with one of the files, or with the names that lead to it.
    pub fn below(top: Layer, options: &ChainOptions) -> Result<Self, ChainError> {
        let mut seen = HashSet::from([top.identity()]);
        let mut layers = vec![top];
        while let Some(next) = layers.last().map(|image| image.open_next(layers.len() - 1, options))
        {
            let Some(next) = next? else { break };
            if !seen.insert(next.identity()) {
                return Err(ChainError::Loop { path: next.path().to_path_buf() });
            }
            layers.push(next);
        }
        Ok(Self { layers, cache_limit_bytes: options.cache_limit_bytes })
    }

    /// The images, the top first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Opens the virtual disk that the top shows, or one of its internal snapshots.
    ///
    /// # Errors
    /// An image that does not open.
    pub fn open(
        &self,
        snapshot: Option<&Qcow2SnapshotSelector>,
    ) -> Result<Arc<dyn VirtualDisk>, ChainError> {
        let (top, _) = self.layers.split_first().expect("a chain has a top");
        top.open_over(self.open_backing()?, snapshot, self.cache_share())
    }

    /// Opens what is below the top, and gives it to the gate with which the caller opens the top
    /// itself. The top of the chain may be open for writing.
    ///
    /// # Errors
    /// An image that does not open.
    pub fn gate(&self) -> Result<OpenedBacking, ChainError> {
        Ok(OpenedBacking::new(self.layers[0].backing_name(), self.open_backing()?))
    }

    fn open_backing(&self) -> Result<Option<Arc<dyn VirtualDisk>>, ChainError> {
        let mut below = None;
        for layer in self.layers[1..].iter().rev() {
            below = Some(layer.open_over(below, None, self.cache_share())?);
        }
        Ok(below)
    }

    /// Bytes of tables that each image keeps.
    fn cache_share(&self) -> u64 {
        (self.cache_limit_bytes / self.layers.len() as u64).max(MIN_CACHE_BYTES)
    }
}

impl Layer {
    /// Opens the backing file that the image names, which is at `level` of its chain, from 0; none if
    /// it names nothing.
    fn open_next(&self, level: usize, options: &ChainOptions) -> Result<Option<Self>, ChainError> {
        let Some(name) = self.backing_name() else {
            return Ok(None);
        };
        if level >= MAX_CHAIN_DEPTH {
            return Err(ChainError::TooDeep { limit: MAX_CHAIN_DEPTH });
        }
        let path = name::backing_path(self.path(), name)?;
        let stated = stated_format(self, &path, level, options)?;
        // What was resolved is what is opened; names further down are relative to the name it had.
        let mut resolved = match &options.confine_to {
            Some(folder) => name::confined(&path, folder)?,
            None => path.clone(),
        };
        let format = match stated {
            Some(format) => FormatSource::Stated(format),
            None => {
                resolved = trusted(self, &path, resolved, &options.trust_magic)?;
                FormatSource::Magic
            }
        };
        let (file, lock) = (options.file, options.lock);
        Self::open_resolved(&path, &resolved, format, file, lock, self.unsupported()).map(Some)
    }
}

/// The format of the backing file at `level` that `image` names, if somebody states it: the image,
/// or the caller, which comes first where the image itself was only recognised.
// spec: QED-BACK-05
fn stated_format(
    image: &Layer,
    backing: &Path,
    level: usize,
    options: &ChainOptions,
) -> Result<Option<ImageFormat>, ChainError> {
    let caller = options.backing_formats.get(level).copied();
    if image.is_recognised() && caller.is_some() {
        return Ok(caller);
    }
    let Some(stored) = image.stated_backing_format()? else { return Ok(caller) };
    match ImageFormat::from_name(stored) {
        Some(format) => Ok(Some(format)),
        None => Err(ChainError::FormatUnknown {
            image: image.path().to_path_buf(),
            backing: backing.to_path_buf(),
            format: stored.escape_ascii().to_string(),
        }),
    }
}

/// The file to open for the backing file at `path`, `resolved` where it was confined, that `image`
/// names, if its magic is trusted.
// spec: QED-BACK-05
fn trusted(
    image: &Layer,
    path: &Path,
    resolved: PathBuf,
    trust: &TrustMagic,
) -> Result<PathBuf, ChainError> {
    if matches!(trust, TrustMagic::Always) {
        return Ok(resolved);
    }
    trust.reached(image.path(), &resolved)?.ok_or_else(|| {
        let (image, backing) = (image.path().to_path_buf(), path.to_path_buf());
        ChainError::FormatUnstated { image, backing }
    })
}

impl TrustMagic {
    /// Whether `file` is one whose first bytes are believed if the image at `image` names it.
    ///
    /// # Errors
    /// The file or a folder cannot be looked up.
    pub fn reaches(&self, image: &Path, file: &Path) -> Result<bool, ChainError> {
        Ok(matches!(self, Self::Always) || self.reached(image, file)?.is_some())
    }

    /// The file behind all links, if it lies in one of the folders.
    fn reached(&self, image: &Path, file: &Path) -> Result<Option<PathBuf>, ChainError> {
        let Self::Near(folders) = self else { return Ok(None) };
        let opening = |error: std::io::Error| ChainError::Open {
            path: file.to_path_buf(),
            source: qed_io::OpenError::Io(error),
        };
        let found = std::fs::canonicalize(file).map_err(opening)?;
        let own = image.parent().unwrap_or(Path::new(""));
        for folder in std::iter::once(own).chain(folders.iter().map(PathBuf::as_path)) {
            if found.starts_with(name::resolve(folder)?) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
