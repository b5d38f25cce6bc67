//! The classes of this crate's errors, in the list that all crates share.

use qed_spec::ErrorKind;

use crate::error::{BatchTooLarge, JournalError, JournalFault, RecoveryError};

impl RecoveryError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => source.into(),
            Self::Corrupt { fault, .. } => fault.kind(),
            Self::OverlayTooLarge { .. } => ErrorKind::Refused,
            Self::Changed => ErrorKind::Locked,
        }
    }
}

impl JournalFault {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Block(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Lost { .. }
            | Self::Misplaced { .. }
            | Self::Chain
            | Self::CommitTooLong { .. }
            | Self::Newer { .. }
            | Self::PhysicalSize { .. }
            | Self::Refused { .. } => ErrorKind::Corrupt,
        }
    }
}

impl JournalError {
    /// Its class. It is [`ErrorKind::ReadOnly`] if trying again is of no use.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed | Self::Fatal { .. } => ErrorKind::ReadOnly,
            Self::Home { source, .. } => source.into(),
            Self::NotEmpty { .. } | Self::RunningOut { .. } => ErrorKind::Corrupt,
        }
    }
}

impl BatchTooLarge {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use qed_spec::{HostOffset, JournalBlockError, JournalRecordError, JournalSequence};

    use super::*;
    use crate::error::JournalAction;

    #[test]
    fn each_error_has_its_class() {
        let (at, sequence) = (HostOffset::new(0), JournalSequence::new(1));
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let corrupt = |fault| RecoveryError::Corrupt { sequence, at, fault };
        let version = JournalFault::Block(JournalBlockError::Version { found: 2 });
        let kind = JournalFault::Record(JournalRecordError::Kind { found: 9 });
        let action = JournalAction::Flush;
        let cases = [
            (RecoveryError::Io { action, at, source: full() }.kind(), ErrorKind::NoSpace),
            (corrupt(JournalFault::Chain).kind(), ErrorKind::Corrupt),
            (corrupt(version).kind(), ErrorKind::Unsupported),
            (corrupt(kind).kind(), ErrorKind::Unsupported),
            (RecoveryError::OverlayTooLarge { max: 0 }.kind(), ErrorKind::Refused),
            (RecoveryError::Changed.kind(), ErrorKind::Locked),
            (JournalError::Failed.kind(), ErrorKind::ReadOnly),
            (JournalError::Fatal { action, source: full() }.kind(), ErrorKind::ReadOnly),
            (JournalError::Home { at, source: full() }.kind(), ErrorKind::NoSpace),
            (JournalError::RunningOut { tail: sequence }.kind(), ErrorKind::Corrupt),
            (BatchTooLarge { records: 2, max: 1 }.kind(), ErrorKind::InvalidInput),
        ];
        for (index, (kind, want)) in cases.into_iter().enumerate() {
            assert_eq!(kind, want, "case {index}");
        }
    }
}
