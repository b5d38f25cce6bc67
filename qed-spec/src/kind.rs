//! The class of an error, one list for all crates. What failed, and where, is the error's own.

use crate::conversion::UndoRecordError;
use crate::error::{BackingNameError, EntryError, HeaderError};
use crate::journal::error::{JournalBlockError, JournalRecordError, JournalRingError};
use crate::superblock::error::{
    AnchorError, BackingFormatError, ChooseError, DirtyBitmapError, ImageOwnerError, ModeError,
    PhysicalSizeError, SuperblockError, SuperblockFull,
};

/// What kind of failure an error is, for a caller that decides by it: each public error of these crates has
/// a `kind()`.
///
/// An error about what the caller asked for, such as the options of a new image, is
/// [`ErrorKind::InvalidInput`] where the same rule broken by a file is [`ErrorKind::Corrupt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file, a snapshot or an address is not there.
    NotFound,
    /// What was to be made is there already.
    AlreadyExists,
    /// The operating system does not permit it.
    PermissionDenied,
    /// Somebody else uses the image, or a socket, in a way that does not fit.
    Locked,
    /// The file is not in the format that it was said to have.
    WrongFormat,
    /// The image was not closed cleanly and needs recovery before it is written.
    Dirty,
    /// Bytes of an image break a rule of its format.
    Corrupt,
    /// A feature, format or kind of file that is not supported here.
    Unsupported,
    /// It was not done for the safety of data, or the caller's rules forbid it.
    Refused,
    /// The disk or the image cannot be written, or not any more.
    ReadOnly,
    /// No room: on the device, in the image, or in what a structure can address.
    NoSpace,
    /// A request or an option that could not be served by any image, or not by this one.
    InvalidInput,
    /// The caller cancelled it.
    Cancelled,
    /// Reading or writing failed otherwise, or a resource of the system is missing.
    Io,
}

#[cfg(feature = "std")]
impl From<&std::io::Error> for ErrorKind {
    fn from(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => Self::NotFound,
            Io::AlreadyExists => Self::AlreadyExists,
            Io::PermissionDenied => Self::PermissionDenied,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Self::NoSpace,
            Io::ReadOnlyFilesystem => Self::ReadOnly,
            Io::Unsupported => Self::Unsupported,
            Io::InvalidInput => Self::InvalidInput,
            _ => Self::Io,
        }
    }
}

impl HeaderError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Magic { .. } => ErrorKind::WrongFormat,
            Self::UnsupportedFeature { .. } => ErrorKind::Unsupported,
            Self::BackingName(error) => error.kind(),
            Self::Truncated { .. }
            | Self::ClusterSize { .. }
            | Self::TableSize { .. }
            | Self::HeaderSize { .. }
            | Self::L1TableOffset { .. }
            | Self::ImageSizeUnaligned { .. }
            | Self::ImageSizeTooLarge { .. } => ErrorKind::Corrupt,
        }
    }
}

impl SuperblockError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::BackingFormat { error, .. } => error.kind(),
            Self::Truncated { .. }
            | Self::Magic { .. }
            | Self::Checksum { .. }
            | Self::Generation
            | Self::SectionsLength { .. }
            | Self::SectionTruncated { .. }
            | Self::SectionOrder { .. }
            | Self::Padding { .. } => ErrorKind::Corrupt,
        }
    }
}

impl ModeError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::Unsupported,
            Self::Length { .. } => ErrorKind::Corrupt,
        }
    }
}

impl ChooseError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::Conflict { .. } => ErrorKind::Corrupt,
        }
    }
}

impl AnchorError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::BackingFormat(error) => error.kind(),
            Self::Truncated { .. }
            | Self::Magic { .. }
            | Self::Checksum { .. }
            | Self::Padding { .. }
            | Self::Place { .. } => ErrorKind::Corrupt,
        }
    }
}

impl UndoRecordError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::Truncated { .. } | Self::Magic { .. } | Self::Checksum { .. } | Self::Padding => {
                ErrorKind::Corrupt
            }
        }
    }
}

impl JournalBlockError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::Truncated { .. }
            | Self::Magic { .. }
            | Self::Checksum { .. }
            | Self::Generation
            | Self::Stable { .. }
            | Self::Index { .. }
            | Self::Used { .. }
            | Self::Padding => ErrorKind::Corrupt,
        }
    }
}

impl JournalRecordError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Kind { .. } => ErrorKind::Unsupported,
            Self::Count { .. } | Self::Place { .. } | Self::Value { .. } | Self::Unused => {
                ErrorKind::Corrupt
            }
        }
    }
}

/// Errors that all say the same of a file.
macro_rules! all_are {
    ($kind:ident: $($error:ty),+) => {$(
        impl $error {
            /// Its class.
            #[must_use]
            pub const fn kind(&self) -> ErrorKind {
                ErrorKind::$kind
            }
        }
    )+};
}

all_are!(Corrupt: BackingNameError, EntryError, DirtyBitmapError, PhysicalSizeError, ImageOwnerError, BackingFormatError, JournalRingError);
all_are!(NoSpace: SuperblockFull);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::HostOffset;
    use crate::superblock::copies::SuperblockCopy;

    #[test]
    fn what_a_later_version_may_mean_is_unsupported_and_the_rest_corrupt() {
        use ErrorKind::{Corrupt, Unsupported, WrongFormat};
        let name = BackingNameError::Empty;
        let format = BackingFormatError::Length { found: 0 };
        let cases = [
            (HeaderError::Truncated { found: 0 }.kind(), Corrupt),
            (HeaderError::Magic { found: [0; 4] }.kind(), WrongFormat),
            (HeaderError::UnsupportedFeature { bit: 9, name: None }.kind(), Unsupported),
            (HeaderError::ClusterSize { found: 0 }.kind(), Corrupt),
            (HeaderError::BackingName(name).kind(), Corrupt),
            (SuperblockError::Version { found: 2 }.kind(), Unsupported),
            (SuperblockError::BackingFormat { at: 0, error: format }.kind(), Corrupt),
            (SuperblockError::Generation.kind(), Corrupt),
            (ModeError::Unknown { found: 3 }.kind(), Unsupported),
            (ModeError::Length { found: 3 }.kind(), Corrupt),
            (ChooseError::Version { copy: SuperblockCopy::A, version: 2 }.kind(), Unsupported),
            (AnchorError::Version { found: 2 }.kind(), Unsupported),
            (AnchorError::BackingFormat(format).kind(), Corrupt),
            (AnchorError::Padding { at: 0 }.kind(), Corrupt),
            (UndoRecordError::Version { found: 2 }.kind(), Unsupported),
            (UndoRecordError::Padding.kind(), Corrupt),
            (JournalBlockError::Version { found: 2 }.kind(), Unsupported),
            (JournalBlockError::Padding.kind(), Corrupt),
            (JournalRecordError::Kind { found: 9 }.kind(), Unsupported),
            (JournalRecordError::Unused.kind(), Corrupt),
            (JournalRingError::Length { found: 0 }.kind(), Corrupt),
            (EntryError::Unaligned { value: 3 }.kind(), Corrupt),
            (DirtyBitmapError::Place { offset: HostOffset::new(1), len_bytes: 0 }.kind(), Corrupt),
            (PhysicalSizeError::Length { found: 0 }.kind(), Corrupt),
            (ImageOwnerError::Length { found: 0 }.kind(), Corrupt),
        ];
        for (index, (kind, want)) in cases.into_iter().enumerate() {
            assert_eq!(kind, want, "case {index}");
        }
    }

    #[test]
    #[cfg(feature = "std")]
    fn errors_of_the_system_keep_their_class() {
        use std::io;
        let cases = [
            (io::ErrorKind::NotFound, ErrorKind::NotFound),
            (io::ErrorKind::AlreadyExists, ErrorKind::AlreadyExists),
            (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
            (io::ErrorKind::StorageFull, ErrorKind::NoSpace),
            (io::ErrorKind::QuotaExceeded, ErrorKind::NoSpace),
            (io::ErrorKind::FileTooLarge, ErrorKind::NoSpace),
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::ReadOnly),
            (io::ErrorKind::Unsupported, ErrorKind::Unsupported),
            (io::ErrorKind::InvalidInput, ErrorKind::InvalidInput),
            (io::ErrorKind::UnexpectedEof, ErrorKind::Io),
        ];
        for (from, want) in cases {
            assert_eq!(ErrorKind::from(&io::Error::from(from)), want, "{from:?}");
        }
    }
}
