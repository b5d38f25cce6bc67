//! The classes of this crate's errors, in the list that all crates share.

use qed_spec::ErrorKind;

use super::{
    AmendError, CorruptTable, CreateError, ImageError, OpenError, ResizeError, SetBackingError,
};
use crate::data::disk::{BackingError, GateError};

impl ImageError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::OutOfRange { .. } => ErrorKind::InvalidInput,
            Self::Corrupt(error) => error.kind(),
            Self::Io { source, .. } => source.into(),
            Self::Backing(error) => error.kind(),
            Self::WritesStopped | Self::Closed | Self::SuperblockFull => ErrorKind::ReadOnly,
            Self::Journal(error) => error.kind(),
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::PendingLost => ErrorKind::Io,
            Self::NotOurs => ErrorKind::Locked,
        }
    }
}

impl CorruptTable {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

impl BackingError {
    /// Its class: that of the error of the storage or of the format.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl GateError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Refused
    }
}

impl OpenError {
    /// Its class. Of a recovery that failed it is [`ErrorKind::Dirty`], whatever the reason.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lock(error) => error.kind(),
            Self::Header(error) => error.kind(),
            Self::BackingName(error) => error.kind(),
            Self::Gate { source, .. } => source.kind(),
            Self::Superblock(error) => error.kind(),
            Self::NeedsRecovery | Self::Recovery(_) | Self::StillDirty => ErrorKind::Dirty,
            Self::PendingLost(error) => error.kind(),
            Self::LogPlace(_) => ErrorKind::Refused,
            Self::Owned { .. } => ErrorKind::Locked,
            Self::Mode(error) => error.kind(),
            Self::NoJournal | Self::JournalCutsTables => ErrorKind::Corrupt,
            Self::JournalRing(error) => error.kind(),
            Self::JournalRecovery(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::DirtyBitmap(error) => error.kind(),
            Self::Image(error) => error.kind(),
        }
    }
}

impl CreateError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Header(_)
            | Self::BackingName(_)
            | Self::BackingFormat(_)
            | Self::JournalRing(_) => ErrorKind::InvalidInput,
            Self::DeviceTooSmall { .. } => ErrorKind::NoSpace,
            Self::Io(source) => source.into(),
        }
    }
}

impl ResizeError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Header(_) => ErrorKind::InvalidInput,
            Self::DirtyBitmap(_) => ErrorKind::NoSpace,
            Self::WouldShrink { .. } => ErrorKind::Refused,
            Self::Image(error) => error.kind(),
        }
    }
}

impl SetBackingError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BackingName(_) | Self::BackingFormat(_) | Self::Header(_) => {
                ErrorKind::InvalidInput
            }
            Self::NoRoom { .. } => ErrorKind::NoSpace,
            Self::Image(error) => error.kind(),
        }
    }
}

impl AmendError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::JournalRing(_) => ErrorKind::InvalidInput,
            Self::Open(error) => error.kind(),
            Self::NameInTheWay { .. } => ErrorKind::Refused,
            Self::Image(error) => error.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use qed_io::{Clash, LockError, Permission};
    use qed_journal::{JournalError, RecoveryError};
    use qed_spec::{
        BackingFormatError, BackingNameError, ChooseError, DirtyBitmapError, HeaderError,
        HostOffset, JournalRingError, L1Index, ModeError, SuperblockCopy,
    };

    use super::*;
    use crate::IoAction;

    const NAME: BackingNameError = BackingNameError::Empty;
    const FORMAT: BackingFormatError = BackingFormatError::Length { found: 0 };
    const RING: JournalRingError = JournalRingError::Length { found: 0 };
    const HEADER: HeaderError = HeaderError::TableSize { found: 3 };
    const AT: HostOffset = HostOffset::new(0);

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    fn corrupt() -> ImageError {
        CorruptTable::L1Entry { l1: L1Index::new(0), value: 3 }.into()
    }

    #[test]
    fn each_error_of_a_request_has_its_class() {
        let refused = BackingError::new(0, ErrorKind::Refused, "no");
        let cases = [
            (ImageError::OutOfRange { at: 9, len: 1, image_size: 0 }, ErrorKind::InvalidInput),
            (corrupt(), ErrorKind::Corrupt),
            (ImageError::io(IoAction::ReadData, AT)(full()), ErrorKind::NoSpace),
            (ImageError::Backing(refused), ErrorKind::Refused),
            (ImageError::WritesStopped, ErrorKind::ReadOnly),
            (ImageError::NotOurs, ErrorKind::Locked),
            (ImageError::Closed, ErrorKind::ReadOnly),
            (ImageError::Journal(JournalError::Failed), ErrorKind::ReadOnly),
            (ImageError::SuperblockFull, ErrorKind::ReadOnly),
            (ImageError::NoSpace { clusters: 1, end: AT }, ErrorKind::NoSpace),
        ];
        for (error, want) in cases {
            assert_eq!(error.kind(), want, "{error}");
        }
    }

    #[test]
    fn each_error_of_opening_has_its_class() {
        let held = LockError::Held { permission: Permission::Write, clash: Clash::InUse };
        let version = ChooseError::Version { copy: SuperblockCopy::A, version: 2 };
        let gate = OpenError::Gate { name: "b".into(), source: GateError::Refused };
        let bitmap = DirtyBitmapError::Length { found: 0 };
        let cases = [
            (OpenError::Lock(held), ErrorKind::Locked),
            (OpenError::Header(HeaderError::Magic { found: [0; 4] }), ErrorKind::WrongFormat),
            (OpenError::BackingName(NAME), ErrorKind::Corrupt),
            (gate, ErrorKind::Refused),
            (OpenError::Superblock(version), ErrorKind::Unsupported),
            (OpenError::NeedsRecovery, ErrorKind::Dirty),
            (OpenError::Mode(ModeError::Unknown { found: 9 }), ErrorKind::Unsupported),
            (OpenError::NoJournal, ErrorKind::Corrupt),
            (OpenError::JournalRing(RING), ErrorKind::Corrupt),
            (OpenError::JournalRecovery(RecoveryError::Changed), ErrorKind::Locked),
            (OpenError::Journal(JournalError::Failed), ErrorKind::ReadOnly),
            (OpenError::JournalCutsTables, ErrorKind::Corrupt),
            (OpenError::DirtyBitmap(bitmap), ErrorKind::Corrupt),
            (OpenError::Recovery("no".into()), ErrorKind::Dirty),
            (OpenError::StillDirty, ErrorKind::Dirty),
            (OpenError::Image(corrupt()), ErrorKind::Corrupt),
        ];
        for (error, want) in cases {
            assert_eq!(error.kind(), want, "{error}");
        }
    }

    #[test]
    fn what_the_caller_asked_for_is_not_corrupt() {
        use ErrorKind::{Corrupt, Dirty, InvalidInput, NoSpace, Refused};
        let bitmap = DirtyBitmapError::Length { found: 0 };
        let in_the_way = AmendError::NameInTheWay { end: 9, first: AT };
        let cases = [
            (CreateError::Header(HEADER).kind(), InvalidInput),
            (CreateError::BackingName(NAME).kind(), InvalidInput),
            (CreateError::BackingFormat(FORMAT).kind(), InvalidInput),
            (CreateError::JournalRing(RING).kind(), InvalidInput),
            (CreateError::DeviceTooSmall { capacity: 1, needed: 2 }.kind(), NoSpace),
            (CreateError::Io(full()).kind(), NoSpace),
            (ResizeError::Header(HEADER).kind(), InvalidInput),
            (ResizeError::DirtyBitmap(bitmap).kind(), NoSpace),
            (ResizeError::WouldShrink { from: 2, to: 1 }.kind(), Refused),
            (ResizeError::Image(corrupt()).kind(), Corrupt),
            (SetBackingError::BackingName(NAME).kind(), InvalidInput),
            (SetBackingError::BackingFormat(FORMAT).kind(), InvalidInput),
            (SetBackingError::NoRoom { area: 1, len: 2 }.kind(), NoSpace),
            (SetBackingError::Header(HEADER).kind(), InvalidInput),
            (SetBackingError::Image(corrupt()).kind(), Corrupt),
            (AmendError::JournalRing(RING).kind(), InvalidInput),
            (AmendError::Open(OpenError::NeedsRecovery).kind(), Dirty),
            (in_the_way.kind(), Refused),
            (AmendError::Image(corrupt()).kind(), Corrupt),
            (GateError::Other("no".into()).kind(), Refused),
        ];
        for (index, (kind, want)) in cases.into_iter().enumerate() {
            assert_eq!(kind, want, "case {index}");
        }
    }
}
