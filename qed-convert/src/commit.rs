//! Commit: what an overlay holds goes into an image of its backing chain.
//!
//! A conversion whose target is in the chain already, so that only what lies above is copied.

use std::io;
use std::sync::Arc;

use qed_core::{Image, ResizeError, Shrink, VirtualDisk};
use qed_io::Storage;
use thiserror::Error;

use crate::convert::{ConvertError, ConvertOptions, Summary, convert};
use crate::progress::Progress;
use crate::target::{Target, TargetContent};

/// The image of the chain that takes the data.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitBase<'a> {
    /// A QED image, open for writing.
    Qed(&'a Image),
    /// A raw file.
    Raw(Arc<dyn Storage>),
}

/// Why a commit did not complete. The overlay is unchanged and still holds everything.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The base is smaller than the overlay and could not grow.
    #[error("growing the backing file to {size} bytes")]
    Grow {
        /// Bytes of the overlay's virtual disk.
        size: u64,
        /// Why.
        #[source]
        source: ResizeError,
    },
    /// The base is a raw file that could not grow.
    #[error("growing the raw backing file to {size} bytes")]
    GrowRaw {
        /// Bytes of the overlay's virtual disk.
        size: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Copying failed.
    #[error(transparent)]
    Copy(#[from] ConvertError),
}

/// Writes what the first `depth` images of the chain `overlay` hold into `base`, the image at
/// `depth` of that chain; durable when it returns. `depth` is at least 1.
///
/// A base smaller than the overlay grows first. Nothing below `depth` is read, so `base` may be the
/// very file that the chain has there. The overlay stays as it is; its data is then in the base as
/// well.
///
/// # Errors
/// A base that cannot grow, and everything that ends a conversion. The base then holds a mixture of
/// old and new, and reads as the overlay only through it.
pub fn commit(
    overlay: &dyn VirtualDisk,
    depth: u32,
    base: CommitBase<'_>,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<Summary, CommitError> {
    let size = overlay.len();
    let content = TargetContent::SourceFrom(depth.max(1));
    let target = match base {
        CommitBase::Qed(image) => {
            if image.image_size() < size {
                let grown = image.resize(size, Shrink::Refuse);
                grown.map_err(|source| CommitError::Grow { size, source })?;
            }
            Target::QedImage { image, content }
        }
        CommitBase::Raw(storage) => {
            grow_raw(&*storage, size).map_err(|source| CommitError::GrowRaw { size, source })?;
            Target::RawImage { storage, content }
        }
    };
    Ok(convert(overlay, target, options, progress)?)
}

fn grow_raw(storage: &dyn Storage, size: u64) -> io::Result<()> {
    if storage.len()? < size { storage.set_len(size) } else { Ok(()) }
}
