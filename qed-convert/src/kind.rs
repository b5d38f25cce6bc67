//! The classes of this crate's errors, in the list that all crates share.

use std::error::Error;
use std::io;

use qed_core::{BackingError, ImageError};
use qed_spec::ErrorKind;

use crate::chain::{BackingNameChanged, ChainError};
use crate::commit::CommitError;
use crate::compare::CompareError;
use crate::convert::ConvertError;
use crate::in_place::{InPlaceError, PlanFault, Refusal};
use crate::measure::MeasureError;
use crate::qcow2::{
    Qcow2Corruption, Qcow2EntryFault, Qcow2FormatError, Qcow2OpenError, Qcow2ReadError,
    Qcow2StreamFault,
};
use crate::qcow2_backing::SetQcow2BackingError;
use crate::rebase::RebaseError;
use crate::target::qcow2::Qcow2OptionError;

/// The class of what kept a source from being read, whose own type is not known.
fn of_source(source: &(dyn Error + Send + Sync + 'static)) -> ErrorKind {
    if let Some(error) = source.downcast_ref::<BackingError>() {
        return error.kind();
    }
    if let Some(error) = source.downcast_ref::<ImageError>() {
        return error.kind();
    }
    source.downcast_ref::<io::Error>().map_or(ErrorKind::Io, Into::into)
}

impl ChainError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open { source, .. } => source.kind(),
            Self::Lock { source, .. } => source.kind(),
            Self::Io { source, .. } | Self::Resolve { source, .. } => source.into(),
            Self::NotInFormat { .. } => ErrorKind::WrongFormat,
            Self::QedHeader { source, .. } => source.kind(),
            Self::QedBackingName { source, .. } => source.kind(),
            Self::StoredFormat { source, .. } => source.kind(),
            Self::Qed { source, .. } => source.kind(),
            Self::Qcow2 { source, .. } => source.kind(),
            Self::NoSnapshots { .. } => ErrorKind::InvalidInput,
            Self::Foreign { .. } | Self::Protocol { .. } | Self::FormatUnknown { .. } => {
                ErrorKind::Unsupported
            }
            Self::FormatUnstated { .. } | Self::TooDeep { .. } | Self::OutsideFolder { .. } => {
                ErrorKind::Refused
            }
            Self::Loop { .. } => ErrorKind::Corrupt,
        }
    }
}

impl ConvertError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => of_source(&**source),
            Self::Write { source, .. }
            | Self::Stream { source, .. }
            | Self::Compress { source, .. } => source.into(),
            Self::Image(error) => error.kind(),
            Self::OutputTooSmall { .. } | Self::TooLarge { .. } => ErrorKind::NoSpace,
            Self::Qed(error) => error.kind(),
            Self::Qcow2(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

impl CompareError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => of_source(&**source),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

impl CommitError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Grow { source, .. } => source.kind(),
            Self::GrowRaw { source, .. } => source.into(),
            Self::Copy(error) => error.kind(),
        }
    }
}

impl MeasureError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Qed(error) => error.kind(),
            Self::Qcow2(error) => error.kind(),
        }
    }
}

impl RebaseError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(error) => error.kind(),
            Self::Old(error) | Self::New(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

impl SetQcow2BackingError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Header(_) | Self::Name => ErrorKind::InvalidInput,
            Self::MarkedCorrupt => ErrorKind::Corrupt,
            Self::NoRoom => ErrorKind::NoSpace,
            Self::Io { source, .. } => source.into(),
        }
    }
}

impl Qcow2OptionError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::ClusterSize { .. }
            | Self::RefcountBits { .. }
            | Self::NeedsVersion3 { .. }
            | Self::SizeUnaligned { .. }
            | Self::SizeTooLarge { .. }
            | Self::BackingName(_)
            | Self::BackingNameTooLong { .. } => ErrorKind::InvalidInput,
        }
    }
}

impl Qcow2OpenError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lock(error) => error.kind(),
            Self::Io { source, .. } => source.into(),
            Self::Format(error) => error.kind(),
            Self::SnapshotNotFound { .. } => ErrorKind::NotFound,
            Self::Gate { source, .. } => source.kind(),
        }
    }
}

impl Qcow2FormatError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Magic { .. } => ErrorKind::WrongFormat,
            Self::Version { .. }
            | Self::Encrypted { .. }
            | Self::ExternalDataFile
            | Self::UnsupportedFeature { .. }
            | Self::CompressionType { .. } => ErrorKind::Unsupported,
            Self::BackingName(error) => error.kind(),
            Self::TooShort { .. }
            | Self::ClusterBits { .. }
            | Self::HeaderLength { .. }
            | Self::CompressionBit { .. }
            | Self::ExtendedL2ClusterBits { .. }
            | Self::RefcountOrder { .. }
            | Self::ImageSize { .. }
            | Self::L1TooSmall { .. }
            | Self::TableUnaligned { .. }
            | Self::TableTooLarge { .. }
            | Self::TableMissing { .. }
            | Self::TablePastEnd { .. }
            | Self::BackingNamePlace { .. }
            | Self::ExtensionTooLong { .. }
            | Self::ExtensionLength { .. }
            | Self::SnapshotEntry { .. }
            | Self::BitmapEntry { .. } => ErrorKind::Corrupt,
        }
    }
}

impl Qcow2ReadError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::OutOfRange { .. } => ErrorKind::InvalidInput,
            Self::Corrupt(error) => error.kind(),
            Self::Io { source, .. } | Self::Decompressor(source) => source.into(),
            Self::Backing(error) => error.kind(),
        }
    }
}

impl InPlaceError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Plan(fault) => fault.kind(),
            Self::Lock(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Amend(error) => error.kind(),
            Self::Options(error) => error.kind(),
            Self::Unreadable(error) => error.kind(),
            Self::UnreadableTable(error) => error.kind(),
            Self::Qcow2(error) => error.kind(),
            Self::Read(error) => error.kind(),
            Self::Qed(error) => error.kind(),
            Self::Io { source, .. } => source.into(),
            Self::Verify { .. } | Self::Tables { .. } | Self::Differ { .. } => ErrorKind::Corrupt,
            Self::InDoubt => ErrorKind::Io,
        }
    }
}

impl Refusal {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::BlockDevice
            | Self::ClusterSize { .. }
            | Self::TooLarge { .. }
            | Self::FileTooLong { .. }
            | Self::BackingFormat(_)
            | Self::TooLong { .. }
            | Self::Geometry { .. }
            | Self::HasBacking
            | Self::EmptyDisk
            | Self::Elsewhere { .. }
            | Self::InTheWay { .. } => ErrorKind::Unsupported,
            Self::MarkedCorrupt | Self::Shared { .. } | Self::SharedCluster { .. } => {
                ErrorKind::Corrupt
            }
            Self::EmptyFile | Self::Unaligned { .. } | Self::BackingFormatUnknown => {
                ErrorKind::InvalidInput
            }
            Self::NotRaw { .. } => ErrorKind::WrongFormat,
            Self::DirtySnapshots => ErrorKind::Dirty,
            Self::HeaderArea { .. } | Self::FormatTooLong | Self::NoRoomForName => {
                ErrorKind::NoSpace
            }
            Self::NothingToUndo | Self::NothingToFinalize => ErrorKind::NotFound,
            Self::Snapshots { .. }
            | Self::UnknownBytes { .. }
            | Self::Changed
            | Self::CanBeUndone
            | Self::LooksLikeQed => ErrorKind::Refused,
        }
    }
}

impl PlanFault {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAPlan { .. }
            | Self::OtherPlan { .. }
            | Self::Grown { .. }
            | Self::Shrunk { .. } => ErrorKind::Refused,
        }
    }
}

impl BackingNameChanged {
    /// Its class: another program wrote the image.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Locked
    }
}

/// What is wrong with the bytes of a QCOW2 image.
macro_rules! all_are_corrupt {
    ($($error:ty),+) => {$(
        impl $error {
            /// Its class.
            #[must_use]
            pub const fn kind(&self) -> ErrorKind {
                ErrorKind::Corrupt
            }
        }
    )+};
}

all_are_corrupt!(Qcow2Corruption, Qcow2EntryFault, Qcow2StreamFault);

#[cfg(test)]
mod tests;
