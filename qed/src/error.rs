//! Why an image was not created, opened, read or written.

use std::io;
use std::path::PathBuf;

use qed_check::RecoverError;
use qed_convert::chain::ChainError;
use qed_core::{BackingError, CreateError, ImageError, OpenError, ResizeError};
use qed_spec::ErrorKind;
use thiserror::Error;

/// Why a call failed; [`Error::kind`] is for deciding by, the text and the sources are for people.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened, created or locked.
    #[error("could not open '{}'", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: qed_io::OpenError,
    },
    /// A backing file, or the name of one, is not right.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The image did not open.
    #[error("could not open the image")]
    Open(#[source] OpenError),
    /// The image was not created.
    #[error("could not create the image")]
    Create(#[source] CreateError),
    /// No image has clusters and tables of these sizes.
    #[error(
        "no image has clusters of {cluster_size} bytes and tables of {table_size} clusters: both are \
         powers of two, 4096 to 67108864 and 1 to 16"
    )]
    Geometry {
        /// Bytes of a cluster.
        cluster_size: u32,
        /// Clusters of a table.
        table_size: u32,
    },
    /// The image was opened for reading only.
    #[error("the image was opened for reading only")]
    ReadOnly,
    /// The image was closed to be handed over, and a request is in flight that may still write.
    #[error("a request is in flight, so the image stays locked")]
    InUse,
    /// A block device that other hosts write was to be read through this host's cache.
    #[error("a block device that is shared is used without caches: each host has its own")]
    SharedCached,
    /// Reading or writing failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The mapping could not be read.
    #[error(transparent)]
    Map(#[from] BackingError),
    /// The virtual disk kept its size.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// The system failed otherwise.
    #[error("the system failed")]
    Io(#[from] io::Error),
}

impl Error {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source, .. } => source.kind(),
            Self::Chain(error) => error.kind(),
            Self::Open(OpenError::Recovery(error)) => {
                error.downcast_ref().map_or(ErrorKind::Dirty, RecoverError::kind)
            }
            Self::Open(error) => error.kind(),
            Self::Create(error) => error.kind(),
            Self::Geometry { .. } => ErrorKind::InvalidInput,
            Self::ReadOnly => ErrorKind::ReadOnly,
            Self::InUse => ErrorKind::Locked,
            Self::SharedCached => ErrorKind::Refused,
            Self::Image(error) => error.kind(),
            Self::Map(error) => error.kind(),
            Self::Resize(error) => error.kind(),
            Self::Io(error) => error.into(),
        }
    }
}
