//! Backing chains: which file and format each image below another has, and opening them all.
//!
//! No format is guessed. It is stated by the caller or by the image above, or accepted by its magic
//! on the caller's word, and then that image may name no further file.

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

use qed_core::{BackingFile, DEFAULT_CACHE_LIMIT_BYTES, LockPolicy};
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
    /// Takes backing files of unstated format for what their first bytes look like.
    pub trust_magic: bool,
    /// Whether read locks are taken.
    pub lock: LockPolicy,
    /// The folder that backing files must lie below once links are resolved; none allows all.
    pub confine_to: Option<PathBuf>,
    /// How files are opened.
    pub file: FileOptions,
    /// Bytes of tables kept in memory for the whole chain.
    pub cache_limit_bytes: u64,
}

impl Default for ChainOptions {
    /// Nothing is stated, locks are taken.
    fn default() -> Self {
        Self {
            backing_formats: Vec::new(),
            trust_magic: false,
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
/// use qed_convert::{Chain, ChainOptions, FormatSource, ImageFormat};
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
        while let Some(next) = layers.last().map(|image| next_below(image, layers.len(), options)) {
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
    ) -> Result<Arc<dyn BackingFile>, ChainError> {
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

    fn open_backing(&self) -> Result<Option<Arc<dyn BackingFile>>, ChainError> {
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

/// Opens the backing file that `image` names; there are `depth` images down to `image`.
fn next_below(
    image: &Layer,
    depth: usize,
    options: &ChainOptions,
) -> Result<Option<Layer>, ChainError> {
    let Some(name) = image.backing_name() else {
        return Ok(None);
    };
    if depth > MAX_CHAIN_DEPTH {
        return Err(ChainError::TooDeep { limit: MAX_CHAIN_DEPTH });
    }
    let path = name::backing_path(image.path(), name)?;
    let format = format_below(image, &path, depth - 1, options)?;
    // What was resolved is what is opened; names further down are relative to the name it had.
    let confined = match &options.confine_to {
        Some(folder) => Some(name::confined(&path, folder)?),
        None => None,
    };
    let resolved = confined.as_ref().unwrap_or(&path);
    Layer::open_resolved(&path, resolved, format, options.file, options.lock).map(Some)
}

/// How the format of the backing file at `level`, from 0, is known, which `image` names: what the
/// image says comes first, if there is no doubt about the image itself.
// spec: QED-BACK-05
fn format_below(
    image: &Layer,
    backing: &Path,
    level: usize,
    options: &ChainOptions,
) -> Result<FormatSource, ChainError> {
    let caller = options.backing_formats.get(level).map(|format| FormatSource::Stated(*format));
    let (above, backing) = (|| image.path().to_path_buf(), backing.to_path_buf());
    if image.is_recognised() {
        let format = image.format();
        return caller.ok_or_else(|| ChainError::Recognised { image: above(), format, backing });
    }
    match (image.stated_backing_format()?, caller) {
        (Some(stated), _) => match ImageFormat::from_name(stated) {
            Some(format) => Ok(FormatSource::Stated(format)),
            None => {
                let format = stated.escape_ascii().to_string();
                Err(ChainError::FormatUnknown { image: above(), backing, format })
            }
        },
        (None, Some(stated)) => Ok(stated),
        (None, None) if options.trust_magic => Ok(FormatSource::Magic),
        (None, None) => Err(ChainError::FormatUnstated { image: above(), backing }),
    }
}
