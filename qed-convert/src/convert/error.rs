//! Why a conversion stopped.

use std::error::Error;
use std::fmt;
use std::io;

use qed_core::{BackingError, CreateError, ImageError};
use thiserror::Error;

use crate::target::qcow2::Qcow2OptionError;

/// Why a conversion did not complete; the target is then incomplete.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Bytes or mappings of the source could not be read.
    #[error("reading the source at guest offset {offset:#x}")]
    Read {
        /// Byte of the source's virtual disk.
        offset: u64,
        /// The error of the source's storage or format.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The target's storage failed.
    #[error("{action} at offset {offset:#x} of the output file")]
    Write {
        /// What was being done.
        action: WriteAction,
        /// Byte of the target file.
        offset: u64,
        /// The storage's error.
        #[source]
        source: io::Error,
    },
    /// The output stream failed.
    #[error("writing the output stream at byte {offset}")]
    Stream {
        /// Bytes of the stream before the failed write.
        offset: u64,
        /// The stream's error.
        #[source]
        source: io::Error,
    },
    /// Writing to an existing image failed.
    #[error("writing the output image")]
    Image(#[from] ImageError),
    /// An existing target holds fewer bytes than the source's virtual disk.
    #[error("output file is smaller than input file")]
    OutputTooSmall {
        /// Bytes of the source's virtual disk.
        source_len: u64,
        /// Bytes of the target's virtual disk.
        target_len: u64,
    },
    /// The options of a new QED image break a rule.
    #[error(transparent)]
    Qed(#[from] CreateError),
    /// The options of a new QCOW2 image break a rule or ask for what cannot be written.
    #[error(transparent)]
    Qcow2(#[from] Qcow2OptionError),
    /// The target file would need offsets past what its format can hold.
    #[error("the output file would grow past {limit:#x} bytes, the most its format can address")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The codec failed; a cluster that does not get smaller is no failure.
    #[error("compressing the cluster at guest offset {at:#x}")]
    Compress {
        /// First guest byte of the cluster.
        at: u64,
        /// The codec's error.
        #[source]
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("the conversion was cancelled")]
    Cancelled,
}

/// What a [`ConvertError::Write`] was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteAction {
    /// Writing guest data.
    Data,
    /// Writing zeros.
    Zeros,
    /// Writing an L1 or L2 table or refcounts.
    Table,
    /// Writing the header.
    Header,
    /// Asking or setting the file length.
    Length,
    /// Flushing.
    Flush,
}

impl fmt::Display for WriteAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "writing guest data",
            Self::Zeros => "writing zeros",
            Self::Table => "writing a table",
            Self::Header => "writing the header",
            Self::Length => "setting the file length",
            Self::Flush => "flushing",
        })
    }
}

impl ConvertError {
    pub(crate) fn read(error: BackingError) -> Self {
        Self::Read { offset: error.offset, source: error.source }
    }

    pub(crate) fn write(action: WriteAction, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { action, offset, source }
    }
}
