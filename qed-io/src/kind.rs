//! The classes of this crate's errors, in the list that all crates share.

use qed_spec::ErrorKind;

use crate::{LockError, OpenError};

impl OpenError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(source) => source.into(),
            Self::Lock(error) => error.kind(),
            Self::DeviceInUse => ErrorKind::Locked,
            Self::Refused { .. } | Self::DirectUnsupported => ErrorKind::Unsupported,
            Self::NotReadable | Self::AppendMode => ErrorKind::InvalidInput,
        }
    }
}

impl LockError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } => ErrorKind::Locked,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Io(source) => source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{Clash, Permission, RefusedKind};

    #[test]
    fn each_error_has_its_class() {
        let held = || LockError::Held { permission: Permission::Write, clash: Clash::InUse };
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        let opening = [
            (OpenError::Io(io::ErrorKind::NotFound.into()), ErrorKind::NotFound),
            (OpenError::Refused { found: RefusedKind::Pipe }, ErrorKind::Unsupported),
            (OpenError::NotReadable, ErrorKind::InvalidInput),
            (OpenError::AppendMode, ErrorKind::InvalidInput),
            (OpenError::DirectUnsupported, ErrorKind::Unsupported),
            (OpenError::Lock(held()), ErrorKind::Locked),
            (OpenError::DeviceInUse, ErrorKind::Locked),
        ];
        for (error, want) in opening {
            assert_eq!(error.kind(), want, "{error}");
        }
        let locking = [
            (held(), ErrorKind::Locked),
            (LockError::Unsupported(io()), ErrorKind::Unsupported),
            (LockError::Io(io()), ErrorKind::NoSpace),
        ];
        for (error, want) in locking {
            assert_eq!(error.kind(), want, "{error}");
        }
    }
}
