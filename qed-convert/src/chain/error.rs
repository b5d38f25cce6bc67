//! Why a backing chain is refused: which image, which name, and what would help.

use std::io;
use std::path::{Path, PathBuf};

use qed_io::LockError;
use qed_spec::{BackingNameError, HeaderError, SuperblockError};
use thiserror::Error;

use super::format::ImageFormat;
use crate::qcow2::Qcow2OpenError;

/// Why a chain of images did not open.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A file did not open: it does not exist, is neither a regular file nor a block device, ..
    #[error("could not open '{}'", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: qed_io::OpenError,
    },
    /// The lock of an image is held, or cannot be taken.
    #[error("could not lock '{}'", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LockError,
    },
    /// The header of an image could not be read.
    #[error("reading the header of '{}'", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// The magic speaks against the format that was stated.
    #[error("'{}' is not in {format} format", path.display())]
    NotInFormat {
        /// The file.
        path: PathBuf,
        /// What it was said to be.
        format: ImageFormat,
    },
    /// Nobody said which format a file has, and it looks like one that is not read here.
    #[error(
        "'{}' looks like a {format} image, which is not supported; it is raw only if that is stated",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// QEMU's name for the format.
        format: &'static str,
    },
    /// The header of a QED image breaks a rule or needs a feature that is not supported.
    #[error("header of '{}'", path.display())]
    QedHeader {
        /// The file.
        path: PathBuf,
        /// The rule.
        #[source]
        source: HeaderError,
    },
    /// The backing file name of a QED image breaks a rule.
    #[error("backing file name in '{}'", path.display())]
    QedBackingName {
        /// The file.
        path: PathBuf,
        /// The rule.
        #[source]
        source: BackingNameError,
    },
    /// The format that a QED image has stored for its backing file breaks a rule.
    #[error("backing file format in '{}'", path.display())]
    StoredFormat {
        /// The file.
        path: PathBuf,
        /// The rule.
        #[source]
        source: SuperblockError,
    },
    /// A QED image did not open.
    #[error("could not open '{}'", path.display())]
    Qed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: qed_core::OpenError,
    },
    /// A QCOW2 image did not open.
    #[error("could not open '{}'", path.display())]
    Qcow2 {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Qcow2OpenError,
    },
    /// A snapshot was asked of an image that has none that can be read.
    #[error("'{}' is {format}: only qcow2 images have snapshots to read", path.display())]
    NoSnapshots {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: ImageFormat,
    },
    /// A backing file name is no plain path.
    #[error("backing file of '{}': unknown protocol '{protocol}', only plain paths are opened", image.display())]
    Protocol {
        /// The image with the name.
        image: PathBuf,
        /// What stands before the first colon.
        protocol: String,
        /// The name.
        backing: PathBuf,
    },
    /// Nobody says which format a backing file has, and its first bytes are not trusted.
    #[error(
        "nothing states the format of backing file '{}' of '{}', and only a file in the folder of \
         the image that names it, or below, is taken for what its first bytes say: state the format \
         (--backing-format), allow the folder of the file (--backing-dir), or trust the first bytes \
         of every file (--trust-magic)",
        backing.display(),
        image.display()
    )]
    FormatUnstated {
        /// The image with the name.
        image: PathBuf,
        /// The backing file.
        backing: PathBuf,
    },
    /// The image says that its backing file has a format that is not read here.
    #[error(
        "the format '{format}' of backing file '{}' of '{}' is not supported",
        backing.display(),
        image.display()
    )]
    FormatUnknown {
        /// The image with the name.
        image: PathBuf,
        /// The backing file.
        backing: PathBuf,
        /// The format as the image has it, bytes that are not text escaped.
        format: String,
    },
    /// A file is in the chain twice.
    #[error("backing file '{}' creates an infinite loop", path.display())]
    Loop {
        /// The second time that it comes.
        path: PathBuf,
    },
    /// The chain is longer than allowed.
    #[error("the backing chain has more than {limit} images")]
    TooDeep {
        /// Backing files allowed.
        limit: usize,
    },
    /// A name could not be resolved to see where it leads.
    #[error("resolving '{}'", path.display())]
    Resolve {
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// A backing file lies outside the folder that the caller allows.
    #[error("backing file '{}' is not below '{}'", path.display(), folder.display())]
    OutsideFolder {
        /// The path.
        path: PathBuf,
        /// The folder, with links resolved.
        folder: PathBuf,
    },
}

impl ChainError {
    /// The file that it is about, by the name above it where that is no file; none if it is about the
    /// chain.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Open { path, .. }
            | Self::Lock { path, .. }
            | Self::Io { path, .. }
            | Self::NotInFormat { path, .. }
            | Self::Foreign { path, .. }
            | Self::QedHeader { path, .. }
            | Self::QedBackingName { path, .. }
            | Self::StoredFormat { path, .. }
            | Self::Qed { path, .. }
            | Self::Qcow2 { path, .. }
            | Self::NoSnapshots { path, .. }
            | Self::Loop { path }
            | Self::Resolve { path, .. }
            | Self::OutsideFolder { path, .. } => Some(path),
            Self::Protocol { backing, .. }
            | Self::FormatUnstated { backing, .. }
            | Self::FormatUnknown { backing, .. } => Some(backing),
            Self::TooDeep { .. } => None,
        }
    }

    /// Why the header at `path` was not read.
    pub(super) fn reading(path: PathBuf) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path, source }
    }
}

/// The image names another backing file than when the chain was opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the image names another backing file than when its chain was opened")]
pub struct BackingNameChanged;
