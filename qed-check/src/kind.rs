//! The classes of this crate's errors, in the list that all crates share.

use qed_spec::ErrorKind;

use crate::error::{CheckError, RecoverError};

impl CheckError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Header(error) => error.kind(),
            Self::Superblock(error) => error.kind(),
            Self::Mode(error) => error.kind(),
            Self::Len(source)
            | Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::SetLen { source, .. }
            | Self::Flush(source) => source.into(),
            Self::MapLimit { .. }
            | Self::TablesLimit { .. }
            | Self::TooManyCopies { .. }
            | Self::TableOrData { .. } => ErrorKind::Refused,
            Self::Threads(_) => ErrorKind::Io,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
        }
    }
}

impl RecoverError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Check(error) => error.kind(),
            Self::Corrupt(_) => ErrorKind::Corrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use qed_spec::{
        ChooseError, ClusterCount, HeaderError, HostOffset, L1Index, ModeError, SuperblockCopy,
    };

    use super::*;

    #[test]
    fn each_error_has_its_class() {
        use ErrorKind::{NoSpace, Refused, Unsupported, WrongFormat};
        let (at, len) = (HostOffset::new(0), 512);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let version = ChooseError::Version { copy: SuperblockCopy::A, version: 2 };
        let clusters = ClusterCount::new(1);
        let cases = [
            (CheckError::Header(HeaderError::Magic { found: [0; 4] }), WrongFormat),
            (CheckError::Superblock(version), Unsupported),
            (CheckError::Mode(ModeError::Unknown { found: 9 }), Unsupported),
            (CheckError::Len(full()), NoSpace),
            (CheckError::Read { at, len, source: full() }, NoSpace),
            (CheckError::Write { at, len, source: full() }, NoSpace),
            (CheckError::SetLen { len, source: full() }, NoSpace),
            (CheckError::Flush(full()), NoSpace),
            (CheckError::MapLimit { clusters, limit: 0 }, Refused),
            (CheckError::TablesLimit { limit: 0 }, Refused),
            (CheckError::TooManyCopies { needed: 2, limit: 1 }, Refused),
            (CheckError::TableOrData { at, l1: L1Index::new(0) }, Refused),
            (CheckError::NoSpace { at, clusters: 1 }, NoSpace),
        ];
        for (error, want) in cases {
            assert_eq!(error.kind(), want, "{error}");
            assert_eq!(RecoverError::Check(error).kind(), want);
        }
    }
}
