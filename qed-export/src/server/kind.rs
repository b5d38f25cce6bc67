//! The classes of the errors of servers, in the list that all crates share.

use std::io;

use qed_spec::ErrorKind;

use super::exports::ExportNameError;
use super::listen::ListenError;
use super::service::ServiceError;

impl ListenError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Locked,
            Self::NotASocket { .. } => ErrorKind::AlreadyExists,
            Self::TooLong { .. } => ErrorKind::InvalidInput,
            Self::NoAddress { .. } => ErrorKind::NotFound,
            Self::Io { source, .. } | Self::HandedOver { source, .. } => source.into(),
        }
    }
}

impl ExportNameError {
    /// Its class.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } => ErrorKind::InvalidInput,
            Self::Twice { .. } => ErrorKind::AlreadyExists,
        }
    }
}

impl ServiceError {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Start(source) => source.into(),
            Self::Server { source, .. } => {
                source.downcast_ref::<io::Error>().map_or(ErrorKind::Io, ErrorKind::from)
            }
            Self::Close { source, .. } => source.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::device::DeviceError;

    #[test]
    fn each_error_has_its_class() {
        use ErrorKind::{
            AlreadyExists, InvalidInput, Io, Locked, NoSpace, NotFound, PermissionDenied, ReadOnly,
            Unsupported,
        };
        let path = PathBuf::new;
        let (index, address, name) = (0, String::new, String::new);
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failed = |source| ServiceError::Server { protocol: "x", source };
        let closing = ServiceError::Close { name: name(), source: DeviceError::ReadOnly };
        let cases = [
            (ListenError::InUse { path: path() }.kind(), Locked),
            (ListenError::NotASocket { path: path() }.kind(), AlreadyExists),
            (ListenError::TooLong { path: path() }.kind(), InvalidInput),
            (ListenError::NoAddress { address: address() }.kind(), NotFound),
            (ListenError::Io { address: address(), source: denied() }.kind(), PermissionDenied),
            (ListenError::HandedOver { index, source: denied() }.kind(), PermissionDenied),
            (ExportNameError::TooLong { len: 9 }.kind(), InvalidInput),
            (ExportNameError::Twice { name: name() }.kind(), AlreadyExists),
            (ServiceError::Start(denied()).kind(), PermissionDenied),
            (failed(denied().into()).kind(), PermissionDenied),
            (failed("x".into()).kind(), Io),
            (closing.kind(), ReadOnly),
            (DeviceError::OutOfRange { at: 0, len: 1 }.kind(), InvalidInput),
            (DeviceError::NotFast.kind(), Unsupported),
            (DeviceError::of_io(full()).kind(), NoSpace),
            (DeviceError::of_io(denied()).kind(), Io),
        ];
        for (index, (kind, want)) in cases.into_iter().enumerate() {
            assert_eq!(kind, want, "case {index}");
        }
    }
}
